//! The docker daemon's configuration: the user's keys over our defaults.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// What the defaults depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DaemonDefaults {
    /// What `host-gateway` in `--add-host` stands for: the guest's way to the host. Docker's own default
    /// would be its bridge in the guest.
    pub host_gateway: IpAddr,
    /// The host's proxies.
    pub proxies: Proxies,
}

impl DaemonDefaults {
    /// Defaults without proxies.
    pub fn new(host_gateway: impl Into<IpAddr>) -> Self {
        Self {
            host_gateway: host_gateway.into(),
            proxies: Proxies::default(),
        }
    }

    /// The same with the host's proxies.
    #[must_use]
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }
}

/// Proxies as the host's variables name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `http_proxy`
    pub http: Option<String>,
    /// `https_proxy`
    pub https: Option<String>,
    /// `no_proxy`
    pub no_proxy: Option<String>,
}

impl Proxies {
    /// As environment variables for programs that download.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let named = [
            ("http_proxy", &self.http),
            ("https_proxy", &self.https),
            ("no_proxy", &self.no_proxy),
        ];
        let set = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)));
        set.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The same as seen from a guest: a proxy on the host's loopback is reached through `gateway`.
    #[must_use]
    pub fn from_guest(&self, gateway: IpAddr) -> Self {
        let through = |url: &Option<String>| url.as_deref().map(|url| off_loopback(url, gateway));
        Self {
            http: through(&self.http),
            https: through(&self.https),
            no_proxy: self.no_proxy.clone(),
        }
    }
}

/// A URL whose host is the loopback gets `gateway` in its place; any other is returned as it is.
#[must_use]
pub fn off_loopback(url: &str, gateway: IpAddr) -> String {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    let authority_end = url[host_at..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| host_at + at);
    // Credentials end at the last `@` of the authority.
    let host_at = url[host_at..authority_end]
        .rfind('@')
        .map_or(host_at, |at| host_at + at + 1);
    let rest = &url[host_at..];
    let host_len = if rest.starts_with('[') {
        rest.find(']').map_or(rest.len(), |at| at + 1)
    } else {
        rest.find([':', '/', '?', '#']).unwrap_or(rest.len())
    };
    let host = rest[..host_len].trim_matches(['[', ']']);
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        return url.to_owned();
    }
    let gateway = match gateway {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("{}{gateway}{}", &url[..host_at], &rest[host_len..])
}

/// Why a user's part cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonJsonError {
    /// The value is not of the kind that the docker daemon reads.
    #[error("docker.{key} takes {wanted}")]
    WrongKind {
        /// The key, with dots between levels.
        key: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
    /// The key would take the daemon away from where everything else expects it.
    #[error("docker.{key} cannot be changed: {reason}")]
    Reserved {
        /// The key.
        key: &'static str,
        /// What would go wrong.
        reason: &'static str,
    },
}

/// The docker daemon's configuration: what the user wrote, and defaults for what the user did not.
///
/// Maps are merged key by key, and `exec-opts` option by option. Defaults:
///
/// * `features`: BuildKit, and containerd's image store. With it, docker's images are in
///   `/var/lib/containerd`, not in `/var/lib/docker`: both have to be on the data disk.
/// * `exec-opts`: `native.cgroupdriver=cgroupfs`, as in Colima, where the user names no driver.
/// * `log-driver`: `json-file` with three files of 50 MB per container, where the user names neither driver
///   nor options; docker's own default grows without limit.
/// * `host-gateway-ip`: the way to the host.
/// * `proxies`: the host's, with loopback replaced, where the user names none.
///
/// `live-restore` is not among them: containers would be killed at the guest's shutdown instead of being
/// stopped, and swarm mode would be refused.
///
/// Keys come out sorted, so equal input gives equal text.
///
/// # Errors
///
/// A value of the wrong kind where something has to be merged; a key that cannot be honoured.
pub fn daemon_json(
    user: &Map<String, Value>,
    defaults: &DaemonDefaults,
) -> Result<Map<String, Value>, DaemonJsonError> {
    for (key, reason) in RESERVED {
        if user.contains_key(*key) {
            return Err(DaemonJsonError::Reserved { key, reason });
        }
    }
    let mut merged = user.clone();
    merge_features(&mut merged)?;
    merge_exec_opts(&mut merged)?;
    if !merged.contains_key("log-driver") && !merged.contains_key("log-opts") {
        merged.insert("log-driver".to_owned(), json!("json-file"));
        let options = json!({ "max-file": "3", "max-size": "50m" });
        merged.insert("log-opts".to_owned(), options);
    }
    merged
        .entry("host-gateway-ip")
        .or_insert_with(|| json!(defaults.host_gateway.to_string()));
    let proxies = proxies(&defaults.proxies.from_guest(defaults.host_gateway));
    if !proxies.is_empty() {
        merged.entry("proxies").or_insert(Value::Object(proxies));
    }
    Ok(merged)
}

