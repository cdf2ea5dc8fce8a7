//! `colima proxy`: standard input and output joined to a unix socket, for ssh's `ProxyCommand`.

use std::{
    io::{self, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
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
    let mut from_socket = UnixStream::connect(&args.socket).map_err(failed)?;
    let mut to_socket = from_socket.try_clone().map_err(failed)?;
    // Not joined: it may wait for input for ever, and the far side's end is the end.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut to_socket);
        let _ = to_socket.shutdown(Shutdown::Write);
    });
    let mut stdout = io::stdout().lock();
    // Either side may hang up; the client that started us knows what that means.
    let _ = io::copy(&mut from_socket, &mut stdout);
    let _ = stdout.flush();
    Ok(ExitCode::Ok)
}
