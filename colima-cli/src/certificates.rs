//! Certificates of the host for the guest: those that the configuration names, and docker's own directory of
//! registries.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use colima_core::boot::{Certificate, RegistryFile};

use crate::command_error::{CommandError, ErrorKind};

/// The largest file that is taken along; all authorities of a distribution are a quarter of that.
const LARGEST: u64 = 1 << 20;

/// What PEM text of a certificate has in it (RFC 7468, 5.1).
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The certificates in these files, and in the `*.crt` and `*.pem` of these directories.
///
/// # Errors
///
/// One cannot be read, or holds no certificate.
pub fn authorities(places: &[String]) -> Result<Vec<Certificate>, CommandError> {
    let mut certificates: Vec<Certificate> = Vec::new();
    for place in places {
        let place = Path::new(place);
        let files = match place.is_dir() {
            true => sorted(place).map_err(|error| failed(place, &error))?,
            false => vec![place.to_owned()],
        };
        let of_directory = |path: &&PathBuf| {
            !place.is_dir()
                || path
                    .extension()
                    .is_some_and(|end| end == "crt" || end == "pem")
        };
        for path in files.iter().filter(of_directory) {
            let pem = text(path).map_err(|error| failed(path, &error))?;
            if !pem.contains(BEGIN) {
                let what = format!("{} holds no certificate", path.display());
                return Err(CommandError::new(ErrorKind::Config, what)
                    .because(format!("there is no line {BEGIN}"))
                    .hint("certificates are text in PEM: openssl x509 -inform DER -in FILE"));
            }
            // Two files of one name are two.
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = format!("{:03}-{}", certificates.len() + 1, plain(&stem));
            certificates.push(Certificate { name, pem });
        }
    }
    Ok(certificates)
}

/// Docker's files for registries below `directory`: those that end as docker(1) reads them.
///
/// # Errors
///
/// One cannot be read. There being none is well.
pub fn registries(directory: &Path) -> Result<Vec<RegistryFile>, CommandError> {
    let mut files = Vec::new();
    let below = match sorted(directory) {
        Ok(below) => below,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(failed(directory, &error)),
    };
    for registry in below.iter().filter(|path| path.is_dir()) {
        for path in sorted(registry).map_err(|error| failed(registry, &error))? {
            let known = ["crt", "cert", "key"];
            let (Some(name), Some(host)) = (utf8(&path), utf8(registry)) else {
                continue;
            };
            if path.is_file()
                && path
                    .extension()
                    .is_some_and(|end| known.iter().any(|known| end == *known))
            {
                files.push(RegistryFile {
                    registry: host,
                    name,
                    text: text(&path).map_err(|error| failed(&path, &error))?,
                });
            }
        }
    }
    Ok(files)
}

fn utf8(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

/// A name that is one file name anywhere.
fn plain(stem: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
        true => c,
        false => '_',
    };
    stem.chars().map(plain).take(64).collect()
}

fn sorted(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LARGEST {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(text),
    }
}

fn failed(path: &Path, error: &io::Error) -> CommandError {
    let what = format!("cannot take {} into the machine", path.display());
    CommandError::new(ErrorKind::Config, what)
        .caused_by(error)
        .hint("correct the path, or leave it out: colima start --edit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_and_people_keep() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let pem = format!("{BEGIN}\nx\n");
        let one = write("one ca.pem", &pem);
        write("more/b.crt", &pem);
        write("more/a.pem", &pem);
        write("more/README", "no");
        let more = root.path().join("more").to_str().unwrap().to_owned();
        let names = |found: Vec<Certificate>| -> Vec<String> {
            found
                .into_iter()
                .map(|certificate| certificate.name)
                .collect()
        };
        let found = authorities(&[one, more]).unwrap();
        assert_eq!(names(found), ["001-one_ca", "002-a", "003-b"]);
        let der = write("der.crt", "\u{30}");
        let error = authorities(&[der]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(authorities(&["/nonexistent".to_owned()]).is_err());

        for file in ["ca.crt", "client.key", "client.cert", "notes.txt"] {
            write(&format!("certs.d/r:5000/{file}"), file);
        }
        write("certs.d/stray.crt", "no");
        let found = registries(&root.path().join("certs.d")).unwrap();
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|file| (file.registry.as_str(), file.name.as_str()))
            .collect();
        let expected = ["ca.crt", "client.cert", "client.key"].map(|name| ("r:5000", name));
        assert_eq!(found, expected);
        assert_eq!(registries(Path::new("/nonexistent")).unwrap(), []);
    }
}
