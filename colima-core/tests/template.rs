//! The file that a new profile begins with.

use colima_core::config::{
    Config, ConfigFile, Explained, Layers, PortForwarder, Settings, TEMPLATE, explain, write_back,
};

#[test]
fn the_template_says_the_defaults() {
    let file = ConfigFile::parse(TEMPLATE).unwrap();
    assert!(file.not_acted_on.is_empty());
    let layers = Layers {
        file: file.settings.clone(),
        ..Layers::default()
    };
    let said = Config::merge(&layers).unwrap();
    let values = |config: &Config| -> Vec<(String, serde_json::Value)> {
        let explained = explain(config, &ConfigFile::default(), &ConfigFile::default());
        let values = explained.into_iter();
        values
            .map(|explained: Explained| (explained.key, explained.value))
            .collect()
    };
    assert_eq!(values(&said), values(&Config::default()));
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
