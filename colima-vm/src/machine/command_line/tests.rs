use colima_core::Bytes;
use proptest::prelude::*;

use super::*;
use crate::machine::spec::{Base, Kernel};

fn facts(accelerator: Accelerator) -> HostFacts {
    let mut ports = [0; STREAM_PORTS as usize];
    for (port, fd) in ports.iter_mut().zip(20..) {
        *port = fd;
    }
    HostFacts {
        accelerator,
        firmware: Firmware::Standard,
        initrd: Some("/vm/initrd.img".into()),
        sockets: SocketNumbers {
            qmp: 10,
            qmp_debug: 11,
            console: 12,
            ports,
        },
        beginning: Beginning::Boot,
    }
}

fn spec() -> MachineSpec {
    MachineSpec {
        name: "colima-work".to_owned(),
        arch: Arch::X86_64,
        cpus: 2,
        memory: Bytes::gib(2),
        boot: Boot::Kernel(Kernel {
            image: "/image/vmlinuz".into(),
            initrd: vec!["/image/initrd".into(), "/vm/boot.cpio".into()],
            command_line: "console=ttyS0 root=/dev/vda".to_owned(),
        }),
        disks: vec![
            Disk {
                path: "/vm/root.qcow2".into(),
                format: DiskFormat::Qcow2,
                base: Some(Base {
                    path: "/image/root.qcow2".into(),
                    format: DiskFormat::Qcow2,
                }),
                access: Access::ReadWrite,
                serial: "colima-root".to_owned(),
                durability: Durability::Unsafe,
            },
            Disk {
                path: "/vm/data.qcow2".into(),
                format: DiskFormat::Qcow2,
                base: None,
                access: Access::ReadWrite,
                serial: "colima-data".to_owned(),
                durability: Durability::Durable,
            },
            Disk {
                path: "/vm/extra.raw".into(),
                format: DiskFormat::Raw,
                base: None,
                access: Access::ReadOnly,
                serial: "extra".to_owned(),
                durability: Durability::Durable,
            },
        ],
        network: Network::User,
    }
}

/// One option with its value per line.
fn lines(arguments: &[OsString]) -> String {
    let mut text = String::new();
    for argument in arguments {
        let argument = argument.to_str().unwrap();
        text.push_str(if argument.starts_with('-') { "\n" } else { " " });
        text.push_str(argument);
    }
    text
}

#[test]
fn a_whole_machine() {
    insta::assert_snapshot!(lines(&arguments(&spec(), &facts(Accelerator::Kvm))));
}

/// A saved state loads into the same devices, so nothing else may differ.
#[test]
fn a_saved_state_is_awaited_by_the_same_machine() {
    let booting = arguments(&spec(), &facts(Accelerator::Tcg));
    let loading = HostFacts {
        beginning: Beginning::SavedState,
        ..facts(Accelerator::Tcg)
    };
    let expected = [booting, vec!["-incoming".into(), "defer".into()]].concat();
    assert_eq!(arguments(&spec(), &loading), expected);
}

#[test]
fn on_arm_by_emulation() {
    let spec = MachineSpec {
        arch: Arch::Aarch64,
        disks: Vec::new(),
        network: Network::None,
        ..spec()
    };
    insta::assert_snapshot!(lines(&arguments(&spec, &facts(Accelerator::Tcg))));
}

#[test]
fn ports_of_the_host_are_on_loopback_alone() {
    let port = |host, guest| HostPort { host, guest };
    let spec = MachineSpec {
        network: Network::Reachable(vec![port(2222, 22), port(80, 8080)]),
        ..spec()
    };
    let text = lines(&arguments(&spec, &facts(Accelerator::Kvm)));
    assert!(
        text.contains(
            "\n-netdev user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:80-:8080\n"
        ),
        "{text}"
    );
    spec.validate().unwrap();
    for ports in [
        vec![port(0, 1)],
        vec![port(1, 0)],
        vec![port(1, 2), port(1, 3)],
    ] {
        let network = Network::Reachable(ports);
        assert!(
            MachineSpec {
                network,
                ..spec.clone()
            }
            .validate()
            .is_err()
        );
    }
}

