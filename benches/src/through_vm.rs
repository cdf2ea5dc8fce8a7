//! Connections and bytes into a guest, three ways: in the guest itself, through `ssh -L`, and ours.
//!
//! Client and server are the same code everywhere. Ours is the instance's `docker.sock`; for the bytes a
//! sink takes docker's place in the guest. ssh is the product's own, with a master that is already up. What
//! counts is what a way adds to the same work in the guest.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::{
    Result, blocking,
    host::Host,
    peer,
    product::{Product, Setup},
    report::{Bar, Measure, Row},
    sample::Unit,
    ssh_master::SshMaster,
};

const PEERS: [&str; 3] = ["in the guest", "ssh -L", "ours"];

/// Connections per peer.
const PINGS: u32 = 50;
/// Connections per turn.
const PINGS_PER_TURN: u32 = 10;
const IMPORT_BYTES: usize = 32 << 20;
const SINK_BYTES: u64 = 64 << 20;

/// Where docker is in the guest, and for the sink.
const DOCKER: &str = "/run/docker.sock";
const SINK: &str = "/run/bench/sink.sock";
const PEER: &str = "/run/bench/peer";

/// Starts an instance, measures, and deletes it.
///
/// # Errors
///
/// When the instance does not start, or a way into it fails.
pub async fn run(setup: &Setup) -> Result<Row> {
    let product = setup.product()?;
    let host = Host::here();
    product.start().await?;
    let accelerator = product.accelerator()?;
    let ways = Ways::open(setup, &product).await?;
    let measured = ways.measure(setup).await;
    let closed = ways.master.close().await;
    let deleted = product.delete().await;
    let (measures, bars) = measured?;
    closed?;
    deleted?;
    Ok(Row {
        name: "through-vm".to_owned(),
        about: "Into a running instance: the same client in the guest itself, on the host through \
                `ssh -L` (warm master, AES-128-GCM), and on the host through our docker.sock."
            .to_owned(),
        command: format!("compare --rounds {} through-vm", setup.rounds),
        host: host.with_guest(accelerator),
        measures,
        bars,
    })
}

struct Ways<'a> {
    product: &'a Product,
    master: SshMaster,
    ssh_docker: PathBuf,
    ssh_sink: PathBuf,
}

impl<'a> Ways<'a> {
    async fn open(setup: &Setup, product: &'a Product) -> Result<Self> {
        let install = format!(
            "sudo install -d -m 0777 /run/bench && cat >{PEER} && chmod 755 {PEER} && \
             {{ nohup {PEER} serve {SINK} >/dev/null 2>&1 </dev/null & }}"
        );
        let program = File::open(setup.peer()?)?;
        product.in_guest(&install, program.into()).await?;
        let at = |name| setup.work.join(name);
        let (ssh_docker, ssh_sink) = (at("ssh-docker.sock"), at("ssh-sink.sock"));
        let master = SshMaster::open(
            &product.ssh_config(),
            "colima",
            &at("ssh-control.sock"),
            &[
                (&ssh_docker, Path::new(DOCKER)),
                (&ssh_sink, Path::new(SINK)),
            ],
        )
        .await?;
        Ok(Self {
            product,
            master,
            ssh_docker,
            ssh_sink,
        })
    }

