//! From what is wanted to shares: paths made absolute and resolved, conflicts and the guest's own places refused.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use colima_core::{
    config::{MountEntry, Mounts},
    mounts::{GuestMount, MOST_MOUNTS, MountAccess},
};

use super::Share;
use crate::command_error::{CommandError, ErrorKind};

/// What a plan has to know of the host and of the guest.
pub(crate) struct Surroundings<'a> {
    /// The user's home directory.
    pub(crate) home: Option<&'a Path>,
    /// Where a relative path counts from.
    pub(crate) current: Option<&'a Path>,
    /// Colima's second usual directory, if it is there to be shared.
    pub(crate) usual: Option<&'a Path>,
    /// The home directory of the guest's user.
    pub(crate) guest_home: &'a str,
    /// A directory without its links, or why it is none.
    pub(crate) resolve: &'a dyn Fn(&Path) -> io::Result<PathBuf>,
}

/// What the guest itself has at a path.
enum Place {
    /// The path and all below it are the guest's.
    Tree,
    /// The same, but what somebody has made below it is not.
    Itself,
}

/// Where a share would hide what the guest runs on. hier(7) and the image's own.
const OF_THE_GUEST: &[(&str, Place, &str)] = &[
    ("/bin", Place::Tree, "the guest's programs"),
    ("/boot", Place::Tree, "the guest's kernel"),
    ("/dev", Place::Tree, "the guest's devices"),
    ("/etc", Place::Tree, "the guest's configuration"),
    ("/lib", Place::Tree, "the guest's libraries"),
    ("/lib32", Place::Tree, "the guest's libraries"),
    ("/lib64", Place::Tree, "the guest's libraries"),
    ("/libx32", Place::Tree, "the guest's libraries"),
    ("/mnt/colima-data", Place::Tree, "the disk that survives"),
    ("/proc", Place::Tree, "the guest's kernel"),
    ("/run", Place::Tree, "the sockets of the guest's services"),
    ("/sbin", Place::Tree, "the guest's programs"),
    ("/sys", Place::Tree, "the guest's kernel"),
    ("/tmp", Place::Itself, "the guest's temporary files"),
    ("/usr", Place::Tree, "the guest's programs"),
    ("/var", Place::Tree, "the guest's services and containers"),
];

/// Places below those of the guest that it leaves to whoever wants them.
const FREE: &[&str] = &[
    "/usr/local",
    "/usr/src",
    "/var/folders", // where macOS has temporary directories
    "/var/tmp",
    "/var/www",
];

