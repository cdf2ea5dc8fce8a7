//! The one program that runs in a Colima guest.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use colima_guest::{agent, init};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        match init::run() {}
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
        ["agent"] => report(agent::run().map(|never| match never {})),
        [init::ROLE, root, program, ..] => report(Err(init::exec_in_root(
            Path::new(root),
            program,
            &args[3..],
        ))),
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

fn report(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "colima-guest: {error}");
            ExitCode::FAILURE
        }
    }
}
