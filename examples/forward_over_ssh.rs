//! Brings a unix socket of any ssh server here, such as its docker.sock, with colima-net alone.
//!
//! ```text
//! cargo run -p colima-examples --example forward_over_ssh -- \
//!     me@server:22 "$(ssh-keyscan -t ed25519 server | cut -d' ' -f2-)" ~/.ssh/id_ed25519 \
//!     /run/docker.sock run/docker.sock
//! docker -H unix://$PWD/run/docker.sock ps
//! ```
//!
//! The socket here is made with mode 0600 in a directory that only its owner can enter, and stays while the
//! server or the network goes and comes: `ssh -L` would end. Ctrl-C ends it.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{error::Error, path::PathBuf};

use colima_core::Endpoint;
use colima_net::{
    Relay, RelayEvent, SocketFile,
    ssh::{Credential, Login, Ssh, SshConfig},
};
use tokio::{net::TcpStream, sync::broadcast::error::RecvError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [place, host_key, key_file, there, here] = &arguments[..] else {
        let usage =
            "usage: forward_over_ssh USER@HOST:PORT HOST_KEY KEY_FILE SOCKET_THERE SOCKET_HERE";
        return Err(usage.into());
    };
    let (user, address) = place.split_once('@').ok_or("the user is missing")?;
    let (user, address) = (user.to_owned(), address.to_owned());
    let login = Login {
        user,
        host_key: host_key.parse()?,
        credential: Credential::key_file(key_file),
    };
    let dial = move || TcpStream::connect(address.clone());
    let ssh = Ssh::new(dial, login, SshConfig::default());
    // Fails here, and not at the first client, when the key or the user is the wrong one.
    ssh.check().await?;

    let socket = SocketFile::bind(PathBuf::from(here))?;
    println!("listening on {}", socket.path().display());
    let relay = Relay::new(socket, ssh, Endpoint::Unix(there.into()));
    let mut events = relay.events();
    let narrator = tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(RelayEvent::ConnectFailed { reason }) => println!("turned away: {reason}"),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
    let report = relay
        .run(async {
            // Without a handler for the signal it ends the program, which is as good.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await;
    narrator.await?;
    println!("{} connections", report.accepted);
    Ok(())
}