    async fn measure(&self, setup: &Setup) -> Result<(Vec<Measure>, Vec<Bar>)> {
        let ours = self.product.docker_socket();
        let docker = [&self.ssh_docker, &ours];

        let mut pings = Measure::new("a new connection, `GET /_ping`", Unit::Milliseconds, PEERS);
        for _ in 0..PINGS / PINGS_PER_TURN {
            let inside = self
                .inside(&format!("ping {DOCKER} {PINGS_PER_TURN}"))
                .await?;
            add(&mut pings, 0, &inside);
            for (place, socket) in docker.into_iter().enumerate() {
                for _ in 0..PINGS_PER_TURN {
                    let socket = socket.clone();
                    let elapsed = blocking(move || peer::ping(&socket)).await?;
                    add(&mut pings, place + 1, &[elapsed]);
                }
            }
        }

        let connected = [0, 1, 2].map(|peer| pings.median(peer));
        (setup.progress)(&format!("connections {PEERS:?}: {connected:.2?} ms"));

        let what = format!("import of {} MiB", IMPORT_BYTES >> 20);
        let mut imports = Measure::new(what, Unit::Seconds, PEERS);
        for round in 0..u64::from(setup.rounds) {
            // No two imports have the same bytes.
            let seed = round * 3;
            let inside = self
                .inside(&format!("import {DOCKER} {IMPORT_BYTES} {seed}"))
                .await?;
            add(&mut imports, 0, &inside);
            (setup.progress)(&format!("import {}: {inside:.1?}", PEERS[0]));
            for (place, socket) in (1..).zip(docker) {
                let (socket, seed) = (socket.clone(), seed + place as u64);
                let elapsed = blocking(move || peer::import(&socket, IMPORT_BYTES, seed)).await?;
                add(&mut imports, place, &[elapsed]);
                (setup.progress)(&format!("import {}: {elapsed:.1?}", PEERS[place]));
            }
        }

        // Last, because the sink takes docker's place.
        let place = format!("sudo mv {DOCKER} {DOCKER}.aside && sudo ln -s {SINK} {DOCKER}");
        self.product.in_guest(&place, Stdio::null()).await?;
        let what = format!("{} MiB to a sink", SINK_BYTES >> 20);
        let mut bytes = Measure::new(what, Unit::Seconds, PEERS);
        for _ in 0..setup.rounds {
            let inside = self.inside(&format!("send {SINK} {SINK_BYTES}")).await?;
            add(&mut bytes, 0, &inside);
            (setup.progress)(&format!("bytes {}: {inside:.1?}", PEERS[0]));
            for (place, socket) in (1..).zip([&self.ssh_sink, &ours]) {
                let socket = socket.clone();
                let elapsed = blocking(move || peer::send(&socket, SINK_BYTES)).await?;
                add(&mut bytes, place, &[elapsed]);
                (setup.progress)(&format!("bytes {}: {elapsed:.1?}", PEERS[place]));
            }
        }

        let bars = [
            ("connection", &pings),
            ("import", &imports),
            ("bytes", &bytes),
        ]
        .map(|(what, measure)| overhead_bar(what, measure))
        .into();
        Ok((vec![pings, imports, bytes], bars))
    }

    async fn inside(&self, command: &str) -> Result<Vec<Duration>> {
        let printed = self
            .product
            .in_guest(&format!("{PEER} {command}"), Stdio::null())
            .await?;
        let nanos = printed.lines().map(str::parse);
        Ok(nanos
            .map(|n| n.map(Duration::from_nanos))
            .collect::<std::result::Result<_, _>>()?)
    }
}

fn add(measure: &mut Measure, peer: usize, elapsed: &[Duration]) {
    let values = elapsed.iter().map(|elapsed| measure.unit.of(*elapsed, 0));
    measure.samples[peer].values.extend(values);
}

/// What ours adds to the same work in the guest, as a part of what ssh adds.
fn overhead_bar(what: &str, measure: &Measure) -> Bar {
    let [inside, ssh, ours] = [0, 1, 2].map(|peer| measure.median(peer));
    let part = (ours - inside) / (ssh - inside);
    let demand = format!("{what}: ours adds at most a third of what ssh adds");
    // Without anything that ssh adds there is nothing to be a third of.
    let measured = if ssh > inside { part } else { f64::NAN };
    Bar::at_most(demand, 1.0 / 3.0, measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overheads() {
        let bar = |values: [f64; 3]| {
            let mut measure = Measure::new("", Unit::Seconds, PEERS);
            for (sample, value) in measure.samples.iter_mut().zip(values) {
                sample.values.push(value);
            }
            overhead_bar("x", &measure)
        };
        assert!(bar([1.0, 4.0, 2.0]).met);
        assert!(!bar([1.0, 4.0, 2.1]).met);
        assert!(bar([1.0, 4.0, 0.9]).met);
        assert!(!bar([2.0, 1.0, 3.0]).met, "ssh adds nothing");
    }
}
