//! Whom the guest trusts beyond what its image does, and what docker shows to registries.
//!
//! Both are as the host says at every boot, so that what is taken away there is gone here.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use colima_core::boot::{BootConfig, Certificate, RegistryFile};

use super::{
    files::{make_directory, write, write_block},
    in_root,
};
use crate::GuestError;

/// Where Debian's update-ca-certificates(8) looks for further authorities.
const AUTHORITIES: &str = "/usr/local/share/ca-certificates/colima";

/// What that program writes, and what nearly everything reads.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Docker's directory of registries.
const REGISTRIES: &str = "/etc/docker/certs.d";

/// Where our part of it is; it goes with the boot.
const OURS: &str = "/run/colima/registries";

/// Writes both.
pub(super) fn configure(sysroot: &Path, config: &BootConfig) -> Result<(), GuestError> {
    trust(sysroot, &config.certificates)?;
    registries(sysroot, &config.registry_files)
}

fn trust(sysroot: &Path, certificates: &[Certificate]) -> Result<(), GuestError> {
    let directory = in_root(sysroot, AUTHORITIES);
    let stale = entries(&directory)?.into_iter().filter(|path| {
        !certificates
            .iter()
            .any(|one| path.ends_with(file_name(one)))
    });
    for path in stale {
        remove(&path)?;
    }
    let mut bundle = String::new();
    for certificate in certificates.iter().filter(|one| is_name(&one.name)) {
        make_directory(&directory, 0o755)?;
        let path = directory.join(file_name(certificate));
        write(&path, certificate.pem.as_bytes(), 0o644)?;
        bundle.push_str(certificate.pem.trim_end());
        bundle.push('\n');
    }
    let path = in_root(sysroot, BUNDLE);
    // An image without authorities has no file either.
    match bundle.is_empty() && !path.exists() {
        true => Ok(()),
        false => write_block(&path, &bundle),
    }
}

fn file_name(certificate: &Certificate) -> String {
    format!("{}.crt", certificate.name)
}

/// A registry that somebody put into the guest himself stays, and is not mixed with the host's.
fn registries(sysroot: &Path, files: &[RegistryFile]) -> Result<(), GuestError> {
    let directory = in_root(sysroot, REGISTRIES);
    for path in entries(&directory)? {
        if fs::read_link(&path).is_ok_and(|target| target.starts_with(OURS)) {
            remove(&path)?;
        }
    }
    let right = |file: &&RegistryFile| is_name(&file.registry) && is_name(&file.name);
    for file in files.iter().filter(right) {
        let ours = Path::new(OURS).join(&file.registry);
        let place = in_root(sysroot, &ours.to_string_lossy());
        make_directory(&place, 0o700)?;
        write(&place.join(&file.name), file.text.as_bytes(), 0o600)?;
        make_directory(&directory, 0o755)?;
        let link = directory.join(&file.registry);
        match symlink(&ours, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(GuestError::WriteFile {
                    path: link,
                    source: error,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// One component of a path, and none that leads elsewhere.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0', '\n'])
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, GuestError> {
    let failed = |source| GuestError::ReadFile {
        path: directory.to_owned(),
        source,
    };
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn remove(path: &Path) -> Result<(), GuestError> {
    fs::remove_file(path).map_err(|source| GuestError::WriteFile {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use colima_core::boot::User;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = entries(directory)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_the_host_takes_away_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| in_root(root.path(), path);
        let bundle = at(BUNDLE);
        fs::create_dir_all(bundle.parent().unwrap()).unwrap();
        fs::write(&bundle, "DEBIAN\n").unwrap();
        fs::create_dir_all(at(REGISTRIES).join("own:5000")).unwrap();
        let mut config = BootConfig::new("colima", User::first("ada"));
        let certificate = |name: &str| Certificate {
            name: name.to_owned(),
            pem: format!("PEM {name}"),
        };
        let file = |registry: &str, name: &str| RegistryFile {
            registry: registry.to_owned(),
            name: name.to_owned(),
            text: name.to_owned(),
        };
        config.certificates = ["one", "two", "../three"].map(certificate).into();
        config.registry_files = [
            file("r:5000", "ca.crt"),
            file("r:5000", "client.key"),
            file("..", "ca.crt"),
            file("own:5000", "ca.crt"),
        ]
        .into();
        configure(root.path(), &config).unwrap();
        configure(root.path(), &config).unwrap();
        assert_eq!(names(&at(AUTHORITIES)), ["one.crt", "two.crt"]);
        let text = fs::read_to_string(&bundle).unwrap();
        assert!(
            text.starts_with("DEBIAN\n") && text.contains("PEM one\nPEM two\n"),
            "{text}"
        );
        assert_eq!(names(&at(REGISTRIES)), ["own:5000", "r:5000"]);
        assert_eq!(names(&at(OURS).join("r:5000")), ["ca.crt", "client.key"]);
        assert_eq!(names(&at(REGISTRIES).join("own:5000")), [""; 0]);
        config.certificates.truncate(1);
        config.registry_files.clear();
        configure(root.path(), &config).unwrap();
        assert_eq!(names(&at(AUTHORITIES)), ["one.crt"]);
        assert!(!fs::read_to_string(&bundle).unwrap().contains("PEM two"));
        assert_eq!(names(&at(REGISTRIES)), ["own:5000"]);
        config.certificates.clear();
        configure(root.path(), &config).unwrap();
        assert_eq!(fs::read_to_string(&bundle).unwrap(), "DEBIAN\n");
    }
}
