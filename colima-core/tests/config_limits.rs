//! Merging of layers, and what is out of its limits.

use colima_core::{
    Arch, Bytes,
    boot::Runtime,
    config::{Config, ConfigFile, InvalidConfig, Layers, Origin, Settings},
};

fn merge_file(file: Settings) -> Result<Config, InvalidConfig> {
    Config::merge(&Layers {
        file,
        ..Layers::default()
    })
}

#[test]
fn flags_win_over_the_file_over_the_defaults() {
    let file = ConfigFile::parse("cpu: 4\nmemory: 4\nenv: {A: file, B: file}\n").unwrap();
    let flags = Settings {
        cpus: Some(8),
        runtime: Some("none".to_owned()),
        env: [("B".to_owned(), "flag".to_owned())].into(),
        ..Settings::default()
    };
    let template =
        ConfigFile::parse("cpu: 3\nrootDisk: 30\nenv: {A: template, C: template}\n").unwrap();
    let config = Config::merge(&Layers {
        flags,
        file: file.settings,
        template: template.settings,
    })
    .unwrap();
    assert_eq!((config.cpus.value, config.cpus.origin), (8, Origin::Flag));
    assert_eq!(
        (config.memory.value, config.memory.origin),
        (Bytes::gib(4), Origin::File)
    );
    assert_eq!(
        (config.disk.value, config.disk.origin),
        (Bytes::gib(100), Origin::Default)
    );
    assert_eq!(config.runtime.value, Runtime::None);
    assert_eq!(config.env["A"].origin, Origin::File);
    assert_eq!(config.env["B"].origin, Origin::Flag);
    assert_eq!(config.env["C"].origin, Origin::Template);
    assert_eq!(
        (config.root_disk.value, config.root_disk.origin),
        (Bytes::gib(30), Origin::Template)
    );
    assert_eq!(config.plain_env()["B"], "flag");
}

#[test]
fn defaults_are_within_the_limits() {
    let config = Config::merge(&Layers::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.memory.value, Bytes::gib(2));
    assert_eq!(config.root_disk.value, Bytes::gib(20));
    assert!(config.auto_activate.value);
}

#[test]
fn every_violation_is_reported_at_once() {
    let foreign = match Arch::host() {
        Some(Arch::Aarch64) => Arch::X86_64,
        _ => Arch::Aarch64,
    };
    let file = ConfigFile::parse(
        "cpu: 0\nmemory: 0.25\ndisk: 100000\nrootDisk: 1\nhostname: -x\nruntime: incus\nsshPort: 70000\nnerdctl: {path: nerdctl}\ncertificates: [ca.pem]\nnetwork: {dnsHosts: {\"a b\": 10.0.0.1, ok.test: \"x\\ny\"}}\n",
    )
    .unwrap();
    let flags = Settings {
        arch: Some(foreign),
        env: [
            ("1A".to_owned(), String::new()),
            ("B".to_owned(), "two\nlines".to_owned()),
        ]
        .into(),
        ..Settings::default()
    };
    let error = Config::merge(&Layers {
        flags,
        file: file.settings,
        ..Layers::default()
    })
    .unwrap_err();
    let lines: Vec<String> = error.violations.iter().map(ToString::to_string).collect();
    insta::with_settings!({ filters => vec![("x86_64|aarch64", "[foreign]")] }, {
        insta::assert_snapshot!(lines.join("\n"));
    });
}

#[test]
fn the_edges_are_inside() {
    for text in [
        "cpu: 1",
        "cpu: 255",
        "memory: 0.5",
        "disk: 1",
        "rootDisk: 3",
        "hostname: a",
    ] {
        let file = ConfigFile::parse(text).unwrap();
        merge_file(file.settings).unwrap();
    }
    for text in [
        "cpu: 256",
        "memory: 511MiB",
        "disk: 1023MiB",
        "hostname: a_b",
    ] {
        let file = ConfigFile::parse(text).unwrap();
        let error = merge_file(file.settings).unwrap_err();
        assert_eq!(error.violations.len(), 1, "{text}");
    }
}
