//! Talks to the agent of a running guest: `ask_guest SOCKET [COMMAND ARGS..]`.
//!
//! SOCKET is the unix socket of the virtio-serial port `colima.0`. Without a command it waits until
//! the guest is ready, telling each stage, and asks docker for its version.

use std::{error::Error, io::Write as _, time::Instant};

use colima_core::{
    Endpoint,
    agent::{Reply, Request},
};
use colima_net::mux::{Mux, MuxConfig, MuxStream};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let socket = args
        .next()
        .ok_or("usage: ask_guest SOCKET [COMMAND ARGS..]")?;
    let argv: Vec<String> = args.collect();
    let started = Instant::now();
    let mut out = std::io::stdout();
    let config = MuxConfig {
        open_timeout: std::time::Duration::from_secs(120),
        ..MuxConfig::default()
    };
    let mux = Mux::over(UnixStream::connect(socket).await?, config);

    if !argv.is_empty() {
        let mut talk = ask(&mux, &Request::Run { argv, stdin_len: 0 }).await?;
        let exited = reply(&mut talk).await?;
        writeln!(out, "{exited:?}")?;
        let mut output = Vec::new();
        talk.read_to_end(&mut output).await?;
        out.write_all(&output)?;
        return Ok(());
    }
    let mut talk = ask(&mux, &Request::Hello).await?;
    writeln!(out, "{:?} {:?}", started.elapsed(), reply(&mut talk).await?)?;
    let mut talk = ask(&mux, &Request::WaitReady).await?;
    loop {
        let reply = reply(&mut talk).await?;
        writeln!(out, "{:?} {reply:?}", started.elapsed())?;
        match reply {
            Reply::Stage { .. } => {}
            Reply::Ready { .. } => break,
            _ => return Err("the guest does not become ready".into()),
        }
    }
    let mut docker = mux.open(&Endpoint::Unix("/run/docker.sock".into())).await?;
    docker
        .write_all(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n")
        .await?;
    let mut answer = String::new();
    docker.read_to_string(&mut answer).await?;
    writeln!(out, "{:?} {answer}", started.elapsed())?;
    Ok(())
}

async fn ask(mux: &Mux, request: &Request) -> Result<BufReader<MuxStream>, Box<dyn Error>> {
    let mut stream = mux.open(&Endpoint::Service("agent".into())).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(BufReader::new(stream))
}

async fn reply(talk: &mut BufReader<MuxStream>) -> Result<Reply, Box<dyn Error>> {
    let mut line = String::new();
    talk.read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
