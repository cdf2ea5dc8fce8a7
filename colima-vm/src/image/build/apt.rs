//! Chooses and downloads packages with the host's apt, in directories of our own.
//!
//! The host's apt brings what we must not write ourselves: signatures, proxies, mirrors, pinning of keys.
//! It never looks at the host's own package state: every directory is redirected.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use colima_core::{Arch, Bytes};

use super::{
    super::{Error, LockedPackage, error::at, store::make_private_directory},
    tool::{Cancel, Ended, Stream, Tool, Toolbox},
};

/// apt's directories below one of ours.
#[derive(Clone, Debug)]
pub(super) struct Apt {
    directory: PathBuf,
    toolbox: Toolbox,
}

impl Apt {
    /// Prepares apt's directories and configuration for `arch` and `sources`.
    pub(super) fn prepare(
        directory: &Path,
        arch: Arch,
        sources: &[String],
        toolbox: &Toolbox,
    ) -> Result<Self, Error> {
        for sub in ["state/lists/partial", "cache/archives/partial", "new"] {
            make_private_directory(&directory.join(sub))?;
        }
        let list: String = sources.iter().map(|line| format!("{line}\n")).collect();
        for (name, text) in [
            ("apt.conf", configuration(directory, arch)),
            ("sources.list", list),
            ("state/status", String::new()),
        ] {
            let path = directory.join(name);
            fs::write(&path, text).map_err(at("write", path))?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            toolbox: toolbox.clone(),
        })
    }

    fn tool(&self, name: &'static str) -> Tool {
        Tool::new(name, "apt").env("APT_CONFIG", self.directory.join("apt.conf"))
    }

    /// Fetches the signed index.
    pub(super) async fn update(&self, cancel: &mut Cancel<'_>) -> Result<(), Error> {
        let tool = self
            .tool("apt-get")
            .args(["update", "--quiet", "--error-on=any"]);
        self.toolbox.run(&tool, cancel).await.map(drop)
    }

    /// Everything that an installation of `packages` into an empty root consists of.
    pub(super) async fn closure(
        &self,
        packages: &[&str],
        cancel: &mut Cancel<'_>,
    ) -> Result<Vec<LockedPackage>, Error> {
        let tool = self
            .tool("apt-get")
            .args(["install", "--print-uris", "-qq", "--yes", "?essential"])
            .args(packages);
        parse_uris(&self.toolbox.run(&tool, cancel).await?)
    }

    /// The kernel package that Debian's metapackage stands for today.
    pub(super) async fn kernel(
        &self,
        arch: Arch,
        cancel: &mut Cancel<'_>,
    ) -> Result<LockedPackage, Error> {
        let meta = format!("linux-image-cloud-{}", arch.debian());
        let tool = self
            .tool("apt-cache")
            .args(["show", "--no-all-versions", &meta]);
        let lines = self.toolbox.run(&tool, cancel).await?;
        let name = parse_kernel(&lines).ok_or_else(|| not_understood("apt-cache", &lines))?;
        let tool = self
            .tool("apt-get")
            .args(["download", "--print-uris", "-qq", &name]);
        let lines = self.toolbox.run(&tool, cancel).await?;
        parse_uris(&lines)?
            .pop()
            .ok_or_else(|| not_understood("apt-get", &lines))
    }

    /// Downloads packages into an empty directory, whose files are returned; `progress` gets the
    /// fraction done.
    pub(super) async fn download(
        &self,
        packages: &[&LockedPackage],
        cancel: &mut Cancel<'_>,
        mut progress: impl FnMut(f32),
    ) -> Result<Vec<PathBuf>, Error> {
        let directory = self.directory.join("new");
        fs::remove_dir_all(&directory).map_err(at("remove", &directory))?;
        make_private_directory(&directory)?;
        let tool = self
            .tool("apt-get")
            .args(["download", "--quiet", "-o", "APT::Status-Fd=1"])
            .args(packages.iter().map(|package| pin(package)))
            .directory(&directory);
        let ended = self
            .toolbox
            .watch(&tool, cancel, |stream, line| {
                if let (Stream::Stdout, Some(fraction)) = (stream, parse_status(line)) {
                    progress(fraction);
                }
            })
            .await?;
        explain(ended, packages, &tool)?;
        let entries = fs::read_dir(&directory).map_err(at("read", &directory))?;
        entries
            .map(|entry| {
                entry
                    .map(|entry| entry.path())
                    .map_err(at("read", &directory))
            })
            .collect()
    }
}

fn pin(package: &LockedPackage) -> String {
    format!("{}={}", package.name, package.version)
}

fn not_understood(tool: &'static str, lines: &[String]) -> Error {
    Error::ToolOutput {
        tool,
        text: lines.join("\n").chars().take(400).collect(),
    }
}

/// Tells a version that the archive dropped from any other failure.
fn explain(ended: Ended, packages: &[&LockedPackage], tool: &Tool) -> Result<(), Error> {
    if !ended.status.success() {
        let gone = versions_gone(&ended.tail, packages);
        if !gone.is_empty() {
            return Err(Error::VersionGone { packages: gone });
        }
    }
    ended.success(tool).map(drop)
}

