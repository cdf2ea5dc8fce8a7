//! Text of the files that `init` writes: pure functions of the boot configuration.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use colima_core::boot::{GUEST_PROGRAM, GUEST_SSH_PORT, Network, Runtime};

/// Where the image's runtime units read their environment.
pub const RUNTIME_ENVIRONMENT: &str = "/run/colima/environment";

/// Units masked here are masked whatever `/etc` says: this directory precedes it in systemd's search.
pub const MASK_DIRECTORY: &str = "/run/systemd/system.control";

const BEGIN: &str = "# colima: begin (written at every boot)";
const END: &str = "# colima: end";

/// `old` with our block replaced, or appended; what others wrote stays. An empty block is removed.
#[must_use]
pub fn with_block(old: &str, block: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in old.lines() {
        match line {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if inside => {}
            _ => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    if !block.is_empty() {
        kept.push_str(BEGIN);
        kept.push('\n');
        kept.push_str(block);
        kept.push_str(END);
        kept.push('\n');
    }
    kept
}

/// Our lines of `/etc/hosts`: the guest's own name, and the host under the names that people use.
#[must_use]
pub fn hosts(host_name: &str, network: &Network, further: &BTreeMap<String, IpAddr>) -> String {
    let gateway = network.gateway;
    let mut text = format!(
        "127.0.0.1 localhost\n\
         ::1 localhost ip6-localhost ip6-loopback\n\
         127.0.1.1 {host_name}\n"
    );
    // hosts(5) is read from the top, so what the user says goes before what we say.
    for (name, address) in further.iter().filter(|(name, _)| is_host(name)) {
        let _ = writeln!(text, "{address} {name}");
    }
    let _ = writeln!(text, "{gateway} host.docker.internal host.lima.internal");
    text
}

/// Whether a name can stand in a line of hosts(5).
fn is_host(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// `/etc/resolv.conf`. The C library reads at most three name servers.
#[must_use]
pub fn resolv_conf(network: &Network) -> String {
    let mut text = String::new();
    for server in network.dns.iter().take(3) {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

/// Passwordless sudo, for a name that [`crate::accounts::is_valid`] accepts.
#[must_use]
pub fn sudoers(name: &str) -> String {
    format!("{name} ALL=(ALL:ALL) NOPASSWD: ALL\n")
}

/// Variables that can be written: `pam_env` and systemd know no other names, and no value of either
/// file can hold a line break or NUL.
fn writable(env: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    env.iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(|(key, value)| is_variable(key) && !value.contains(['\n', '\r', '\0']))
}

/// Names of variables that are left out because they cannot be written.
pub fn unwritable(env: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let written: Vec<&str> = writable(env).map(|(key, _)| key).collect();
    env.keys()
        .map(String::as_str)
        .filter(move |key| !written.contains(key))
}

fn is_variable(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Our lines of `/etc/environment`, which `pam_env` gives to every session.
///
/// It knows no escapes: a value goes to the end of the line, less one pair of quotes around it.
#[must_use]
pub fn environment(env: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in writable(env) {
        let _ = writeln!(text, "{key}=\"{value}\"");
    }
    text
}

/// [`RUNTIME_ENVIRONMENT`], the `EnvironmentFile` of the container runtime's units.
///
/// Between double quotes systemd takes a backslash off these four characters only (systemd.exec(5)).
#[must_use]
pub fn runtime_environment(env: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in writable(env) {
        let _ = write!(text, "{key}=\"");
        for character in value.chars() {
            if matches!(character, '"' | '\\' | '`' | '$') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push_str("\"\n");
    }
    text
}

/// The agent's unit. It waits for nothing, so that the host hears from the guest early, and it goes
/// last: without a conflict with shutdown.target it is ended only by systemd's final kill, and the
/// host's streams stay up while containers stop.
#[must_use]
pub fn agent_unit() -> String {
    format!(
        "[Unit]\n\
         Description=Colima agent\n\
         DefaultDependencies=no\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={GUEST_PROGRAM} agent\n\
         Restart=always\n\
         RestartSec=200ms\n\
         RestartSteps=6\n\
         RestartMaxDelaySec=10s\n\
         OOMScoreAdjust=-900\n\
         TasksMax=infinity\n\
         LimitNOFILE=65536\n"
    )
}

/// What is added to the image's `colima-sshd.socket` where the host wants a port: the interface has its address
/// before systemd runs.
#[must_use]
pub fn ssh_port(network: &Network) -> String {
    format!(
        "[Socket]\nListenStream={}:{GUEST_SSH_PORT}\n",
        network.address
    )
}

/// The unit of the scripts that run before the container runtime. It is there only where there are some: docker
/// waits for it, and so does whoever waits for docker: in our image that is `sysinit.target`, which is why this unit names what it
/// needs one by one.
#[must_use]
pub fn provision_unit() -> String {
    format!(
        "[Unit]\n\
         Description=Scripts of colima.yaml\n\
         DefaultDependencies=no\n\
         Conflicts=shutdown.target\n\
         After=local-fs.target systemd-journald.service systemd-modules-load.service systemd-sysctl.service\n\
         Before=containerd.service docker.service shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={GUEST_PROGRAM} provision early\n"
    )
}

/// The unit of the mount of one port, its instance. It outlives everything but systemd's final kill, so that what
/// containers write last arrives.
#[must_use]
pub fn mount_unit() -> String {
    format!(
        "[Unit]\n\
         Description=Host directory of port %i\n\
         DefaultDependencies=no\n\
         Before={}\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={GUEST_PROGRAM} mount %i\n\
         KillMode=mixed\n\
         TimeoutStartSec=60s\n\
         Restart=on-failure\n\
         RestartSec=100ms\n\
         RestartSteps=6\n\
         RestartMaxDelaySec=5s\n\
         OOMScoreAdjust=-900\n\
         TasksMax=infinity\n\
         LimitNOFILE=65536\n",
        crate::provision::UNIT
    )
}

/// Whether docker starts containers by itself when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarting {
    /// It does, and they may need what is mounted.
    Some,
    /// Whoever starts one is the host, which waits for the mounts itself.
    None,
}

/// What is added to every mount's unit: docker waits where it has to.
#[must_use]
pub const fn mount_order(restarting: Restarting) -> Option<&'static str> {
    match restarting {
        Restarting::Some => Some("[Unit]\nBefore=docker.service\n"),
        Restarting::None => None,
    }
}

/// Units that must not start: those of every runtime that was not asked for, and of all runtimes
/// when there is no place for their data.
#[must_use]
pub fn masked_units(runtime: Runtime, data: DataDisk) -> &'static [&'static str] {
    const DOCKER: &[&str] = &[
        "docker.service",
        "docker.socket",
        "containerd.service",
        "buildkit.service",
    ];
    match (runtime, data) {
        (Runtime::Docker, DataDisk::Mounted) => &[],
        (Runtime::Containerd, DataDisk::Mounted) => &["docker.service", "docker.socket"],
        _ => DOCKER,
    }
}

/// Whether there is a place for a runtime's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDisk {
    /// The data disk is mounted.
    Mounted,
    /// It is missing, refused or broken.
    Unusable,
}

/// Directories below `/var/lib` that live on the data disk, and whether they are made on the root
/// file system when the image lacks them.
#[must_use]
pub fn data_directories(runtime: Runtime) -> &'static [(&'static str, Presence)] {
    use Presence::{IfThere, Made};
    match runtime {
        Runtime::Docker => &[
            ("docker", Made),
            ("containerd", Made),
            ("buildkit", IfThere),
            ("nerdctl", IfThere),
            ("rancher", IfThere),
            ("cni", IfThere),
        ],
        Runtime::Containerd => &[
            ("docker", IfThere),
            ("containerd", Made),
            ("buildkit", Made),
            ("nerdctl", Made),
            ("rancher", IfThere),
            ("cni", Made),
        ],
        _ => &[
            ("docker", IfThere),
            ("containerd", IfThere),
            ("buildkit", IfThere),
            ("nerdctl", IfThere),
            ("rancher", IfThere),
            ("cni", IfThere),
        ],
    }
}

/// How a directory comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is made when it is missing.
    Made,
    /// It is used only when the image has it.
    IfThere,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env() -> BTreeMap<String, String> {
        [
            ("HTTP_PROXY", "http://u:p%40ss@proxy:3128"),
            ("QUOTED", "a \"b\" \\c $HOME"),
            ("bad name", "x"),
            ("TWO_LINES", "a\nb"),
            ("_", ""),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    #[test]
    fn what_is_written() {
        let further = [
            ("db.test", "10.1.2.3"),
            ("six.test", "fd00::1"),
            ("a b", "10.0.0.1"),
        ]
        .map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
        insta::assert_snapshot!(hosts("colima", &Network::default(), &further.into()));
        insta::assert_snapshot!(provision_unit());
        insta::assert_snapshot!(mount_unit());
        insta::assert_snapshot!(resolv_conf(&Network::default()), @"nameserver 10.0.2.3");
        insta::assert_snapshot!(agent_unit());
        insta::assert_snapshot!(environment(&env()));
        insta::assert_snapshot!(runtime_environment(&env()));
        assert_eq!(
            unwritable(&env()).collect::<Vec<_>>(),
            ["TWO_LINES", "bad name"]
        );
    }

    #[test]
    fn the_ssh_port_is_on_the_interface_alone() {
        let text = "[Socket]\nListenStream=10.0.2.15:61022\n";
        assert_eq!(ssh_port(&Network::default()), text);
    }

    #[test]
    fn no_runtime_without_a_data_disk() {
        assert!(masked_units(Runtime::Docker, DataDisk::Mounted).is_empty());
        assert!(masked_units(Runtime::Docker, DataDisk::Unusable).contains(&"docker.service"));
        assert!(masked_units(Runtime::None, DataDisk::Mounted).contains(&"docker.service"));
        let containerd =
            |data| masked_units(Runtime::Containerd, data).contains(&"containerd.service");
        assert!(!containerd(DataDisk::Mounted) && containerd(DataDisk::Unusable));
        assert!(masked_units(Runtime::Containerd, DataDisk::Mounted).contains(&"docker.socket"));
    }

    proptest! {
        #[test]
        fn a_block_is_replaced_and_the_rest_stays(old in "([a-z# =]{0,12}\n){0,6}", block in "([a-z=]{1,9}\n){0,3}") {
            let once = with_block(&old, &block);
            prop_assert_eq!(&with_block(&once, &block), &once);
            prop_assert_eq!(with_block(&once, ""), old);
        }
    }
}
