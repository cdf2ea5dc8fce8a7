//! Files that people have.

use std::collections::BTreeMap;

use colima_core::{
    Arch, Bytes,
    boot::{Provision, ProvisionMode},
    config::{
        Config, ConfigFile, Layers, MountEntry, Mounts, PortForwarder, Protect, Settings, Standing,
        StopMode, Transport, explain,
    },
};
use proptest::prelude::*;
use serde_json::json;

fn settings(text: &str) -> Settings {
    ConfigFile::parse(text).unwrap().settings
}

#[test]
fn every_key_that_is_acted_on() {
    let docker = json!({ "features": { "buildkit": false }, "debug": true });
    let expected = Settings {
        cpus: Some(4),
        memory: Some(Bytes::mib(2560)),
        disk: Some(Bytes::gib(60)),
        root_disk: Some(Bytes::mib(20000)),
        arch: Some(Arch::Aarch64),
        runtime: Some("none".to_owned()),
        auto_activate: Some(false),
        hostname: Some("box".to_owned()),
        port_forwarder: Some(PortForwarder::Off),
        stop_mode: Some(StopMode::Shutdown),
        port_bind: Some(vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()]),
        env: BTreeMap::from(
            [
                ("A", "1.10"),
                ("B", "true"),
                ("C", "007"),
                ("D", ""),
                ("E", "a b"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        ),
        docker: docker.as_object().cloned(),
        registry_mirrors: None,
        dns: Some(vec!["1.1.1.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
        dns_hosts: Some([("db.test".to_owned(), "10.1.2.3".to_owned())].into()),
        provision: Some(vec![
            Provision {
                mode: ProvisionMode::System,
                script: "#!/bin/sh\ntouch /a\n".to_owned(),
            },
            Provision {
                mode: ProvisionMode::AfterBoot,
                script: "true".to_owned(),
            },
        ]),
        mounts: Some(Mounts::These(vec![
            MountEntry {
                location: "~/a b".to_owned(),
                mount_point: None,
                writable: true,
            },
            MountEntry {
                location: "/data".to_owned(),
                mount_point: Some("/d".to_owned()),
                writable: false,
            },
        ])),
        forward_agent: Some(true),
        ssh_config: Some(false),
        ssh_port: Some(2222),
        transport: Some(Transport::Ssh),
        certificates: Some(vec!["/etc/ca".to_owned()]),
        protect: Some(Protect::These(vec!["~/notes".to_owned()])),
        nerdctl_path: Some("/opt/nerdctl".to_owned()),
        nerdctl_digest: Some("abc".to_owned()),
    };
    let text = "
cpu: 4
stopMode: shutdown
memory: 2.50 # GiB
disk: \"60\"
rootDisk: 20000MiB
arch: arm64
runtime: none
autoActivate: no
hostname: box
portForwarder: none
env: {A: 1.10, B: true, C: 007, D: , E: a b}
docker:
  features: {buildkit: false}
  debug: true
forwardAgent: true
sshConfig: false
sshPort: 2222
transport: ssh
certificates: /etc/ca
protect: [~/notes]
nerdctl: {path: /opt/nerdctl, digest: abc}
network:
  portBind: all
  dns: [1.1.1.1, \"fd00::1\"]
  dnsHosts: {db.test: 10.1.2.3}
provision:
  - script: |
      #!/bin/sh
      touch /a
  - mode: after-boot
    script: \"true\"
mounts:
  - location: ~/a b
    writable: true
  - {location: /data, mountPoint: /d}
";
    assert_eq!(settings(text), expected);
}

#[test]
fn what_is_protected() {
    let protect = |text: &str| settings(&format!("protect: {text}\n")).protect;
    assert_eq!(protect("[]"), Some(Protect::Usual));
    assert_eq!(protect(""), None);
    assert_eq!(protect("none"), Some(Protect::None));
    assert_eq!(protect("[none]"), Some(Protect::None));
    let these = Protect::These(vec!["~/.ssh".to_owned(), "none".to_owned()]);
    assert_eq!(protect("[~/.ssh, none]"), Some(these));
    assert!(ConfigFile::parse("protect: {a: b}\n").is_err());
}

#[test]
fn where_ports_appear() {
    let bind = |text: &str| settings(&format!("network: {{portBind: {text}}}")).port_bind;
    assert_eq!(bind("127.0.0.1"), Some(vec![[127, 0, 0, 1].into()]));
    assert_eq!(bind("\"::\""), Some(vec!["::".parse().unwrap()]));
    assert_eq!(bind("\"\""), None);
    for (word, expected) in [
        ("ssh", Some(PortForwarder::On)),
        ("grpc", Some(PortForwarder::On)),
        ("none", Some(PortForwarder::Off)),
        ("''", None),
    ] {
        let text = format!("portForwarder: {word}");
        assert_eq!(settings(&text).port_forwarder, expected, "{word}");
    }
    for wrong in [
        "portForwarder: slirp",
        "network: {portBind: eth0}",
        "network: {portBind: 80}",
    ] {
        assert!(ConfigFile::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_list_of_mounts_that_is_missing_is_none() {
    for text in ["mounts:\n", "mounts: null\n", "mounts: ~\n"] {
        assert_eq!(settings(text).mounts, Some(Mounts::None), "{text}");
    }
    for wrong in ["[{writable: true}]", "[~/src]", "none", "[{location: [a]}]"] {
        let text = format!("mounts: {wrong}\n");
        assert!(ConfigFile::parse(&text).is_err(), "{wrong}");
    }
}

#[test]
fn what_says_nothing() {
    for text in [
        "",
        "# only a comment\n",
        "cpu:\nmemory: ~\nruntime: ''\narch: host\nhostname: \"\"\nenv: {}\nenv2:\n"
            .replace("env2:\n", "")
            .as_str(),
        "kubernetes:\nnetwork: {}\nmounts: []\nprovision:\n",
    ] {
        let file = ConfigFile::parse(text).unwrap();
        assert_eq!(file.settings, Settings::default(), "{text}");
        assert!(
            file.not_acted_on.is_empty(),
            "{text}: {:?}",
            file.not_acted_on
        );
    }
}

/// The keys and defaults of the file that Colima 0.10 writes.
const COLIMAS_DEFAULTS: &str = "
cpu: 2
disk: 100
memory: 2
arch: host
runtime: docker
hostname: colima
modelRunner: docker
kubernetes:
  enabled: false
  version: v1.35.0+k3s1
  k3sArgs:
    - --disable=traefik
  port: 0
autoActivate: true
network:
  address: false
  mode: shared
  interface: en0
  preferredRoute: false
  dns: []
  dnsHosts:
    host.docker.internal: host.lima.internal
  hostAddresses: false
  gatewayAddress: 192.168.5.2
forwardAgent: false
docker: {}
vmType: qemu
portForwarder: ssh
rosetta: false
binfmt: true
nestedVirtualization: false
mountType: sshfs
mountInotify: false
cpuType: host
provision: []
sshConfig: true
sshPort: 0
mounts: []
diskImage: \"\"
rootDisk: 20
env: {}
";

#[test]
fn colimas_own_file_is_read_without_a_word() {
    let file = ConfigFile::parse(COLIMAS_DEFAULTS).unwrap();
    assert_eq!(file.not_acted_on, []);
    assert_eq!(file.settings.root_disk, Some(Bytes::gib(20)));
}

/// A value for every key that is none of Colima's defaults.
const OTHERWISE: &[(&str, &str)] = &[
    ("arch", "x86_64"),
    ("autoActivate", "false"),
    ("binfmt", "false"),
    ("certificates", "[/etc/ca]"),
    ("cpu", "3"),
    ("cpuType", "qemu64"),
    ("disk", "101"),
    ("diskImage", "/image.raw"),
    ("diskImageMirror", "http://m.test"),
    ("forceDiskImage", "true"),
    ("docker", "{debug: true}"),
    ("env", "{A: b}"),
    ("forwardAgent", "true"),
    ("hostname", "box"),
    ("kubernetes.disable", "[metrics-server]"),
    ("kubernetes.enabled", "true"),
    ("kubernetes.ingress", "true"),
    ("kubernetes.k3sArgs", "[--x]"),
    ("kubernetes.port", "6443"),
    ("kubernetes.version", "v1"),
    ("layer", "true"),
    ("memory", "3"),
    ("modelRunner", "ramalama"),
    ("mountInotify", "true"),
    ("mounts", "[{location: /src}]"),
    ("mountType", "9p"),
    ("nestedVirtualization", "true"),
    ("nerdctl.digest", "x"),
    ("nerdctl.path", "/opt/nerdctl"),
    ("network.address", "true"),
    ("network.dns", "[1.1.1.1]"),
    ("network.dnsHosts", "{db.test: 10.0.0.1}"),
    ("network.driver", "slirp"),
    ("network.gatewayAddress", "192.168.6.2"),
    ("network.hostAddresses", "true"),
    ("network.interface", "en1"),
    ("network.mode", "bridged"),
    ("network.portBind", "all"),
    ("network.preferredRoute", "true"),
    ("portForwarder", "grpc"),
    ("protect", "none"),
    ("provision", "[{mode: user, script: \"true\"}]"),
    ("rootDisk", "21"),
    ("rosetta", "true"),
    ("runtime", "none"),
    ("sshConfig", "true"),
    ("sshPort", "2222"),
    ("stopMode", "shutdown"),
    ("transport", "ssh"),
    ("vmType", "vz"),
];

/// Every key either changes the configuration or is answered with a line; which one it is, the explanation says.
#[test]
fn every_key_has_an_effect_or_a_line() {
    let none = ConfigFile::default();
    let explained = explain(&Config::default(), &none, &none);
    let keys: Vec<&str> = explained.iter().map(|one| one.key.as_str()).collect();
    let told: Vec<&str> = OTHERWISE.iter().map(|(key, _)| *key).collect();
    assert_eq!(told, keys);
    for (one, (key, value)) in explained.iter().zip(OTHERWISE) {
        let text = match key.split_once('.') {
            Some((section, key)) => format!("{section}:\n  {key}: {value}\n"),
            None => format!("{key}: {value}\n"),
        };
        let file = ConfigFile::parse(&text).unwrap();
        let lines: Vec<String> = file.not_acted_on.iter().map(ToString::to_string).collect();
        match one.standing {
            None => {
                assert!(lines.is_empty(), "{lines:?}");
                assert_ne!(file.settings, Settings::default(), "{key}");
                let layers = Layers {
                    file: file.settings,
                    ..Layers::default()
                };
                // Another architecture than the host's is refused, and that is an effect.
                match Config::merge(&layers) {
                    Ok(config) => assert_ne!(config, Config::default(), "{key}"),
                    Err(error) => {
                        // Half a nerdctl is told by the other half.
                        let section = key.split('.').next().unwrap_or_default();
                        assert!(error.to_string().contains(section), "{error}");
                    }
                }
            }
            Some(_) => {
                assert_eq!(file.settings, Settings::default(), "{key}");
                assert_eq!(lines.len(), 1, "{key}: {lines:?}");
                assert!(lines[0].starts_with(&format!("{key}: ")), "{lines:?}");
            }
        }
    }
}

#[test]
fn what_is_set_and_has_no_effect_is_told() {
    let file = ConfigFile::parse(
        "vmType: vz
layer: true
network: {mode: bridged, driver: gvproxy}
kubernetes:
  enabled: true
mountType: 9p
",
    )
    .unwrap();
    assert_eq!(file.not_acted_on[0].standing, Standing::DoesNotApply);
    let lines: Vec<String> = file
        .not_acted_on
        .iter()
        .map(|note| format!("line {}: {note}", note.line))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "([a-z:#\\-\\[\\]{}&*|>'\"\n ]|cpu: |env:\n  |mounts:\n  - ){0,60}") {
        if let Err(error) = ConfigFile::parse(&text) {
            prop_assert!(!error.lines().is_empty());
        }
    }
}
