//! The account of the host's user, in the text of passwd(5), group(5) and shadow(5).
//!
//! [`with_user`] is idempotent and changes no line of another account except to add the user to
//! `sudo` and `docker`. Where the host's number already belongs to an account of the image, both keep
//! it and ours stands first, so that files show the user's name: moving a system account to another
//! number would orphan its files.

use colima_core::boot::User;

/// The three files, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFiles {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
    /// `/etc/shadow`.
    pub shadow: String,
}

/// Groups that make the user an administrator; those that the image does not have are left out.
const GROUPS: [&str; 3] = ["sudo", "docker", "adm"];

/// The files with an account for `user`.
#[must_use]
pub fn with_user(files: &AccountFiles, user: &User) -> AccountFiles {
    let User {
        name,
        uid,
        gid,
        home,
    } = user;
    let account = format!("{name}:x:{uid}:{gid}::{home}:/bin/bash");
    // No password opens the account, but unlike `!` it does not count as locked: keys do.
    let secret = format!("{name}:*:19000:0:99999:7:::");
    AccountFiles {
        passwd: with_account(&files.passwd, name, &account, *uid),
        group: with_groups(&files.group, user),
        shadow: with_line(&files.shadow, name, &secret),
    }
}

fn field(line: &str, index: usize) -> &str {
    line.split(':').nth(index).unwrap_or_default()
}

fn finish(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

/// Puts `account` before the first line of the same number, else at the end.
fn with_account(text: &str, name: &str, account: &str, uid: u32) -> String {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| field(line, 0) != name)
        .map(str::to_owned)
        .collect();
    let number = uid.to_string();
    let place = lines.iter().position(|line| field(line, 2) == number);
    lines.insert(place.unwrap_or(lines.len()), account.to_owned());
    finish(&lines)
}

/// Replaces the line of `name` or appends it.
fn with_line(text: &str, name: &str, wanted: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match lines.iter_mut().find(|line| field(line, 0) == name) {
        // A password that somebody set in the guest stays.
        Some(_) => {}
        None => lines.push(wanted.to_owned()),
    }
    finish(&lines)
}

fn with_groups(text: &str, user: &User) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let number = user.gid.to_string();
    if !lines.iter().any(|line| field(line, 2) == number) {
        let taken = |name: &str| lines.iter().any(|line| field(line, 0) == name);
        let mut name = user.name.clone();
        while taken(&name) {
            name.push_str("-host");
        }
        lines.push(format!("{name}:x:{number}:"));
    }
    for line in &mut lines {
        if GROUPS.contains(&field(line, 0)) {
            add_member(line, &user.name);
        }
    }
    finish(&lines)
}

fn add_member(line: &mut String, name: &str) {
    let members = field(line, 3);
    if members.split(',').any(|member| member == name) {
        return;
    }
    if !members.is_empty() {
        line.push(',');
    }
    line.push_str(name);
}

/// Whether a name and home can stand in these files and in a sudoers line.
///
/// The host has made the name valid already; this is the guest's own look at it, because a colon or
/// a line break here would be another account.
#[must_use]
pub fn is_valid(user: &User) -> bool {
    let name = &user.name;
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty()
        && name.len() <= 32
        && name != "root"
        && name.chars().all(letters)
        && !name.starts_with(['-', '.'])
        && name.chars().any(|c| !c.is_ascii_digit())
        && user.uid != 0
        && user.home.starts_with('/')
        && !user.home.contains([':', '\n', '\0'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image() -> AccountFiles {
        AccountFiles {
            passwd: "root:x:0:0:root:/root:/bin/bash\n\
                     backup:x:34:34:backup:/var/backups:/usr/sbin/nologin\n\
                     messagebus:x:501:501::/nonexistent:/usr/sbin/nologin\n"
                .into(),
            group: "root:x:0:\ndialout:x:20:\nsudo:x:27:\ndocker:x:101:other\nada:x:102:\n".into(),
            shadow: "root:*:19000:0:99999:7:::\n".into(),
        }
    }

    fn user(name: &str, uid: u32, gid: u32) -> User {
        User {
            name: name.into(),
            uid,
            gid,
            home: format!("/home/{name}"),
        }
    }

    fn shown(files: &AccountFiles) -> String {
        format!("{}--\n{}--\n{}", files.passwd, files.group, files.shadow)
    }

    #[test]
    fn an_ordinary_user() {
        insta::assert_snapshot!(shown(&with_user(&image(), &user("bob", 1000, 1000))));
    }

    #[test]
    fn numbers_and_names_that_are_taken() {
        // A Mac's 501:20, on an image that has both numbers and a group of the user's name.
        insta::assert_snapshot!(shown(&with_user(&image(), &user("ada", 501, 20))));
        insta::assert_snapshot!(shown(&with_user(&image(), &user("ada", 1000, 1000))));
    }

    #[test]
    fn a_host_user_who_got_another_number() {
        let before = with_user(&image(), &user("bob", 1000, 1000));
        let after = with_user(&before, &user("bob", 1001, 1001));
        assert_eq!(after.passwd.matches("\nbob:").count(), 1);
        assert!(after.passwd.contains("bob:x:1001:1001:"));
    }

    #[test]
    fn names_that_would_be_more_than_a_name() {
        for name in [
            "", "root", "a:b", "a\nb", "-x", "12", "a b", "a,b", "%wheel", "é",
        ] {
            assert!(!is_valid(&user(name, 1000, 1000)), "{name:?}");
        }
        assert!(!is_valid(&User {
            home: "/home/a:b".into(),
            ..user("a", 1, 1)
        }));
        assert!(!is_valid(&user("bob", 0, 0)));
        assert!(is_valid(&user("ada.l_1-x", 501, 20)));
    }

    proptest! {
        #[test]
        fn idempotent_and_harmless_to_others(
            name in "[a-z][a-z0-9_-]{0,12}",
            uid in 1..2000_u32,
            gid in 0..2000_u32,
        ) {
            let user = user(&name, uid, gid);
            let once = with_user(&image(), &user);
            prop_assert_eq!(&with_user(&once, &user), &once);
            for line in image().passwd.lines().filter(|line| field(line, 0) != name) {
                prop_assert!(once.passwd.lines().any(|kept| kept == line));
            }
            let number = uid.to_string();
            let first = once.passwd.lines().find(|line| field(line, 2) == number).unwrap();
            prop_assert_eq!(field(first, 0), &name);
            prop_assert_eq!(once.passwd.lines().filter(|line| field(line, 0) == name).count(), 1);
        }
    }
}
