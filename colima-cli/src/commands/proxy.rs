//! `colima proxy`: standard input and output joined to a unix socket, for ssh's `ProxyCommand`.

use std::{
    fs::File,
    io,
    net::Shutdown,
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use crate::{
    args::ProxyArgs,
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
};

pub(super) fn run(args: &ProxyArgs) -> Result<ExitCode, CommandError> {
    let failed = |error: io::Error| {
        let what = format!("cannot reach {}", args.socket.display());
        CommandError::new(ErrorKind::NotRunning, what)
            .caused_by(&error)
            .hint("see whether the machine runs: colima status")
    };
    let from_socket = UnixStream::connect(&args.socket).map_err(failed)?;
    let to_socket = from_socket.try_clone().map_err(failed)?;
    // Our own descriptors: those of std keep bytes back until a line is complete.
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    // Not joined: it may wait for input for ever, and the far side's end is the end.
    std::thread::spawn(move || {
        let _ = pass_on(&stdin, &to_socket);
        let _ = to_socket.shutdown(Shutdown::Write);
    });
    // Either side may hang up; the client that started us knows what that means.
    let _ = pass_on(&from_socket, &stdout);
    Ok(ExitCode::Ok)
}

/// Copies, and hands every piece on as soon as it has come.
fn pass_on(mut from: impl io::Read, mut to: impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
