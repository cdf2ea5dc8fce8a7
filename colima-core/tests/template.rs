//! The file that a new profile begins with.

use colima_core::config::{Config, ConfigFile, PortForwarder, Settings, TEMPLATE, write_back};

#[test]
fn the_template_says_the_defaults() {
    let file = ConfigFile::parse(TEMPLATE).unwrap();
    assert!(file.not_acted_on.is_empty());
    let said = Config::merge(&Settings::default(), &file.settings).unwrap();
    let unsaid = Config::merge(&Settings::default(), &Settings::default()).unwrap();
    assert_eq!(said.cpus.value, unsaid.cpus.value);
    assert_eq!(said.memory.value, unsaid.memory.value);
    assert_eq!(said.disk.value, unsaid.disk.value);
    assert_eq!(said.root_disk.value, unsaid.root_disk.value);
    assert_eq!(said.runtime.value, unsaid.runtime.value);
    assert_eq!(said.auto_activate.value, unsaid.auto_activate.value);
    assert_eq!(said.hostname.value, unsaid.hostname.value);
    assert_eq!(said.port_forwarder.value, unsaid.port_forwarder.value);
    assert_eq!(said.port_bind.value, unsaid.port_bind.value);
    assert_eq!(said.docker, unsaid.docker);
}

#[test]
fn what_was_typed_is_filled_in() {
    let flags = Settings {
        cpus: Some(6),
        memory: Some("2.5".parse().unwrap()),
        hostname: Some("box".to_owned()),
        auto_activate: Some(false),
        port_forwarder: Some(PortForwarder::Off),
        ..Settings::default()
    };
    let text = write_back(TEMPLATE, &flags).unwrap();
    assert_eq!(text.lines().count(), TEMPLATE.lines().count());
    let file = ConfigFile::parse(&text).unwrap();
    assert_eq!(file.settings.cpus, Some(6));
    insta::assert_snapshot!(text);
}