#[test]
fn from_a_disk() {
    let spec = MachineSpec {
        boot: Boot::Disk,
        ..spec()
    };
    let facts = HostFacts {
        initrd: None,
        firmware: Firmware::Minimal,
        ..facts(Accelerator::Tcg)
    };
    let text = lines(&arguments(&spec, &facts));
    assert!(text.contains("\n-boot order=c"), "{text}");
    assert!(
        !text.contains("-kernel") && !text.contains("-bios"),
        "{text}"
    );
}

#[test]
fn the_digest_tells_arguments_apart() {
    let join = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    assert_ne!(digest(&join(&["ab", "c"])), digest(&join(&["a", "bc"])));
    assert_eq!(digest(&[]).len(), 64);
}

#[test]
fn a_name_keeps_its_uuid() {
    assert_eq!(uuid_of("colima"), uuid_of("colima"));
    assert_ne!(uuid_of("colima"), uuid_of("colima-work"));
    assert_eq!(&uuid_of("colima")[14..15], "8");
}

proptest! {
    /// Whatever a path holds, it is one JSON string or one whole argument, never part of a list.
    #[test]
    fn hostile_paths_stay_whole(
        name in "[,=:{}\"\\\\' \\n\t%$a-z\u{202e}\u{e9}]{1,30}", append in "[,=:\" a-z-]{0,30}",
    ) {
        let mut spec = spec();
        let path = PathBuf::from(format!("/{name}"));
        spec.disks[0].path.clone_from(&path);
        spec.disks[0].base.as_mut().unwrap().path.clone_from(&path);
        spec.boot = Boot::Kernel(Kernel {
            image: path.clone(),
            initrd: Vec::new(),
            command_line: append.clone(),
        });
        spec.validate().unwrap();
        let facts = HostFacts { initrd: Some(path.clone()), ..facts(Accelerator::Tcg) };
        let arguments = arguments(&spec, &facts);
        let values = |option: &str| -> Vec<&OsString> {
            arguments.windows(2).filter(|pair| pair[0] == option).map(|pair| &pair[1]).collect()
        };
        prop_assert_eq!(values("-kernel"), [path.as_os_str()]);
        prop_assert_eq!(values("-initrd"), [path.as_os_str()]);
        prop_assert_eq!(values("-append"), [append.as_str()]);
        let mut named = 0;
        for value in values("-blockdev") {
            let value: Value = serde_json::from_str(value.to_str().unwrap()).unwrap();
            named += usize::from(value["filename"] == path.to_str().unwrap());
        }
        prop_assert_eq!(named, 2);
        let harmless = super::arguments(&self::spec(), &facts);
        prop_assert_eq!(arguments.len(), harmless.len());
        let mut differing = 0;
        for (mine, other) in arguments.iter().zip(&harmless) {
            differing += usize::from(mine != other);
        }
        prop_assert!(differing <= 5, "{} arguments changed", differing);
    }
}

#[test]
fn what_is_no_machine() {
    type Change = fn(&mut MachineSpec);
    let changes: [(&str, Change); 12] = [
        ("name", |s| s.name = "a,b".to_owned()),
        ("name", |s| s.name = String::new()),
        ("cpus", |s| s.cpus = 0),
        ("memory", |s| s.memory = Bytes::new(1)),
        ("memory", |s| s.memory = Bytes::kib(65_537)),
        ("serial", |s| s.disks[0].serial = "a,b".to_owned()),
        ("serial", |s| s.disks[0].serial = "x".repeat(21)),
        ("serial", |s| s.disks[1].serial = "extra".to_owned()),
        ("disk", |s| s.disks[0].path = "relative".into()),
        ("disk base", |s| s.disks[0].format = DiskFormat::Raw),
        ("boot", |s| (s.boot, s.arch) = (Boot::Disk, Arch::Aarch64)),
        ("boot", |s| (s.boot, s.disks) = (Boot::Disk, Vec::new())),
    ];
    spec().validate().unwrap();
    for (expected, change) in changes {
        let mut spec = spec();
        change(&mut spec);
        match spec.validate() {
            Err(crate::machine::Error::InvalidSpec { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}
