//! The account in the guest that mirrors the host's user.

use colima_core::boot::User;

use crate::environment::HostUser;

/// The number a host's root gets in the guest, where it is an ordinary user.
const FIRST_ORDINARY_ID: u32 = 1000;

/// The guest's account for `host`: the same name and numbers wherever a guest can have them.
///
/// A name that Debian's `useradd` would not take is made valid, root becomes the ordinary user
/// `colima`, and the home directory is not the host's path, so that a share of the host's home never
/// hides the guest's own.
#[must_use]
pub fn mirror(host: &HostUser) -> User {
    let name = if host.uid == 0 {
        "colima".to_owned()
    } else {
        valid_name(&host.name)
    };
    let ordinary = |id: u32| if id == 0 { FIRST_ORDINARY_ID } else { id };
    User {
        home: format!("/home/{name}.guest"),
        name,
        uid: ordinary(host.uid),
        gid: ordinary(host.gid),
    }
}

/// useradd(8): lower case letters, digits, `_` and `-`, beginning with a letter or `_`, at most 32.
fn valid_name(name: &str) -> String {
    let mut valid: String = name
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(32)
        .collect();
    if !valid.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') {
        valid.insert_str(0, "user_");
        valid.truncate(32);
    }
    // Accounts that every Debian guest already has for something else.
    if RESERVED.contains(&valid.as_str()) {
        valid.push_str("_host");
    }
    valid
}

const RESERVED: [&str; 21] = [
    "root",
    "daemon",
    "bin",
    "sys",
    "sync",
    "games",
    "man",
    "lp",
    "mail",
    "news",
    "uucp",
    "proxy",
    "www-data",
    "backup",
    "list",
    "irc",
    "nobody",
    "_apt",
    "sshd",
    "docker",
    "messagebus",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32) -> User {
        mirror(&HostUser {
            name: name.to_owned(),
            uid,
            gid: uid,
        })
    }

    #[test]
    fn an_ordinary_user_keeps_name_and_number() {
        let ada = user("ada", 1234);
        assert_eq!((ada.name.as_str(), ada.uid, ada.gid), ("ada", 1234, 1234));
        assert_eq!(ada.home, "/home/ada.guest");
    }

    #[test]
    fn root_becomes_an_ordinary_user() {
        let root = user("root", 0);
        assert_eq!(
            (root.name.as_str(), root.uid, root.gid),
            ("colima", 1000, 1000)
        );
    }

    #[test]
    fn names_a_guest_cannot_have_are_made_valid() {
        assert_eq!(user("Ada.Lovelace", 1).name, "ada_lovelace");
        assert_eq!(user("DOMAIN\\ada", 1).name, "domain_ada");
        assert_eq!(user("7of9", 1).name, "user_7of9");
        assert_eq!(user("", 1).name, "user_");
        assert_eq!(user("-x\n:", 1).name, "user_-x__");
        assert_eq!(user("docker", 1).name, "docker_host");
        assert!(user(&"y".repeat(80), 1).name.len() <= 32);
    }
}
