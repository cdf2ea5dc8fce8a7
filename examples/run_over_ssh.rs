//! Runs a command at an ssh server, with colima-net alone.
//!
//! ```text
//! cargo run -p colima-examples --example run_over_ssh -- \
//!     me@server:22 "$(ssh-keyscan -t ed25519 server | cut -d' ' -f2-)" ~/.ssh/id_ed25519 uname -a
//! ```
//!
//! Compare the key that `ssh-keyscan` found with the one that the server's owner tells. Standard input and
//! output are passed on, and the exit code is the command's. A password-protected key stays in the
//! agent: write `agent` in its place.

use std::{
    error::Error,
    io::{IsTerminal as _, Read as _, Write as _},
};

use colima_core::{Command, Guest as _};
use colima_net::ssh::{Credential, Login, Ssh, SshConfig};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(place), Some(host_key), Some(key)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: run_over_ssh USER@HOST:PORT HOST_KEY KEY_FILE|agent COMMAND...".into());
    };
    let (user, address) = place.split_once('@').ok_or("the user is missing")?;
    let (user, address) = (user.to_owned(), address.to_owned());
    let credential = match key.as_str() {
        "agent" => Credential::Agent {
            socket: std::env::var_os("SSH_AUTH_SOCK")
                .ok_or("no SSH_AUTH_SOCK")?
                .into(),
        },
        path => Credential::key_file(path),
    };
    let login = Login {
        user,
        host_key: host_key.parse()?,
        credential,
    };
    let dial = move || TcpStream::connect(address.clone());
    let ssh = Ssh::new(dial, login, SshConfig::default());

    let mut stdin = Vec::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_to_end(&mut stdin)?;
    }
    let output = ssh.run(&Command::new(arguments).stdin(stdin)).await?;
    std::io::stdout().write_all(&output.stdout)?;
    std::io::stderr().write_all(&output.stderr)?;
    std::process::exit(output.exit_code);
}
