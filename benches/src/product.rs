//! The product under test: `colima` with a home of its own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use colima_vm::image::{Image, ImageStore};
use tokio::process::Command;

use crate::Result;

/// Where everything is that a comparison needs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// A directory for what is made; it is kept, so that the next run is faster.
    pub work: PathBuf,
    /// The directory with `colima`, the guest's program and `colima-bench-peer`.
    pub programs: PathBuf,
    /// Statically linked, for the machine without systemd.
    pub busybox: Option<PathBuf>,
    /// How often each row repeats its slow measurements.
    pub rounds: u32,
    /// Hears each slow measurement as it is made.
    pub progress: fn(&str),
}

impl Setup {
    /// The program that talks to docker inside of guests.
    ///
    /// # Errors
    ///
    /// When it was not built.
    pub fn peer(&self) -> Result<PathBuf> {
        self.program("colima-bench-peer-static")
    }

    /// The program that runs in our guests.
    ///
    /// # Errors
    ///
    /// When it was not built.
    pub fn guest(&self) -> Result<PathBuf> {
        self.program(&format!("colima-guest-{}", std::env::consts::ARCH))
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.programs.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(format!("{} is missing: make bench builds it", path.display()).into())
    }

    /// The product with a home below [`Setup::work`].
    ///
    /// # Errors
    ///
    /// When it was not built.
    pub fn product(&self) -> Result<Product> {
        Ok(Product {
            program: self.program("colima")?,
            work: self.work.clone(),
        })
    }
}

/// `colima` with a home of its own.
///
/// **Drop** does nothing: an instance that was started goes on until [`Product::delete`].
#[derive(Clone, Debug)]
pub struct Product {
    program: PathBuf,
    work: PathBuf,
}

impl Product {
    /// The `colima` that is run.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.work.join("home")
    }

    /// The instance's docker socket on the host.
    #[must_use]
    pub fn docker_socket(&self) -> PathBuf {
        self.home().join("default/docker.sock")
    }

    /// The configuration with which `ssh` reaches the instance under the name `colima`.
    #[must_use]
    pub fn ssh_config(&self) -> PathBuf {
        self.home().join("default/ssh_config")
    }

    /// The environment that keeps a program away from whatever else is on this host.
    pub fn isolate(&self, command: &mut Command) {
        command
            .env("COLIMA_HOME", self.home())
            .env("COLIMA_CACHE_HOME", self.work.join("cache"))
            .env("DOCKER_CONFIG", self.work.join("docker-config"))
            .env_remove("COLIMA_PROFILE")
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
    }

    /// Runs `colima` and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with its own words.
    pub async fn run<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let mut command = Command::new(&self.program);
        self.isolate(command.args(arguments));
        output(&mut command).await
    }

    /// The newest image, which is built if there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be built.
    pub async fn image(&self) -> Result<Image> {
        let store = ImageStore::new(self.home().join("_images"));
        if let Some(image) = newest(&store)? {
            return Ok(image);
        }
        self.run(["image", "build"]).await?;
        newest(&store)?.ok_or_else(|| "the image that was built is not in the store".into())
    }

    /// Starts the instance, which shares nothing.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub async fn start(&self) -> Result<()> {
        self.start_with("none").await
    }

    /// Starts the instance with a mount, as `--mount` has it.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub async fn start_with(&self, mount: &str) -> Result<()> {
        std::fs::create_dir_all(self.work.join("docker-config"))?;
        self.image().await?;
        self.run(["start", "--mount", mount]).await.map(drop)
    }

    /// Ends the instance, whatever state it is in, and removes its disks.
    ///
    /// # Errors
    ///
    /// When something is left behind.
    pub async fn delete(&self) -> Result<()> {
        self.run(["delete", "--force", "--data"]).await.map(drop)
    }

    /// What the instance's processors run on.
    ///
    /// # Errors
    ///
    /// When it was never started.
    pub fn accelerator(&self) -> Result<String> {
        let record = std::fs::read(self.home().join("default/instance.json"))?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        let accelerator = record["accelerator"].as_str();
        Ok(accelerator
            .ok_or("instance.json names no accelerator")?
            .to_owned())
    }

    /// Runs a shell command in the guest by ssh, with `input`, and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with its own words.
    pub async fn in_guest(&self, script: &str, input: Stdio) -> Result<String> {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(self.ssh_config())
            .args(["colima", script]);
        output(command.stdin(input)).await
    }
}

fn newest(store: &ImageStore) -> Result<Option<Image>> {
    let images = store.list()?.into_iter().flatten();
    Ok(images.max_by_key(|image| image.manifest.built))
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
///
/// When it fails, with its own words.
pub async fn output(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().to_owned();
    let name = Path::new(&name).file_name().unwrap_or(OsStr::new("?"));
    let done = command.kill_on_drop(true).output().await;
    let done = done.map_err(|error| format!("cannot run {}: {error}", name.display()))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&done.stderr);
    Err(format!("{}: {}: {}", name.display(), done.status, words.trim()).into())
}
