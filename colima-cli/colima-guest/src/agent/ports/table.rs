//! Sockets and publishes as one list of ports: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use colima_core::{
    agent::MOST_PORTS,
    ports::{GuestPort, Protocol, Publish},
};

/// What makes a port one port.
type Key = (Protocol, SocketAddr);

/// What is known of the guest's ports.
///
/// A publish belongs to the socket of its address where there is one, and then lives as long as that
/// socket: docker's proxy is there before docker tells of the container, and a little longer. Without a
/// socket, as with the proxy switched off, it lives as long as the container.
#[derive(Debug, Default)]
pub(super) struct Table {
    listeners: BTreeSet<SocketAddr>,
    publishes: BTreeMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    publish: Publish,
    socket: Socket,
    container: Container,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    /// None was seen so far.
    Unseen,
    /// There is one, or was.
    Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Runs,
    Ended,
}

impl Table {
    /// These TCP sockets listen now, and no others.
    pub(super) fn set_listeners(&mut self, listeners: BTreeSet<SocketAddr>) {
        self.listeners = listeners;
        for ((protocol, address), entry) in &mut self.publishes {
            if *protocol == Protocol::Tcp && self.listeners.contains(address) {
                entry.socket = Socket::Seen;
            }
        }
        self.forget();
    }

    /// The container runs and publishes exactly these.
    pub(super) fn set_container(&mut self, container: &str, ports: Vec<GuestPort>) {
        self.end(container);
        for port in ports {
            let key = (port.protocol, port.socket_address());
            let Some(publish) = port.published else {
                continue;
            };
            let seen = port.protocol == Protocol::Tcp && self.listeners.contains(&key.1);
            let entry = Entry {
                publish,
                socket: if seen { Socket::Seen } else { Socket::Unseen },
                container: Container::Runs,
            };
            self.publishes.insert(key, entry);
        }
        self.forget();
    }

    /// The container ended.
    pub(super) fn end_container(&mut self, container: &str) {
        self.end(container);
        self.forget();
    }

    /// Only these containers run.
    pub(super) fn only_containers(&mut self, running: &BTreeSet<String>) {
        for entry in self.publishes.values_mut() {
            if !running.contains(&entry.publish.container) {
                entry.container = Container::Ended;
            }
        }
        self.forget();
    }

    fn end(&mut self, container: &str) {
        for entry in self.publishes.values_mut() {
            if entry.publish.container == container {
                entry.container = Container::Ended;
            }
        }
    }

    /// Drops publishes of which neither container nor socket is left.
    fn forget(&mut self) {
        let listeners = &self.listeners;
        self.publishes.retain(|(protocol, address), entry| {
            let listens = *protocol == Protocol::Tcp && listeners.contains(address);
            listens || entry.container == Container::Runs
        });
    }

    /// Every port that is served, at most [`MOST_PORTS`]; publishes come first.
    pub(super) fn ports(&self) -> BTreeSet<GuestPort> {
        let published = self.publishes.iter().filter_map(|(key, entry)| {
            let listens = key.0 == Protocol::Tcp && self.listeners.contains(&key.1);
            // A socket that is gone cannot be reached, whatever docker says.
            (listens || entry.socket == Socket::Unseen).then(|| GuestPort {
                published: Some(entry.publish.clone()),
                ..GuestPort::socket(key.0, key.1)
            })
        });
        let sockets = self
            .listeners
            .iter()
            .filter(|address| !self.publishes.contains_key(&(Protocol::Tcp, **address)))
            .map(|address| GuestPort::socket(Protocol::Tcp, *address));
        published.chain(sockets).take(MOST_PORTS).collect()
    }

    /// What a container publishes and is served.
    pub(super) fn of_container(&self, container: &str) -> Vec<GuestPort> {
        let mut ports: Vec<GuestPort> = self.ports().into_iter().collect();
        ports.retain(|port| {
            let publish = port.published.as_ref();
            publish.is_some_and(|publish| publish.container == container)
        });
        ports
    }
}

#[cfg(test)]
mod tests {
    use colima_core::ports::Asked;
    use proptest::prelude::*;

    use super::*;

    fn publish(container: &str, text: &str) -> GuestPort {
        GuestPort {
            published: Some(Publish {
                container: container.to_owned(),
                name: container.to_owned(),
                asked: Asked::Port,
            }),
            ..GuestPort::socket(Protocol::Tcp, text.parse().unwrap())
        }
    }

    fn listeners(list: &[&str]) -> BTreeSet<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn shown(table: &Table) -> Vec<String> {
        let line = |port: &GuestPort| match &port.published {
            Some(publish) => format!("{port} {}", publish.container),
            None => port.to_string(),
        };
        table.ports().iter().map(line).collect()
    }

    const WEB: &str = "0.0.0.0:8080";

