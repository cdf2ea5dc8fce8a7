//! Whether docker will start containers by itself: it writes down which, one file per container.

use std::{fs, path::Path};

use crate::guest_files::Restarting;

/// Looks at every container on the data disk; one that cannot be understood counts as one that is started.
pub(super) fn look(sysroot: &Path) -> Restarting {
    let containers = fs::read_dir(sysroot.join("var/lib/docker/containers"));
    let starts = containers.into_iter().flatten().flatten().any(|container| {
        fs::read(container.path().join("hostconfig.json")).is_ok_and(|text| is_started(&text))
    });
    match starts {
        true => Restarting::Some,
        false => Restarting::None,
    }
}

/// `RestartPolicy.Name` of docker's API: empty or `no` is none.
fn is_started(host_config: &[u8]) -> bool {
    let Ok(config) = serde_json::from_slice::<serde_json::Value>(host_config) else {
        return true;
    };
    !matches!(config["RestartPolicy"]["Name"].as_str(), Some("" | "no"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        for (text, started) in [
            (
                r#"{"RestartPolicy":{"Name":"no","MaximumRetryCount":0}}"#,
                false,
            ),
            (r#"{"RestartPolicy":{"Name":""}}"#, false),
            (r#"{"RestartPolicy":{"Name":"always"}}"#, true),
            (r#"{"RestartPolicy":{"Name":"unless-stopped"}}"#, true),
            ("{}", true),
            ("{", true),
        ] {
            assert_eq!(is_started(text.as_bytes()), started, "{text}");
        }
    }

    #[test]
    fn containers_on_a_disk() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(look(root.path()), Restarting::None);
        let container = |name: &str, policy: &str| {
            let directory = root.path().join("var/lib/docker/containers").join(name);
            fs::create_dir_all(&directory).unwrap();
            let text = format!(r#"{{"RestartPolicy":{{"Name":"{policy}"}}}}"#);
            fs::write(directory.join("hostconfig.json"), text).unwrap();
        };
        container("a", "no");
        assert_eq!(look(root.path()), Restarting::None);
        container("b", "always");
        assert_eq!(look(root.path()), Restarting::Some);
    }
}
