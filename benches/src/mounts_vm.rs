//! Our mount against sshfs as Lima starts it, in a guest; and without a mount, on the guest's own ext4.
//!
//! sshfs is the host's own, with its libraries, so that the image needs nothing for it. It speaks with the host's
//! `sftp-server` over a connection of its own, AES-128-GCM. Before each turn the guest forgets what it has
//! read, and sshfs is mounted anew; what the host remembers is the same for all.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{
    Result,
    files::Amount,
    host::Host,
    mounts::{PEERS, Times, against_no_mount, against_sshfs, sftp_server},
    product::{Product, Setup, output},
    report::{Bar, Measure, Row},
    sample::Unit,
};

const AMOUNT: Amount = Amount::Third;
/// Edits on the host, each waited for in the guest.
const EDITS: u64 = 200;
/// An edit that is not seen by then is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// In the guest: programs, the place of sshfs, and a directory of the disk that docker's data is on.
const PROGRAMS: &str = "/run/bench";
const PEER: &str = "/run/bench/peer";
const SSHFS_PLACE: &str = "/run/bench/sshfs-mount";
const DISK: &str = "/var/lib/docker/bench";

/// Starts an instance with a share, measures, and deletes it.
///
/// # Errors
///
/// When the instance does not start, or a mount fails.
pub async fn run(setup: &Setup) -> Result<Row> {
    let product = setup.product()?;
    let host = Host::here();
    let directory = tempfile::tempdir_in(&setup.work)?;
    let share = directory.path().join("share");
    let git = program_with_libraries("git").await.ok();
    let mut make = Command::new(setup.peer()?);
    make.arg("make-files").arg(&share).arg(AMOUNT.name());
    output(make.args(git.as_ref().map(|_| "git"))).await?;

    let shared = format!("{}:w", share.display());
    product.start_with(&shared).await?;
    let accelerator = product.accelerator()?;
    let measured = measure(setup, &product, &share, git).await;
    let deleted = product.delete().await;
    let (measures, bars) = measured?;
    deleted?;
    Ok(Row {
        name: "mounts-vm".to_owned(),
        about: "In a guest: a directory of the host through sshfs as Lima starts it (reverse, over ssh with \
                AES-128-GCM), and through our mount; and the guest's own ext4 without a mount."
            .to_owned(),
        command: format!("compare --rounds {} mounts-vm", setup.rounds),
        host: host.with_guest(accelerator),
        measures,
        bars,
    })
}

async fn measure(
    setup: &Setup,
    product: &Product,
    share: &Path,
    git: Option<Vec<PathBuf>>,
) -> Result<(Vec<Measure>, Vec<Bar>)> {
    let sudo = |script: String| async move {
        let script = format!("sudo sh -ec '{script}'");
        product.in_guest(&script, Stdio::null()).await
    };
    let install = format!(
        "sudo install -d -m 0777 {PROGRAMS} {SSHFS_PLACE} && cat >{PEER} && chmod 755 {PEER}"
    );
    let program = File::open(setup.peer()?)?;
    product.in_guest(&install, program.into()).await?;
    let sshfs = bring(product, &program_with_libraries("sshfs").await?).await?;
    let git = match git {
        Some(files) => bring(product, &files).await?,
        None => String::new(),
    };
    // Also for ext4, so that all have the same files.
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(share)
        .args(["-c", "."])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let archive: Stdio = tar.stdout.take().ok_or("tar says nothing")?.try_into()?;
    let unpack = format!("sudo mkdir -p {DISK} && sudo tar -C {DISK} -x");
    product.in_guest(&unpack, archive).await?;
    tar.wait().await?;

    let mut times = Times::new(AMOUNT, Unit::Seconds);
    for round in 1..=setup.rounds {
        for (peer, name) in PEERS.into_iter().enumerate() {
            let mounted = match peer {
                0 => Some(Sshfs::mount(product, &sshfs, share).await?),
                _ => None,
            };
            let there = match peer {
                0 => SSHFS_PLACE.to_owned(),
                1 => share.display().to_string(),
                _ => DISK.to_owned(),
            };
            sudo("sync; echo 3 >/proc/sys/vm/drop_caches".to_owned()).await?;
            let began = Instant::now();
            let work = format!("{PEER} files {there} {} {git}", AMOUNT.name());
            let printed = sudo(work).await?;
            for failed in times.add(peer, &printed)? {
                (setup.progress)(&failed);
            }
            let elapsed = began.elapsed();
            (setup.progress)(&format!("round {round}: {name}, {elapsed:.0?}"));
            if let Some(mounted) = mounted {
                mounted.close().await?;
            }
        }
    }
    let (mut measures, mut bars) = times.done(|work, measure| {
        let mut bars = vec![against_sshfs(work, measure)];
        bars.extend(against_no_mount(work, measure));
        bars
    });
    let (seen, in_time) = edits(setup, product, share).await?;
    measures.extend(seen);
    bars.push(in_time);
    Ok((measures, bars))
}

