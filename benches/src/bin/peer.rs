//! `colima-bench-peer`: the part of a comparison that runs in a guest. Statically linked by `make bench`.
#![expect(
    clippy::print_stdout,
    reason = "this program's output is its measurement"
)]

use std::{
    env,
    error::Error,
    fmt::Display,
    fs,
    io::{self, Write as _},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use colima_benches::{
    files::{self, Amount, Work},
    peer,
};

const USAGE: &str = "usage: colima-bench-peer serve SOCKET
       colima-bench-peer ping SOCKET COUNT
       colima-bench-peer send SOCKET BYTES
       colima-bench-peer import SOCKET BYTES SEED
       colima-bench-peer ready SOCKET CONSOLE
       colima-bench-peer notified LOG PROGRAM [ARGUMENT...]
       colima-bench-peer make-files DIRECTORY whole|third [GIT...]
       colima-bench-peer files DIRECTORY whole|third [GIT...]
       colima-bench-peer files-and-clone DIRECTORY whole|third REPOSITORY GIT...
       colima-bench-peer watch FILE
       colima-bench-peer echo";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", socket] => {
            peer::remove_stale(socket.as_ref())?;
            peer::serve(socket.as_ref())?;
        }
        ["ping", socket, count] => {
            for _ in 0..count.parse::<u32>()? {
                print(peer::ping(socket.as_ref())?);
            }
        }
        ["send", socket, bytes] => print(peer::send(socket.as_ref(), bytes.parse()?)?),
        ["import", socket, bytes, seed] => print(peer::import(
            socket.as_ref(),
            bytes.parse()?,
            seed.parse()?,
        )?),
        ["ready", socket, console] => ready(socket.as_ref(), console.as_ref())?,
        ["notified", log, program, ref arguments @ ..] => notified(log, program, arguments)?,
        ["make-files", directory, amount, ref git @ ..] => {
            files::make(directory.as_ref(), named(amount)?, git)?;
        }
        ["files", directory, amount, ref git @ ..] => {
            files::run(directory.as_ref(), named(amount)?, git, None, print_work);
        }
        ["files-and-clone", directory, amount, from, ref git @ ..] => {
            let amount = named(amount)?;
            files::run(directory.as_ref(), amount, git, Some(from), print_work);
        }
        ["watch", file] => files::watch(file.as_ref(), |number| say(&number))?,
        ["echo"] => io::stdin().lines().try_for_each(|line| say(&line?))?,
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn print(elapsed: Duration) {
    println!("{}", elapsed.as_nanos());
}

fn named(amount: &str) -> Result<Amount, &'static str> {
    Amount::named(amount).ok_or("an amount is whole or third")
}

fn print_work(work: Work, elapsed: io::Result<Duration>) {
    match elapsed {
        Ok(elapsed) => println!("{} {}", work.name(), elapsed.as_nanos()),
        Err(error) => println!("{} failed: {error}", work.name()),
    }
}

/// A line at once, to a reader who may be gone.
fn say(what: &dyn Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}

/// Tells the console that docker's API has answered.
fn ready(socket: &Path, console: &Path) -> Result<(), Box<dyn Error>> {
    peer::ping(socket)?;
    let mut console = fs::OpenOptions::new().write(true).open(console)?;
    writeln!(console, "\n{}", colima_benches::READY)?;
    Ok(())
}

/// Starts a daemon and returns when it says that it is ready, in the words of `sd_notify(3)`, which is
/// the event that systemd waits for as well.
fn notified(log: &str, program: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let path = format!("{log}.notify");
    let socket = UnixDatagram::bind(&path)?;
    let log = fs::File::create(log)?;
    Command::new(program)
        .args(arguments)
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut message = [0; 4096];
    loop {
        let length = socket.recv(&mut message)?;
        if message[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"READY=1")
        {
            return Ok(());
        }
    }
}
