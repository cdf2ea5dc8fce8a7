//! Relays a unix socket to another one, with colima-net alone.
//!
//! ```text
//! cargo run -p colima-examples --example relay_unix_socket -- run/my.sock /run/docker.sock
//! ```
//!
//! The first socket is made with mode 0600 in a directory that only its owner can enter. Ctrl-C
//! ends the relay: connections may finish for five seconds, and the socket is removed.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{error::Error, path::PathBuf, time::Duration};

use colima_core::Endpoint;
use colima_net::{Local, Relay, RelayEvent, SocketFile};
use tokio::sync::broadcast::{Receiver, error::RecvError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(listen), Some(target)) = (arguments.next(), arguments.next()) else {
        return Err("usage: relay_unix_socket LISTEN_PATH TARGET_PATH".into());
    };
    let socket = SocketFile::bind(listen)?;
    println!("listening on {}", socket.path().display());
    let relay = Relay::new(socket, Local, Endpoint::Unix(target))
        .limit(100)
        .drain(Duration::from_secs(5));
    let narrator = tokio::spawn(narrate(relay.events()));
    let report = relay
        .run(async {
            // Without a handler for the signal it ends the program, which is as good.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await;
    narrator.await?;
    println!(
        "{} connections, {} bytes there, {} bytes back",
        report.accepted, report.traffic.sent, report.traffic.received
    );
    Ok(())
}

/// Prints what happens, until the relay is gone.
async fn narrate(mut events: Receiver<RelayEvent>) {
    loop {
        match events.recv().await {
            Ok(RelayEvent::ConnectFailed { reason }) => println!("turned away: {reason}"),
            Ok(RelayEvent::Ended { traffic, error }) => {
                let (sent, received) = (traffic.sent, traffic.received);
                let how = error.map_or_else(|| "in order".into(), |error| error.to_string());
                println!("ended {how}: {sent} bytes there, {received} bytes back");
            }
            Ok(RelayEvent::Paused { reason, pause }) => println!("pausing {pause:?}: {reason}"),
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => println!("({missed} events missed)"),
            Err(RecvError::Closed) => return,
        }
    }
}