/// The packages that apt's messages call unknown, as `name=version`.
fn versions_gone(tail: &[String], packages: &[&LockedPackage]) -> Vec<String> {
    let mut gone = BTreeSet::new();
    for line in tail.iter().filter_map(|line| line.strip_prefix("E: ")) {
        let unknown = line.ends_with("was not found")
            || line.starts_with("Unable to locate package")
            || line.starts_with("Can't find a source to download version");
        for package in packages.iter().filter(|_| unknown) {
            let words = line.split([' ', '\'', '‘', '’']);
            if words.clone().any(|word| word == package.name)
                || words
                    .clone()
                    .any(|word| word == format!("{}:{}", package.name, package.arch))
            {
                gone.insert(pin(package));
            }
        }
    }
    gone.into_iter().collect()
}

/// apt's configuration: nothing of the host's but proxies and the like. Read after the host's own.
fn configuration(directory: &Path, arch: Arch) -> String {
    let arch = arch.debian();
    let at = |name: &str| directory.join(name).display().to_string();
    format!(
        r#"#clear APT::Update;
#clear APT::Architectures;
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::ForceHash "SHA256";
Acquire::Languages "none";
Dir::Cache "{cache}";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::SourceList "{sources}";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Trusted "/dev/null";
Dir::Etc::TrustedParts "/usr/share/keyrings";
Dir::State "{state}";
Dir::State::status "{status}";
"#,
        cache = at("cache"),
        sources = at("sources.list"),
        state = at("state"),
        status = at("state/status"),
    )
}

/// Reads `'URI' name_version_arch.deb size SHA256:digest` lines.
fn parse_uris(lines: &[String]) -> Result<Vec<LockedPackage>, Error> {
    let parse = |line: &str| {
        let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ');
        let (file, size, hash) = (words.next()?, words.next()?, words.next()?);
        let mut parts = file.strip_suffix(".deb")?.split('_');
        let (name, version, arch) = (parts.next()?, parts.next()?, parts.next()?);
        Some(LockedPackage {
            name: name.to_owned(),
            // apt escapes what a file name cannot have; in a version that is the colon alone.
            version: version.replace("%3a", ":"),
            arch: arch.to_owned(),
            sha256: hash.strip_prefix("SHA256:")?.parse().ok()?,
            size: Bytes::new(size.parse().ok()?),
        })
    };
    let lines = lines.iter().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            parse(line).ok_or_else(|| not_understood("apt-get", std::slice::from_ref(line)))
        })
        .collect()
}

/// The package that a metapackage's stanza depends on.
fn parse_kernel(stanza: &[String]) -> Option<String> {
    let depends = stanza
        .iter()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    let mut names = depends
        .split([',', '|'])
        .filter_map(|name| name.split_whitespace().next());
    names
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// The fraction in a line `dlstatus:ITEM:PERCENT:TEXT` of apt's status protocol
/// (`apt.git:README.progress-reporting`).
fn parse_status(line: &str) -> Option<f32> {
    let mut fields = line.strip_prefix("dlstatus:")?.split(':');
    let percent: f32 = fields.nth(1)?.parse().ok()?;
    Some((percent / 100.0).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn configuration_redirects_everything() {
        insta::assert_snapshot!(configuration("/cache/apt".as_ref(), Arch::X86_64));
    }

    #[test]
    fn uris() {
        let digest = "95ba166bb68a76ca1513196dd59d91e3c33b2096884c6de80406f302b18a030e";
        let good = format!(
            "'http://mirror.example/pool/o/openssh-client_1%253a10.0p1-7_amd64.deb' \
             openssh-client_1%3a10.0p1-7+deb13u4_amd64.deb 360924 SHA256:{digest}"
        );
        let parsed = parse_uris(&lines(&good)).unwrap();
        assert_eq!(pin(&parsed[0]), "openssh-client=1:10.0p1-7+deb13u4");
        assert_eq!(
            (parsed[0].arch.as_str(), parsed[0].size),
            ("amd64", Bytes::new(360_924))
        );
        for wrong in [
            good.replace("SHA256:", "MD5Sum:"),
            good.replace("360924 ", ""),
            good.replace(".deb ", " "),
            "Reading package lists...".to_owned(),
        ] {
            assert!(parse_uris(&lines(&wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kernel_of_the_metapackage() {
        let stanza = lines(
            "Package: linux-image-cloud-amd64\nVersion: 6.12.1-1\n\
             Depends: linux-image-6.12.1+deb13-cloud-amd64 (= 6.12.1-1)\n",
        );
        assert_eq!(
            parse_kernel(&stanza).as_deref(),
            Some("linux-image-6.12.1+deb13-cloud-amd64")
        );
        assert_eq!(parse_kernel(&lines("Package: x\n")), None);
    }

    #[test]
    fn versions_that_the_archive_dropped() {
        let lock = super::super::super::package_lock::tests::sample();
        let packages: Vec<_> = lock.packages.iter().collect();
        let tail = lines(
            "E: Version '5.2.37-2+b10' for 'bash' was not found\n\
             E: Unable to locate package linux-image-6.12.1-cloud-amd64\n\
             W: Version '1:10.0p1-7' for 'openssh-server' was not found",
        );
        assert_eq!(
            versions_gone(&tail, &packages),
            [
                "bash=5.2.37-2+b10",
                "linux-image-6.12.1-cloud-amd64=6.12.1-1"
            ]
        );
        assert!(versions_gone(&lines("E: Failed to fetch bash"), &packages).is_empty());
    }

    #[test]
    fn download_status() {
        assert_eq!(
            parse_status("dlstatus:3:50.0000:Retrieving file 3 of 6"),
            Some(0.5)
        );
        assert_eq!(parse_status("pmstatus:bash:50:x"), None);
        assert_eq!(parse_status("dlstatus:x"), None);
    }
}
