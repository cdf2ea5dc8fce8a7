//! What people read when a `colima.yaml` is wrong.

use colima_core::config::ConfigFile;

fn said(text: &str) -> String {
    ConfigFile::parse(text).unwrap_err().lines().join("\n")
}

#[test]
fn every_problem_is_named_at_once() {
    insta::assert_snapshot!(said(
        "cpus: 4
memory: lots
disk: -1
rootDisk: [20]
arch: sparc
runtime: {}
autoActivate: maybe
env: [A, B]
docker: on
network:
  dnsHost: {}
  dns: [1.1.1.1]
mounts:
  - location: ~/src
    writeable: true
provision: yes
flavour: vanilla
"
    ));
}

#[test]
fn syntax() {
    insta::assert_snapshot!(
        [
            "cpu: [1\n",
            "cpu: 1\ncpu: 2\n",
            "cpu: 1\n---\ncpu: 2\n",
            "cpu: 1\n  memory: 2\n",
            "- cpu\n",
            "memory: .inf\n",
            "cpu: *missing\n",
        ]
        .map(|text| format!("{text:?}\n  {}", said(text)))
        .join("\n")
    );
}
