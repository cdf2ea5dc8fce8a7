//! What the guest is told, as far as a person can change it: a running guest is told nothing new.

use std::{collections::BTreeMap, net::IpAddr};

use colima_core::boot::{BootConfig, Provision};
use colima_vm::image::Digest;
use serde::{Deserialize, Serialize};

/// What a person has a say in of a guest's [`BootConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestSettings {
    /// See [`BootConfig::host_name`].
    pub host_name: String,
    /// See [`BootConfig::env`].
    pub env: BTreeMap<String, String>,
    /// See [`BootConfig::docker_daemon_json`].
    pub docker: String,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// See [`BootConfig::hosts`].
    pub hosts: BTreeMap<String, IpAddr>,
    /// Digest of [`BootConfig::certificates`] and [`BootConfig::registry_files`]: private keys are in there.
    #[serde(default)]
    pub certificates: String,
    /// See [`BootConfig::provision`].
    pub provision: Vec<Provision>,
}

impl GuestSettings {
    /// What `boot` tells.
    #[must_use]
    pub fn of(boot: &BootConfig) -> Self {
        Self {
            host_name: boot.host_name.clone(),
            env: boot.env.clone(),
            docker: boot.docker_daemon_json.clone(),
            dns: boot.network.dns.clone(),
            hosts: boot.hosts.clone(),
            certificates: certificates(boot),
            provision: boot.provision.clone(),
        }
    }

    /// Names of the settings in which `wanted` differs.
    #[must_use]
    pub fn differing(&self, wanted: &Self) -> Vec<String> {
        [
            ("hostname", self.host_name != wanted.host_name),
            ("env", self.env != wanted.env),
            ("docker", self.docker != wanted.docker),
            ("dns", self.dns != wanted.dns),
            ("dns-host", self.hosts != wanted.hosts),
            ("certificates", self.certificates != wanted.certificates),
            ("provision", self.provision != wanted.provision),
        ]
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| name.to_owned())
        .collect()
    }
}

/// Empty where there are none.
fn certificates(boot: &BootConfig) -> String {
    if boot.certificates.is_empty() && boot.registry_files.is_empty() {
        return String::new();
    }
    // Plain data with text keys: there is nothing in it that JSON cannot carry.
    let all = serde_json::to_vec(&(&boot.certificates, &boot.registry_files)).unwrap_or_default();
    Digest::of(all).to_string()
}

#[cfg(test)]
mod tests {
    use colima_core::boot::{Certificate, User};

    use super::*;

    #[test]
    fn what_differs_is_named() {
        let boot = BootConfig::new("colima", User::first("ada"));
        let running = GuestSettings::of(&boot);
        assert_eq!(running.differing(&running), [""; 0]);
        let mut wanted = boot;
        wanted.host_name = "box".to_owned();
        wanted.clock_unix_nanos = 7; // differs at every start
        wanted.network.dns.clear();
        wanted.certificates.push(Certificate {
            name: "ca".to_owned(),
            pem: String::new(),
        });
        let wanted = GuestSettings::of(&wanted);
        assert_eq!(
            running.differing(&wanted),
            ["hostname", "dns", "certificates"]
        );
    }
}
