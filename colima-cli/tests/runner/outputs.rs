//! What `status` and `list` print.

use colima::{
    instance::{OpenPort, PortReport, Problem},
    mounts::{MountHealth, Share},
    output::{
        Detail, ListEntry, State, StatusReport, at_rest_json, escaped, list_json, list_table,
        mount_json, mount_table, port_json, port_table,
    },
};
use colima_core::{
    Arch, Bytes,
    boot::Runtime,
    mounts::{GuestMount, MountAccess},
};

fn report() -> StatusReport {
    StatusReport {
        display_name: "colima [profile=work]".to_owned(),
        state: State::Degraded,
        problems: vec![Problem::new(
            "docker does not answer\x1b[2J\nerror: fake",
            "colima restart",
        )],
        driver: "QEMU".to_owned(),
        accelerator: Some("tcg".to_owned()),
        arch: Arch::X86_64,
        runtime: Runtime::Docker,
        mount_type: None,
        ip_address: Some("10.0.2.15".to_owned()),
        docker_socket: Some("/home/ann/.colima/work/docker.sock".into()),
        containerd_socket: None,
        cpus: 2,
        memory: Bytes::gib(2),
        disk: Bytes::gib(100),
        ports: Some(ports()),
        mounts: mounts(),
    }
}

fn mounts() -> Vec<MountHealth> {
    let mount = |location: &str, path: &str, access, problem: Option<&str>| MountHealth {
        share: Share {
            location: location.to_owned(),
            guest: GuestMount {
                port: 1,
                path: path.to_owned(),
                access,
            },
        },
        problem: problem.map(str::to_owned),
    };
    vec![
        mount("/home/ann", "/home/ann", MountAccess::ReadWrite, None),
        mount("/data\x1b[2J", "/d", MountAccess::ReadOnly, Some("gone\n")),
    ]
}

fn ports() -> PortReport {
    let open = |host: &str, guest: &str, container: Option<&str>| OpenPort {
        protocol: "tcp".to_owned(),
        host: host.to_owned(),
        guest: guest.to_owned(),
        container: container.map(str::to_owned),
    };
    PortReport {
        open: vec![
            open("127.0.0.1:8080", "127.0.0.1:8080", Some("web\x1b[2J")),
            open("[::1]:8080", "[::1]:8080", Some("web")),
            open("127.0.0.1:3000", "127.0.0.1:3000", None),
        ],
        conflicts: vec!["127.0.0.1:5432/tcp is in use by postgres (pid 77)".to_owned()],
        trouble: None,
    }
}

fn entries() -> [ListEntry; 2] {
    let running = ListEntry {
        name: "default".to_owned(),
        state: State::Running,
        problems: Vec::new(),
        arch: Arch::X86_64,
        cpus: 2,
        memory: Bytes::mib(2560),
        disk: Bytes::gib(100),
        runtime: Some(Runtime::Docker),
        address: None,
    };
    let stopped = ListEntry {
        name: "a-longer-name".to_owned(),
        state: State::Broken,
        problems: vec![Problem::new("it hangs", "end it: colima stop --force")],
        runtime: None,
        ..running.clone()
    };
    [running, stopped]
}

#[test]
fn status_for_people() {
    insta::assert_snapshot!("status_brief", report().human(Detail::Brief));
    insta::assert_snapshot!("status_extended", report().human(Detail::Extended));
}

#[test]
fn status_for_programs() {
    let line = report().json();
    assert_eq!(line.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    insta::assert_json_snapshot!(value);
}

#[test]
fn status_of_what_does_not_run() {
    let line = at_rest_json("colima", State::Suspended, &[]);
    insta::assert_snapshot!(line, @r#"{"display_name":"colima","problems":[],"schema_version":1,"state":"suspended"}"#);
}

#[test]
fn list_for_people() {
    insta::assert_snapshot!("list_table", list_table(&entries()));
    insta::assert_snapshot!("list_table_empty", list_table(&[]));
}

#[test]
fn list_for_programs() {
    insta::assert_snapshot!(list_json(&entries()));
    assert_eq!(list_json(&[]), "");
}

#[test]
fn ports_for_people_and_programs() {
    insta::assert_snapshot!("mount_table", mount_table(&mounts()));
    insta::assert_snapshot!("mount_json", mount_json(&mounts()));
    insta::assert_snapshot!("port_table", port_table(&ports()));
    insta::assert_snapshot!("port_json", port_json(&ports()));
    let nothing = PortReport::default();
    assert_eq!(port_table(&nothing).lines().count(), 1);
    assert_eq!(port_json(&nothing), "");
}

#[test]
fn the_guest_cannot_steer_the_terminal() {
    assert_eq!(
        escaped("a\x1b[31m\r\n\tb\u{9b}c\u{202e}é"),
        "a\\u{1b}[31m\\r\\n\\tb\\u{9b}c\\u{202e}é"
    );
}
