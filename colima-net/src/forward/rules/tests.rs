use proptest::prelude::*;

use super::*;

fn socket(text: &str) -> GuestPort {
    let (address, protocol) = text.split_once('/').unwrap();
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        _ => Protocol::Udp,
    };
    GuestPort::socket(protocol, address.parse().unwrap())
}

fn published(text: &str, asked: Asked) -> GuestPort {
    GuestPort {
        published: Some(Publish {
            container: "c".to_owned(),
            name: "web".to_owned(),
            asked,
        }),
        ..socket(text)
    }
}

/// `host -> guest` of every forward.
fn plan(rules: &Rules, ports: &[GuestPort]) -> Vec<String> {
    let plan = rules.plan(ports);
    let line = |forward: &Forward| format!("{} -> {}", forward.place(), forward.guest);
    plan.forwards.iter().map(line).collect()
}

#[test]
fn one_row_per_class() {
    use Asked::{Address, Port};
    let rules = Rules::default();
    let rows: [(&[GuestPort], &[&str]); 12] = [
        // -p 8080:80, as docker listens for it.
        (
            &[
                published("0.0.0.0:8080/tcp", Port),
                published("[::]:8080/tcp", Port),
            ],
            &[
                "127.0.0.1:8080/tcp -> 127.0.0.1:8080",
                "[::1]:8080/tcp -> [::1]:8080",
            ],
        ),
        // The same in a guest without IPv6.
        (
            &[published("0.0.0.0:8080/tcp", Port)],
            &[
                "127.0.0.1:8080/tcp -> 127.0.0.1:8080",
                "[::1]:8080/tcp -> 127.0.0.1:8080",
            ],
        ),
        // What is left of it for a moment when it goes.
        (
            &[published("[::]:8080/tcp", Port)],
            &["[::1]:8080/tcp -> [::1]:8080"],
        ),
        (
            &[published("0.0.0.0:8080/tcp", Address)],
            &["0.0.0.0:8080/tcp -> 127.0.0.1:8080"],
        ),
        (
            &[published("127.0.0.1:8080/tcp", Address)],
            &["127.0.0.1:8080/tcp -> 127.0.0.1:8080"],
        ),
        (
            &[published("[::1]:8080/tcp", Address)],
            &["[::1]:8080/tcp -> [::1]:8080"],
        ),
        (
            &[published("192.0.2.7:53/udp", Address)],
            &["192.0.2.7:53/udp -> 192.0.2.7:53"],
        ),
        // docker's own setting `ip`.
        (
            &[published("127.0.0.1:8080/tcp", Port)],
            &["127.0.0.1:8080/tcp -> 127.0.0.1:8080"],
        ),
        // A server in the machine or in a container with the host's network.
        (
            &[socket("[::]:3000/tcp")],
            &[
                "127.0.0.1:3000/tcp -> [::1]:3000",
                "[::1]:3000/tcp -> [::1]:3000",
            ],
        ),
        (
            &[socket("127.0.0.1:3000/tcp")],
            &["127.0.0.1:3000/tcp -> 127.0.0.1:3000"],
        ),
        // The guest's own networks.
        (&[socket("172.17.0.1:3000/tcp")], &[]),
        // One covers the other.
        (
            &[
                published("0.0.0.0:80/tcp", Address),
                socket("127.0.0.1:80/tcp"),
            ],
            &["0.0.0.0:80/tcp -> 127.0.0.1:80"],
        ),
    ];
    for (ports, expected) in rows {
        assert_eq!(plan(&rules, ports), expected, "{ports:?}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let forward = |bind, first_port| Action::Forward { bind, first_port };
    let rule = |protocol, ports, action| Rule {
        protocol,
        address: None,
        ports,
        action,
    };
    let rules = Rules::new([
        rule(None, 22..=22, Action::Ignore),
        Rule {
            address: Some([127, 0, 0, 1].into()),
            ..rule(None, 9000..=9000, Action::Ignore)
        },
        rule(
            Some(Protocol::Tcp),
            8000..=8009,
            forward(Bind::To(vec![[0, 0, 0, 0].into()]), Some(18000)),
        ),
        rule(None, 8000..=9999, forward(Bind::AsAsked, None)),
        rule(
            None,
            65000..=65535,
            forward(Bind::To(vec![[127, 0, 0, 1].into()]), Some(65100)),
        ),
    ]);
    for (port, expected) in [
        ("0.0.0.0:22/tcp", vec![]),
        ("127.0.0.1:9000/tcp", vec![]),
        (
            "127.0.0.2:9000/tcp",
            vec!["127.0.0.2:9000/tcp -> 127.0.0.2:9000"],
        ),
        (
            "127.0.0.1:8003/tcp",
            vec!["0.0.0.0:18003/tcp -> 127.0.0.1:8003"],
        ),
        (
            "127.0.0.1:8003/udp",
            vec!["127.0.0.1:8003/udp -> 127.0.0.1:8003"],
        ),
        // Off the end of the ports there are.
        ("127.0.0.1:65535/tcp", vec![]),
        (
            "127.0.0.1:65100/tcp",
            vec!["127.0.0.1:65200/tcp -> 127.0.0.1:65100"],
        ),
    ] {
        assert_eq!(plan(&rules, &[socket(port)]), expected, "{port}");
    }
}

#[test]
fn a_guest_cannot_have_what_is_reserved() {
    let rules = Rules::default().reserve(Protocol::Tcp, 2222);
    let ports = [
        published("0.0.0.0:2222/tcp", Asked::Address),
        socket("127.0.0.1:2222/udp"),
    ];
    let plan = rules.plan(&ports);
    assert_eq!(plan.forwards.len(), 1);
    assert_eq!(plan.forwards[0].protocol, Protocol::Udp);
    assert_eq!(plan.refused.len(), 1);
    assert_eq!(plan.refused[0].place().to_string(), "0.0.0.0:2222/tcp");
}

#[test]
fn another_default_for_plain_publishes() {
    let rules = Rules::default().plain([[0, 0, 0, 0].into()]);
    let ports = [
        published("[::]:80/tcp", Asked::Port),
        published("0.0.0.0:80/tcp", Asked::Port),
        socket("127.0.0.1:81/tcp"),
    ];
    assert_eq!(
        plan(&rules, &ports),
        [
            "0.0.0.0:80/tcp -> 127.0.0.1:80",
            "127.0.0.1:81/tcp -> 127.0.0.1:81"
        ]
    );
}

pub(crate) fn any_port() -> impl Strategy<Value = GuestPort> {
    let address = prop_oneof![
        Just("0.0.0.0"),
        Just("127.0.0.1"),
        Just("::"),
        Just("::1"),
        Just("10.0.2.15"),
    ];
    let asked = prop_oneof![
        Just(None),
        Just(Some(Asked::Port)),
        Just(Some(Asked::Address))
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (protocol, address, 1_u16..6, asked).prop_map(|(protocol, address, port, asked)| GuestPort {
        protocol,
        address: address.parse().unwrap(),
        port,
        published: asked.map(|asked| Publish {
            container: "c".to_owned(),
            name: "n".to_owned(),
            asked,
        }),
    })
}

proptest! {
    #[test]
    fn a_plan_can_be_bound_and_is_the_same_in_any_order(
        ports in proptest::collection::vec(any_port(), 0..12),
        turn in any::<proptest::sample::Index>(),
    ) {
        let rules = Rules::default().reserve(Protocol::Tcp, 3);
        let plan = rules.plan(&ports);
        for (index, one) in plan.forwards.iter().enumerate() {
            prop_assert!(!one.guest.ip().is_unspecified());
            prop_assert!((one.protocol, one.host.port()) != (Protocol::Tcp, 3));
            for other in &plan.forwards[index + 1..] {
                let overlap = one.host.ip() == other.host.ip()
                    || one.host.is_ipv4() == other.host.is_ipv4()
                        && (one.host.ip().is_unspecified() || other.host.ip().is_unspecified());
                let same_port = one.protocol == other.protocol && one.host.port() == other.host.port();
                prop_assert!(!(same_port && overlap), "{} and {}", one.place(), other.place());
            }
        }
        if !ports.is_empty() {
            let mut turned = ports.clone();
            turned.rotate_left(turn.index(ports.len()));
            let again = rules.plan(&turned);
            let targets = |plan: &Plan| -> Vec<_> {
                plan.forwards.iter().map(|f| (f.place(), f.guest)).collect()
            };
            prop_assert_eq!(targets(&again), targets(&plan));
        }
    }
}