const RESERVED: &[(&str, &str)] = &[
    (
        "data-root",
        "containers and images would be on the disk that an update replaces",
    ),
    (
        "hosts",
        "the daemon's sockets come from its service, and it refuses to have them twice",
    ),
];

fn merge_features(merged: &mut Map<String, Value>) -> Result<(), DaemonJsonError> {
    let features = merged
        .entry("features")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or(DaemonJsonError::WrongKind {
            key: "features",
            wanted: "a map of names to true or false",
        })?;
    for feature in ["buildkit", "containerd-snapshotter"] {
        features.entry(feature).or_insert_with(|| Value::Bool(true));
    }
    Ok(())
}

fn merge_exec_opts(merged: &mut Map<String, Value>) -> Result<(), DaemonJsonError> {
    const DRIVER: &str = "native.cgroupdriver";
    let options = merged
        .entry("exec-opts")
        .or_insert_with(|| json!([]))
        .as_array_mut()
        .ok_or(DaemonJsonError::WrongKind {
            key: "exec-opts",
            wanted: "a list of option=value",
        })?;
    let names_driver = |option: &Value| {
        option
            .as_str()
            .and_then(|option| option.split_once('='))
            .is_some_and(|(name, _)| name.trim() == DRIVER)
    };
    if !options.iter().any(names_driver) {
        options.push(json!(format!("{DRIVER}=cgroupfs")));
    }
    Ok(())
}

fn proxies(proxies: &Proxies) -> Map<String, Value> {
    [
        ("http-proxy", &proxies.http),
        ("https-proxy", &proxies.https),
        ("no-proxy", &proxies.no_proxy),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?))))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    fn merge(user: &Value) -> Result<Map<String, Value>, DaemonJsonError> {
        daemon_json(user.as_object().unwrap(), &DaemonDefaults::new(GATEWAY))
    }

    #[test]
    fn defaults() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&merge(&json!({})).unwrap()).unwrap());
    }

    #[test]
    fn the_users_keys_win_one_by_one() {
        let merged = merge(&json!({
            "features": { "buildkit": false, "cdi": true },
            "exec-opts": ["isolation=default"],
            "host-gateway-ip": "192.0.2.1",
            "log-driver": "journald",
            "insecure-registries": ["registry.example:5000"],
        }))
        .unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&merged).unwrap());
    }

    #[test]
    fn a_driver_of_the_users_is_kept_alone() {
        let merged = merge(&json!({ "exec-opts": ["native.cgroupdriver=systemd"] })).unwrap();
        assert_eq!(merged["exec-opts"], json!(["native.cgroupdriver=systemd"]));
    }

    #[test]
    fn what_cannot_be_merged_is_refused() {
        for user in [
            json!({ "features": [] }),
            json!({ "exec-opts": "a=b" }),
            json!({ "data-root": "/x" }),
            json!({ "hosts": [] }),
        ] {
            assert!(merge(&user).is_err(), "{user}");
        }
    }

    #[test]
    fn proxies_on_the_hosts_loopback_are_reached_through_the_gateway() {
        for (url, seen) in [
            ("http://127.0.0.1:3128", "http://10.0.2.2:3128"),
            ("http://u:p@localhost:3128/", "http://u:p@10.0.2.2:3128/"),
            ("localhost:3128", "10.0.2.2:3128"),
            ("http://[::1]:3128", "http://10.0.2.2:3128"),
            ("http://127.1.2.3", "http://10.0.2.2"),
            ("http://proxy.example:1", "http://proxy.example:1"),
            ("http://localhost.example", "http://localhost.example"),
            ("http://x/?u=@localhost", "http://x/?u=@localhost"),
        ] {
            assert_eq!(off_loopback(url, GATEWAY.into()), seen, "{url}");
        }
        let defaults = DaemonDefaults::new(GATEWAY).proxies(Proxies {
            http: Some("http://localhost:1".to_owned()),
            ..Proxies::default()
        });
        let merged = daemon_json(&Map::new(), &defaults).unwrap();
        assert_eq!(
            merged["proxies"],
            json!({ "http-proxy": "http://10.0.2.2:1" })
        );
        let own = json!({ "proxies": { "https-proxy": "http://own" } });
        let merged = daemon_json(own.as_object().unwrap(), &defaults).unwrap();
        assert_eq!(merged["proxies"], own["proxies"]);
    }
}
