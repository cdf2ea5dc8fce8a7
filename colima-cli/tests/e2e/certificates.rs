//! Registries with certificates of authorities that nobody else knows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    command::{PATIENCE, Run},
    images::Registry,
    world::{IMAGE, PROFILE, World},
};

/// Ports of three registries, each with a certificate for the host as the guest names it.
pub(crate) struct Authorities {
    /// By the authority that `certificates` of `colima.yaml` names.
    pub(crate) trusted_by_all: u16,
    /// By the one that docker's directory of registries has for this port.
    pub(crate) trusted_by_docker: u16,
    /// By the same, which for this port nobody trusts.
    pub(crate) trusted_by_none: u16,
}

const HOST: &str = "10.0.2.2";

impl Authorities {
    /// Makes authorities and certificates before the first start; the file with the authority for everybody.
    pub(crate) fn prepare(&self, world: &World) -> PathBuf {
        for authority in ["all", "docker"] {
            issue(&world.scratch, authority);
        }
        let registries = world.docker_config.join("certs.d");
        // Of the run before this one: its port was another.
        let _ = fs::remove_dir_all(&registries);
        let registry = registries.join(format!("{HOST}:{}", self.trusted_by_docker));
        fs::create_dir_all(&registry).expect("docker's directory can be written");
        fs::copy(world.scratch.join("docker-ca.pem"), registry.join("ca.crt")).expect("just made");
        world.scratch.join("all-ca.pem")
    }
}

/// An authority, and a certificate of it.
fn issue(directory: &Path, name: &str) {
    let script = format!(
        "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN={name} CA' \
            -keyout {name}-ca.key -out {name}-ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={HOST} \
            -keyout {name}.key -out {name}.csr
        echo subjectAltName=IP:{HOST} > {name}.ext
        openssl x509 -req -days 2 -in {name}.csr -CA {name}-ca.pem -CAkey {name}-ca.key -CAcreateserial \
            -extfile {name}.ext -out {name}.pem"
    );
    Run::new("sh")
        .args(["-c", &script])
        .directory(directory)
        .ok();
}

pub(crate) fn registries_of_private_authorities(world: &World) {
    world.machine_runs();
    let file = |name: &str| world.scratch.join(name);
    let ports = &world.certificates;
    let push = |port: u16, authority: &str| {
        let (certificate, key) = (
            file(&format!("{authority}.pem")),
            file(&format!("{authority}.key")),
        );
        let registry = Registry::start(world, port, Some([&certificate, &key]));
        let name = format!("{HOST}:{port}/e2e/tls:1");
        world.docker(["tag", IMAGE, &name]).ok();
        let pushed = world
            .docker(["push", "--quiet", &name])
            .limit(2 * PATIENCE)
            .finish();
        if pushed.status.success() {
            world.docker(["rmi", &name]).ok();
            world
                .docker(["pull", "--quiet", &name])
                .limit(2 * PATIENCE)
                .ok();
        }
        world.docker(["rmi", &name]).ok();
        drop(registry);
        pushed
    };
    let all = push(ports.trusted_by_all, "all");
    assert!(all.status.success(), "{all}");
    let docker = push(ports.trusted_by_docker, "docker");
    assert!(docker.status.success(), "{docker}");
    let none = push(ports.trusted_by_none, "docker");
    assert!(!none.status.success(), "{none}");
    assert!(none.complaint().contains("x509"), "{none}");
    // Not docker alone.
    let authority = fs::read_to_string(file("all-ca.pem")).expect("made before the start");
    let bundle = world.guest(PROFILE, "cat /etc/ssl/certs/ca-certificates.crt");
    assert!(
        bundle.contains(authority.trim()),
        "not in the machine's bundle"
    );
}