/// The shares that are wanted, parents before what lies in them, each with a port.
pub(crate) fn plan(
    mounts: &Mounts,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Share>, CommandError> {
    let usual;
    let entries = match mounts {
        Mounts::None => return Ok(Vec::new()),
        Mounts::These(entries) => entries.as_slice(),
        Mounts::Usual => {
            usual = usual_entries(surroundings);
            usual.as_slice()
        }
    };
    if entries.len() > MOST_MOUNTS {
        let what = format!("{} directories are to be shared", entries.len());
        return Err(CommandError::new(ErrorKind::Config, what)
            .because(format!("a machine has at most {MOST_MOUNTS}"))
            .hint("share a directory that holds several of them"));
    }
    let mut shares = Vec::new();
    for entry in entries {
        shares.push(share(entry, surroundings)?);
    }
    // A parent's path is a prefix of its children's, so it comes first.
    shares.sort_by(|one: &Share, other| one.guest.path.cmp(&other.guest.path));
    for pair in shares.windows(2) {
        if let [one, other] = pair
            && one.guest.path == other.guest.path
        {
            let path = &one.guest.path;
            let what = format!("two directories are to be {path} in the guest");
            return Err(CommandError::new(ErrorKind::Config, what)
                .because(format!("{} and {}", one.location, other.location))
                .hint("give one of them another mountPoint"));
        }
    }
    for (share, port) in shares.iter_mut().zip(1..) {
        share.guest.port = port;
    }
    Ok(shares)
}

fn usual_entries(surroundings: &Surroundings<'_>) -> Vec<MountEntry> {
    let entry = |path: &Path| {
        Some(MountEntry {
            location: path.to_str()?.to_owned(),
            mount_point: None,
            writable: true,
        })
    };
    let both = [surroundings.home, surroundings.usual];
    both.into_iter().flatten().filter_map(entry).collect()
}

/// One share; its port is still 0.
pub(crate) fn share(
    entry: &MountEntry,
    surroundings: &Surroundings<'_>,
) -> Result<Share, CommandError> {
    let wrong = |what: String| CommandError::new(ErrorKind::Config, what);
    let written = expanded(&entry.location, surroundings).ok_or_else(|| {
        wrong(format!("{:?} is no directory of this host", entry.location))
            .hint("write an absolute path, or one that begins with ~")
    })?;
    let resolved = (surroundings.resolve)(&written).map_err(|error| {
        let what = format!("{} cannot be shared", written.display());
        let hint = match error.kind() {
            io::ErrorKind::NotFound => format!("make it, or take it out: {}", remedy(entry)),
            _ => "only a directory can be shared".to_owned(),
        };
        wrong(what).caused_by(&error).hint(hint)
    })?;
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| {
            wrong(format!("{} cannot be shared", path.display()))
                .because("its path is no text in UTF-8; what lies below it may have any names")
        })
    };
    let path = match &entry.mount_point {
        Some(mount_point) => expanded(mount_point, surroundings)
            .filter(|_| mount_point.starts_with(['/', '~']))
            .ok_or_else(|| {
                wrong(format!("{mount_point:?} is no place in the guest"))
                    .hint("write an absolute path")
            })?,
        None => written,
    };
    let guest = GuestMount {
        port: 0,
        path: text(&path)?,
        access: match entry.writable {
            true => MountAccess::ReadWrite,
            false => MountAccess::ReadOnly,
        },
    };
    if let Some(why) = refusal(&guest.path, surroundings.guest_home) {
        let what = format!("nothing can be shared as {}", guest.path);
        return Err(wrong(what).because(why).hint(format!(
            "share it elsewhere: --mount {}:/mnt/shared",
            entry.location
        )));
    }
    Ok(Share {
        location: text(&resolved)?,
        guest,
    })
}

fn remedy(entry: &MountEntry) -> String {
    format!("the location {:?} of mounts", entry.location)
}

/// An absolute path without `.`, `..` and `~`, as far as text can tell.
fn expanded(text: &str, surroundings: &Surroundings<'_>) -> Option<PathBuf> {
    let path = match text.strip_prefix('~') {
        Some("") => surroundings.home?.to_owned(),
        Some(rest) => surroundings.home?.join(rest.strip_prefix('/')?),
        None if text.starts_with('/') => PathBuf::from(text),
        None if text.is_empty() => return None,
        None => surroundings.current?.join(text),
    };
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(clean)
}

/// Why the guest needs a path for itself.
fn refusal(path: &str, guest_home: &str) -> Option<String> {
    if path == "/" {
        return Some("it is everything that the guest has".to_owned());
    }
    let inside = |path: &str, of: &str| {
        path == of
            || path
                .strip_prefix(of)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    let home = (guest_home, Place::Tree, "the home directory of its user");
    for (place, kind, what) in OF_THE_GUEST.iter().chain([&home]) {
        // Over it, or over what holds it.
        if inside(place, path) {
            return Some(match *place == path {
                true => format!("it has {what}"),
                false => format!("{place} below it has {what}"),
            });
        }
        let free = FREE.iter().any(|free| inside(path, free));
        if matches!(kind, Place::Tree) && inside(path, place) && !free {
            return Some(format!("{place} has {what}"));
        }
    }
    None
}

#[cfg(test)]
mod tests;