/// How long until the guest has seen an edit of the host, as its word by ssh arrives; and what such a word takes.
async fn edits(setup: &Setup, product: &Product, share: &Path) -> Result<([Measure; 2], Bar)> {
    let what = "a word to the guest and back by ssh";
    let mut words = Measure::new(what, Unit::Milliseconds, ["ssh"]);
    let (mut input, mut output, _ssh) = talk(product, "echo")?;
    for number in 0..EDITS {
        let begin = Instant::now();
        input.write_all(format!("{number}\n").as_bytes()).await?;
        hear(&mut output, number).await?;
        words.samples[0]
            .values
            .push(Unit::Milliseconds.of(begin.elapsed(), 0));
    }

    let file = share.join("edited");
    std::fs::write(&file, "0")?;
    let what = "an edit on the host, until the guest's word of it has arrived by ssh";
    let mut seen = Measure::new(what, Unit::Milliseconds, ["ours"]);
    let (_input, mut output, _ssh) = talk(product, &format!("watch {}", file.display()))?;
    hear(&mut output, 0).await?;
    for number in 1..=EDITS {
        let begin = Instant::now();
        std::fs::write(&file, number.to_string())?;
        hear(&mut output, number).await?;
        seen.samples[0]
            .values
            .push(Unit::Milliseconds.of(begin.elapsed(), 0));
    }
    let p99 = seen.samples[0].percentile(99);
    (setup.progress)(&format!("edits: {:.1} ms, p99 {p99:.1} ms", seen.median(0)));
    let bar = Bar::at_most(
        "99 of 100 edits on the host are seen within 50 ms",
        50.0,
        p99,
    );
    Ok(([words, seen], bar))
}

/// Runs the program in the guest for as long as its handle is there.
fn talk(
    product: &Product,
    command: &str,
) -> Result<(ChildStdin, Lines<BufReader<ChildStdout>>, Child)> {
    let mut ssh = Command::new("ssh")
        .arg("-F")
        .arg(product.ssh_config())
        .args(["colima", &format!("sudo {PEER} {command}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(input), Some(output)) = (ssh.stdin.take(), ssh.stdout.take()) else {
        return Err("ssh has no standard streams".into());
    };
    Ok((input, BufReader::new(output).lines(), ssh))
}

async fn hear(lines: &mut Lines<BufReader<ChildStdout>>, number: u64) -> Result<()> {
    let heard = async {
        while let Some(line) = lines.next_line().await? {
            if line.trim() == number.to_string() {
                return Ok(());
            }
        }
        Err("the guest's program ended".into())
    };
    timeout(PATIENCE, heard)
        .await
        .map_err(|_| format!("the guest has not seen {number} within {PATIENCE:?}"))?
}

/// A program of this host and the libraries that it loads, the loader as the last.
async fn program_with_libraries(name: &str) -> Result<Vec<PathBuf>> {
    let program = output(Command::new("sh").args(["-c", &format!("command -v {name}")])).await;
    let program = program.map_err(|_| format!("{name} is not here: install its package"))?;
    let mut files = vec![PathBuf::from(program.trim())];
    let listed = output(Command::new("ldd").arg(&files[0])).await?;
    // "libfuse3.so.3 => /lib/... (0x...)", and the loader without an arrow.
    let mut loader = None;
    for line in listed.lines() {
        let path = line
            .split_whitespace()
            .find(|word| word.starts_with('/'))
            .map(PathBuf::from);
        match path {
            Some(path) if line.contains("=>") => files.push(path),
            Some(path) => loader = Some(path),
            None => {}
        }
    }
    files.push(loader.ok_or_else(|| format!("{name} has no loader"))?);
    Ok(files)
}

/// Copies a program with its libraries to the guest; gives the words that start it there.
async fn bring(product: &Product, files: &[PathBuf]) -> Result<String> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    let (Some(program), Some(loader)) = (files.first(), files.last()) else {
        return Err("there is no program".into());
    };
    let place = Path::new(PROGRAMS).join("with").join(name(program));
    for file in files {
        let to = place.join(name(file));
        let (place, to) = (place.display(), to.display());
        let copy = format!("mkdir -p {place} && cat >{to} && chmod 755 {to}");
        product.in_guest(&copy, File::open(file)?.into()).await?;
    }
    Ok(format!(
        "{} --library-path {} {}",
        place.join(name(loader)).display(),
        place.display(),
        place.join(name(program)).display()
    ))
}

/// sshfs in the guest.
///
/// **Drop** ends the connection, and with it the mount; **close** takes the mount away before.
struct Sshfs<'a> {
    product: &'a Product,
    ssh: Child,
    server: Child,
}

impl<'a> Sshfs<'a> {
    async fn mount(product: &'a Product, sshfs: &str, share: &Path) -> Result<Self> {
        let (near, far) = StdUnixStream::pair()?;
        let server = Command::new(sftp_server()?)
            .arg("-e")
            .arg("-d")
            .arg(share)
            .stdin(OwnedFd::from(near.try_clone()?))
            .stdout(OwnedFd::from(near))
            .kill_on_drop(true)
            .spawn()?;
        let start = format!(
            "sudo {sshfs} :{} {SSHFS_PLACE} -o slave -o allow_other",
            share.display()
        );
        let ssh = Command::new("ssh")
            .arg("-F")
            .arg(product.ssh_config())
            .args(["-S", "none", "-o", "Ciphers=aes128-gcm@openssh.com"])
            .args(["colima", &start])
            .stdin(OwnedFd::from(far.try_clone()?))
            .stdout(OwnedFd::from(far))
            .kill_on_drop(true)
            .spawn()?;
        let mounted = Self {
            product,
            ssh,
            server,
        };
        // As Lima waits for it.
        let wait = format!(
            "for try in $(seq 300); do grep -q \" {SSHFS_PLACE} \" /proc/self/mounts && exit; sleep 0.1; done; exit 1"
        );
        product.in_guest(&wait, Stdio::null()).await?;
        Ok(mounted)
    }

    async fn close(mut self) -> Result<()> {
        let umount = format!("sudo umount {SSHFS_PLACE}");
        self.product.in_guest(&umount, Stdio::null()).await?;
        self.ssh.wait().await?;
        self.server.wait().await?;
        Ok(())
    }
}
