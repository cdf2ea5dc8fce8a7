//! The one program that runs in a Colima guest.

use std::{
    convert::Infallible,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use colima_guest::{
    agent, init, mount,
    provision::{self, Phase},
};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["agent"] => {
            let notify_socket = std::env::var_os("NOTIFY_SOCKET");
            report(agent::run(notify_socket.as_deref()).map(never))
        }
        [mount::ROLE, port] => {
            let notify_socket = std::env::var_os("NOTIFY_SOCKET");
            let port = port.parse().map_err(io::Error::other);
            report(
                port.and_then(|port| mount::run(port, notify_socket.as_deref()))
                    .map(|()| ExitCode::SUCCESS),
            )
        }
        [mount::server::ROLE] => report(mount::server::run().map(|()| ExitCode::SUCCESS)),
        [provision::ROLE, "early"] => provisioned(Phase::Early),
        [provision::ROLE, "ready"] => provisioned(Phase::Ready),
        [init::ROLE, root, program, ..] => report(Err(init::exec_in_root(
            Path::new(root),
            program,
            &args[3..],
        ))),
        [init::REHEARSAL_ROLE, root] => {
            report(init::rehearse(Path::new(root)).map(|()| ExitCode::SUCCESS))
        }
        _ => {
            let _ = writeln!(
                io::stderr(),
                "colima-guest {}: runs in a Colima guest, as its init or as `colima-guest agent`",
                env!("CARGO_PKG_VERSION")
            );
            ExitCode::from(2)
        }
    }
}

fn provisioned(phase: Phase) -> ExitCode {
    report(
        provision::run(phase)
            .map(|()| ExitCode::SUCCESS)
            .map_err(io::Error::other),
    )
}

/// For a role that ends only by failing.
fn never(role: Infallible) -> ExitCode {
    match role {}
}

fn report(result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "colima-guest: {error}");
        ExitCode::FAILURE
    })
}
