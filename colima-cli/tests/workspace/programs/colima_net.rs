//! Relays one unix socket to another and sends a line through.

use colima_core::Endpoint;
use colima_net::{Local, Relay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = UnixListener::bind("server.sock")?;
    let far = Endpoint::Unix(std::env::current_dir()?.join("server.sock"));
    let relay = Relay::new(UnixListener::bind("relay.sock")?, Local, far).limit(8);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async { drop(stopped.await) }));
    let mut client = UnixStream::connect("relay.sock").await?;
    let (mut accepted, _) = server.accept().await?;
    client.write_all(b"through the relay").await?;
    client.shutdown().await?;
    let mut text = String::new();
    accepted.read_to_string(&mut text).await?;
    drop((client, accepted, stop));

    running.await?;
    println!("{text}");
    Ok(())
}
