//! What the doctor says of hosts that are not this one.

use std::path::PathBuf;

use colima::{
    doctor::{
        Kvm, Observed, OtherColima, ProfileSeen, Program, Purpose, examine, human, in_json, is_well,
    },
    instance::Problem,
};
use colima_core::Bytes;

use super::home::Home;

fn program(name: &str, package: &str, purpose: Purpose, found: bool) -> Program {
    Program {
        name: name.to_owned(),
        package: package.to_owned(),
        purpose,
        found: found.then(|| PathBuf::from("/usr/bin").join(name)),
    }
}

fn a_good_host() -> Observed {
    Observed {
        kvm: Kvm::Opens,
        remembered: Some(("kvm".to_owned(), "kvm works".to_owned())),
        programs: vec![program("qemu-img", "qemu-utils", Purpose::Running, true)],
        qemu: Some(Ok("8.2.2".to_owned())),
        has_image: true,
        is_root: false,
        most_user_namespaces: Some(63_000),
        unprivileged_clone: None,
        apparmor_restricts: Some(0),
        free: Some((Bytes::gib(80), "/home/ada".into())),
        host: (8, Some(Bytes::gib(16))),
        wanted: Ok((2, Bytes::gib(2))),
        port_obstacles: Vec::new(),
        profile: ProfileSeen::Running {
            problems: Vec::new(),
            conflicts: Vec::new(),
        },
        first_free_port: Some(80),
        docker_override: None,
        docker_config: None,
        state: Ok("/home/ada/.colima".into()),
        other_colimas: Vec::new(),
    }
}

#[test]
fn a_host_that_is_well() {
    let findings = examine(&a_good_host());
    assert!(is_well(&findings));
    insta::assert_snapshot!(human(&findings));
}

#[test]
fn a_host_with_everything_wrong() {
    let findings = examine(&Observed {
        kvm: Kvm::Forbidden {
            group: "kvm".to_owned(),
        },
        remembered: None,
        programs: vec![
            program(
                "qemu-system-x86_64",
                "qemu-system-x86",
                Purpose::Running,
                false,
            ),
            program("mmdebstrap", "mmdebstrap", Purpose::Building, false),
            program("docker", "docker-cli", Purpose::Using, false),
            program("colima-guest-x86_64", "", Purpose::Running, false),
        ],
        qemu: Some(Err("version 6.2.0 is too old".to_owned())),
        has_image: false,
        apparmor_restricts: Some(1),
        free: Some((Bytes::mib(300), "/home/ada".into())),
        wanted: Ok((4, Bytes::gib(32))),
        port_obstacles: vec!["sshPort: 127.0.0.1:22/tcp is in use by sshd (pid 1)".to_owned()],
        profile: ProfileSeen::Running {
            problems: vec![Problem::new(
                "the guest's agent does not answer\x1b[2J",
                "boot it anew: colima restart",
            )],
            conflicts: Vec::new(),
        },
        first_free_port: Some(1024),
        docker_override: Some("DOCKER_HOST is set to tcp://x\x1b[31m".to_owned()),
        docker_config: Some("cannot understand /home/ada/.docker/config.json".to_owned()),
        state: Err("/mnt/shared belongs to user 0, not to user 1000".to_owned()),
        other_colimas: vec![
            OtherColima {
                instance: "colima".to_owned(),
                pid: Some(4711),
            },
            OtherColima {
                instance: "colima-work".to_owned(),
                pid: None,
            },
        ],
        ..a_good_host()
    });
    assert!(!is_well(&findings));
    insta::assert_snapshot!("everything_wrong", human(&findings));
    let json: serde_json::Value = serde_json::from_str(&in_json(&findings)).unwrap();
    insta::assert_json_snapshot!("everything_wrong_in_json", json);
}

#[test]
fn what_is_known_and_works_is_no_trouble() {
    let emulated = |kvm| Observed {
        kvm,
        remembered: Some((
            "tcg".to_owned(),
            "kvm hangs: no kernel ran within 8s; tcg needs no trial".to_owned(),
        )),
        unprivileged_clone: Some(0),
        free: Some((Bytes::gib(5), "/".into())),
        host: (1, None),
        profile: ProfileSeen::Running {
            problems: Vec::new(),
            conflicts: vec!["127.0.0.1:80/tcp is in use by nginx (pid 7)".to_owned()],
        },
        docker_override: Some("DOCKER_CONTEXT is set to x".to_owned()),
        other_colimas: vec![OtherColima {
            instance: "colima".to_owned(),
            pid: None,
        }],
        ..a_good_host()
    };
    let findings = examine(&emulated(Kvm::Opens));
    assert!(is_well(&findings), "{findings:?}");
    insta::assert_snapshot!("emulated", human(&findings));
    for kvm in [Kvm::Missing, Kvm::Fails("I/O error".to_owned())] {
        assert!(is_well(&examine(&emulated(kvm))));
    }
}

/// The real one, of a profile that wants a port which somebody has.
#[test]
fn a_port_that_is_taken() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    home.write(
        "default/colima.yaml",
        format!("sshPort: {port}\nnetwork: {{portBind: 192.0.2.1}}\n"),
    );
    let said = home.run(&["doctor"]).stdout;
    let line = format!("sshPort: 127.0.0.1:{port}/tcp is in use by ");
    assert!(said.contains(&line), "{said}");
    assert!(
        said.contains("network.portBind: 192.0.2.1:0/tcp is no address of this host"),
        "{said}"
    );
    assert!(said.contains("it does not run"), "{said}");
}