    #[test]
    fn a_publish_lives_as_long_as_its_socket() {
        let mut table = Table::default();
        // docker's proxy is there before docker tells of the container.
        table.set_listeners(listeners(&[WEB, "127.0.0.1:22"]));
        assert_eq!(shown(&table), ["0.0.0.0:8080/tcp", "127.0.0.1:22/tcp"]);
        table.set_container("a", vec![publish("a", WEB)]);
        assert_eq!(shown(&table), ["0.0.0.0:8080/tcp a", "127.0.0.1:22/tcp"]);
        assert_eq!(table.of_container("a").len(), 1);
        // The container ends first: the proxy is still its own.
        table.end_container("a");
        assert_eq!(shown(&table), ["0.0.0.0:8080/tcp a", "127.0.0.1:22/tcp"]);
        table.set_listeners(listeners(&[]));
        assert_eq!(shown(&table), [""; 0]);
        table.set_listeners(listeners(&[WEB]));
        assert_eq!(
            shown(&table),
            ["0.0.0.0:8080/tcp"],
            "somebody else's by now"
        );

        // The proxy ends first.
        table.set_container("b", vec![publish("b", WEB)]);
        table.set_listeners(listeners(&[]));
        assert_eq!(shown(&table), [""; 0]);
        table.end_container("b");
        table.set_listeners(listeners(&[WEB]));
        assert_eq!(shown(&table), ["0.0.0.0:8080/tcp"]);
    }

    #[test]
    fn a_publish_without_a_socket_lives_as_long_as_its_container() {
        let mut table = Table::default();
        table.set_container("a", vec![publish("a", WEB)]);
        table.set_listeners(listeners(&[]));
        assert_eq!(shown(&table), ["0.0.0.0:8080/tcp a"]);
        table.only_containers(&BTreeSet::from(["a".to_owned()]));
        assert_eq!(shown(&table), ["0.0.0.0:8080/tcp a"]);
        // Restarted with another port.
        table.set_container("a", vec![publish("a", "0.0.0.0:8081")]);
        assert_eq!(shown(&table), ["0.0.0.0:8081/tcp a"]);
        table.only_containers(&BTreeSet::new());
        assert_eq!(shown(&table), [""; 0]);
    }

    #[test]
    fn a_guest_that_serves_everything_is_cut_short() {
        let mut table = Table::default();
        let many = (1..=9000).map(|port| ([127, 0, 0, 1], port).into());
        table.set_listeners(many.collect());
        table.set_container("a", vec![publish("a", WEB)]);
        assert_eq!(table.ports().len(), MOST_PORTS);
        assert_eq!(table.of_container("a").len(), 1, "publishes come first");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Listeners(BTreeSet<SocketAddr>),
        Container(&'static str, Vec<&'static str>),
        End(&'static str),
        Only(BTreeSet<String>),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let container = prop_oneof![Just("a"), Just("b")];
        let address = prop_oneof![Just(WEB), Just("[::]:8080"), Just("127.0.0.1:1")];
        let addresses = proptest::collection::vec(address, 0..3);
        prop_oneof![
            addresses
                .clone()
                .prop_map(|list| Step::Listeners(listeners(&list))),
            (container.clone(), addresses).prop_map(|(name, list)| Step::Container(name, list)),
            container.clone().prop_map(Step::End),
            proptest::collection::btree_set(container.prop_map(str::to_owned), 0..3)
                .prop_map(Step::Only),
        ]
    }

    proptest! {
        #[test]
        fn every_listener_is_shown_and_nothing_outlives_its_cause(
            steps in proptest::collection::vec(any_step(), 0..20),
        ) {
            let mut table = Table::default();
            let mut listening = BTreeSet::new();
            let mut running = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Listeners(list) => {
                        listening = list.clone();
                        table.set_listeners(list);
                    }
                    Step::Container(name, list) => {
                        running.insert(name.to_owned());
                        table.set_container(name, list.iter().map(|text| publish(name, text)).collect());
                    }
                    Step::End(name) => {
                        running.remove(name);
                        table.end_container(name);
                    }
                    Step::Only(names) => {
                        running.retain(|name| names.contains(name));
                        table.only_containers(&names);
                    }
                }
                let ports = table.ports();
                let shown: BTreeSet<SocketAddr> = ports.iter().map(GuestPort::socket_address).collect();
                prop_assert_eq!(shown.len(), ports.len(), "one port twice");
                prop_assert!(listening.is_subset(&shown), "a listener is missing");
                for port in &ports {
                    let owner = port.published.as_ref().map(|publish| &publish.container);
                    let lives = owner.is_some_and(|name| running.contains(name));
                    prop_assert!(lives || listening.contains(&port.socket_address()), "{} outlives", port);
                }
            }
        }
    }
}
