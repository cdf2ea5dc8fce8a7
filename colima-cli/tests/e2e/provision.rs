//! What `colima.yaml` tells the guest: scripts, environment, names, name servers, proxies, mirrors.

use super::world::{PROFILE, World};

/// The configuration of the shared machine, as people write it. The registry is the one of these tests.
pub(crate) fn config(registry: &str) -> String {
    format!(
        r#"# of the end-to-end tests
hostname: e2e-box
env:
  GREETING: "it's  $HOME"
  HTTP_PROXY: http://127.0.0.1:9   # nobody listens there
  NO_PROXY: localhost,127.0.0.1,10.0.2.2
docker:
  insecure-registries: ["{registry}"]
  registry-mirrors: ["http://mirror.invalid"]
network:
  dns: [10.0.2.3, 192.0.2.53]
  dnsHosts:
    db.test: 192.0.2.7
    me.test: host.lima.internal
provision:
  - mode: ready
    script: docker version --format '{{{{.Server.Os}}}} {{{{.Client.Os}}}}' > ~/ready
  - mode: user
    script: |
      #!/bin/sh
      id -un > ~/user
      cp /run/e2e-system ~/before
  - mode: system
    # Docker waits for it.
    script: |
      systemctl is-active docker.service > /run/e2e-docker
      echo "$GREETING" > /run/e2e-system
  - mode: after-boot
    script: "echo to the log; echo last words >&2; exit 3"
"#
    )
}

/// Of the first start: the script that failed is told, with what it said, and keeps nothing back.
pub(crate) fn a_failed_script_is_told(complaint: &str) {
    for line in [
        "warning: script 4 of colima.yaml (after-boot) failed: exit status: 3",
        "guest: to the log",
        "guest: last words",
    ] {
        assert!(complaint.contains(line), "{line}: {complaint}");
    }
    assert_eq!(complaint.matches("warning:").count(), 1, "{complaint}");
}

pub(crate) fn scripts_ran_in_their_order(world: &World) {
    world.machine_runs();
    let ours = |command: &str| {
        let run = world.colima(["ssh", "--", "sh", "-c", command]);
        run.ok().text().to_owned()
    };
    assert_eq!(ours("cat ~/user"), ours("id -un"));
    assert_eq!(ours("cat ~/before"), "it's  $HOME");
    assert_eq!(ours("cat ~/ready"), "linux linux");
    assert_ne!(ours("cat /run/e2e-docker"), "active");
    // Of systemd itself: sudo, too, writes what it was asked to run into the journal.
    let script = "journalctl --quiet --boot _PID=1 --grep='ordering cycle' | wc -l";
    let cycles = world.guest(PROFILE, script);
    assert_eq!(cycles, "0", "systemd left something out");
    // The scripts of the root are nobody else's to read.
    let modes = world.guest(PROFILE, "cd /run/colima/scripts; stat -c '%n %a %U' 3 2");
    let user = ours("id -un");
    assert_eq!(modes, format!("3 700 root\n2 700 {user}"));
}

pub(crate) fn the_guest_is_as_configured(world: &World) {
    world.machine_runs();
    let ours = |command: &str| {
        let run = world.colima(["ssh", "--", "sh", "-c", command]);
        run.ok().text().to_owned()
    };
    assert_eq!(ours("hostname; printenv GREETING"), "e2e-box\nit's  $HOME");
    assert_eq!(
        ours("sed -n 's/^nameserver //p' /etc/resolv.conf"),
        "10.0.2.3\n192.0.2.53"
    );
    assert_eq!(
        ours("getent ahostsv4 db.test me.test e2e-box | awk '/STREAM/ { print $1 }'")
            .lines()
            .next(),
        Some("192.0.2.7")
    );
    assert!(ours("getent hosts me.test").starts_with("10.0.2.2 "));
    // The loopback of the host is behind the gateway.
    assert_eq!(ours("printenv HTTP_PROXY"), "http://10.0.2.2:9");
    let info = world.docker([
        "info",
        "--format",
        "{{.HTTPProxy}} {{.NoProxy}} {{.RegistryConfig.Mirrors}}",
    ]);
    assert_eq!(
        info.ok().text(),
        "http://10.0.2.2:9 localhost,127.0.0.1,10.0.2.2 [http://mirror.invalid/]"
    );
}

/// A start with other settings leaves the machine as it is and names what a restart would change.
pub(crate) fn what_a_restart_would_change_is_named(world: &World) {
    world.machine_runs();
    let qemu = world.qemu(PROFILE).pid;
    let started = world
        .colima([
            "start",
            "--save-config=false",
            "--env",
            "A=1",
            "--dns",
            "192.0.2.1",
            "--hostname",
            "other",
        ])
        .ok();
    assert!(
        started
            .complaint()
            .contains("a restart applies the new hostname, env, dns: colima restart"),
        "{started}"
    );
    assert_eq!(world.qemu(PROFILE).pid, qemu);
}
