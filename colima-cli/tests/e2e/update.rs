//! `colima update` against a package archive inside the guest, so that nothing depends on the network.

use super::world::{PROFILE, World};

/// Makes the next version of runc from the one that is installed: as Docker's own package would, it restarts
/// docker, which stops every container.
const NEXT_VERSION: &str = r#"
set -e
archive=/srv/archive package=/srv/package
mkdir -p $archive $package/DEBIAN $package/usr/sbin
cp /usr/sbin/runc $package/usr/sbin/
version=$(dpkg-query --show --showformat '${Version}+e2e' runc)
cat > $package/DEBIAN/control <<END
Package: runc
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: tests <tests@example.test>
Description: of the tests
END
printf '#!/bin/sh\nsystemctl restart docker.service\n' > $package/DEBIAN/postinst
chmod 755 $package/DEBIAN/postinst
dpkg-deb --build -Znone $package $archive/runc.deb >/dev/null
cd $archive
{
    cat $package/DEBIAN/control
    echo "Filename: ./runc.deb"
    echo "Size: $(stat -c %s runc.deb)"
    echo "SHA256: $(sha256sum runc.deb | cut -d' ' -f1)"
} > Packages
echo "deb [trusted=yes] file:$archive ./" > /etc/apt/sources.list
rm -rf $package
"#;

pub(crate) fn containers_run_again(world: &World) {
    world.machine_runs();
    world.guest(PROFILE, NEXT_VERSION);
    world.idle_container("survivor");
    let started = |world: &World| {
        let format = [
            "inspect",
            "--format",
            "{{.State.StartedAt}} {{.State.Running}}",
            "survivor",
        ];
        world.docker(format).ok().text().to_owned()
    };
    let before = started(world);
    let updated = world.colima(["update"]).ok();
    assert!(updated.text().starts_with("runc: "), "{updated}");
    assert!(updated.text().ends_with("+e2e"), "{updated}");
    assert_eq!(updated.text().lines().count(), 1, "{updated}");
    let after = started(world);
    assert_ne!(
        after, before,
        "docker was not restarted: this shows nothing"
    );
    assert!(after.ends_with(" true"), "{after}");
    assert_eq!(
        world.colima(["status", "--json"]).ok().json()["state"],
        "running"
    );
    let again = world.colima(["update"]).ok();
    assert_eq!(again.text(), "");
    assert!(again.complaint().contains("nothing is newer"), "{again}");
    world.docker(["rm", "--force", "survivor"]).ok();
}

pub(crate) fn without_an_archive_it_says_why(world: &World) {
    world.machine_runs();
    let gone = "echo 'deb [trusted=yes] file:/nonexistent ./' > /etc/apt/sources.list";
    world.guest(PROFILE, gone);
    let failed = world.colima(["update"]).exits(1);
    assert!(
        failed.complaint().contains("could not be fetched"),
        "{failed}"
    );
    assert!(
        failed.complaint().contains("caused by: guest: "),
        "{failed}"
    );
}
