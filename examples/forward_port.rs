//! Makes TCP ports of other hosts ports of this one, with colima-net alone.
//!
//! ```text
//! cargo run -p colima-examples --example forward_port -- 192.0.2.7:80 192.0.2.7:5432
//! ```
//!
//! Each appears under the same number on 127.0.0.1 and ::1. A port that somebody else has here is left
//! alone, named, and taken once it is free. Ctrl-C ends it.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    error::Error,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use colima_core::ports::{GuestPort, Protocol};
use colima_net::{
    Local,
    forward::{Action, Bind, Change, Forwarder, Rule, Rules},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut ports = Vec::new();
    for argument in std::env::args().skip(1) {
        let address: SocketAddr = argument.parse()?;
        ports.push(GuestPort::socket(Protocol::Tcp, address));
    }
    if ports.is_empty() {
        return Err("usage: forward_port ADDRESS:PORT...".into());
    }
    // Without a rule of our own only ports of a guest's loopback would appear.
    let rules = Rules::new([Rule {
        protocol: None,
        address: None,
        ports: 1..=u16::MAX,
        action: Action::Forward {
            bind: Bind::To(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
            first_port: None,
        },
    }]);
    let mut forwarder = Forwarder::new(Local).limit(100);
    loop {
        for change in forwarder.apply(&rules.plan(&ports)).await {
            match change {
                Change::Opened(forward) => {
                    println!("{} leads to {}", forward.place(), forward.guest);
                }
                Change::Conflict(conflict) => println!("{conflict}"),
                _ => {}
            }
        }
        tokio::select! {
            // Without a handler for the signal it ends the program, which is as good.
            _ = tokio::signal::ctrl_c() => break,
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
    forwarder.close().await;
    Ok(())
}
