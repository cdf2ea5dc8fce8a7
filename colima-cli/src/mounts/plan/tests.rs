use super::*;

fn entry(text: &str) -> MountEntry {
    text.parse().unwrap()
}

/// Every path is a directory but for a few.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.to_str().unwrap() {
        "/home/ada/link" => Ok("/data/real".into()),
        "/home/ada/missing" => Err(io::ErrorKind::NotFound.into()),
        "/home/ada/file" => Err(io::ErrorKind::NotADirectory.into()),
        _ => Ok(path.to_owned()),
    }
}

fn planned(mounts: &Mounts) -> Result<Vec<Share>, CommandError> {
    plan(
        mounts,
        &Surroundings {
            home: Some(Path::new("/home/ada")),
            current: Some(Path::new("/home/ada/work")),
            usual: Some(Path::new("/tmp/colima")),
            guest_home: "/home/ada.guest",
            resolve: &resolve,
        },
    )
}

fn these(texts: &[&str]) -> Mounts {
    Mounts::These(texts.iter().map(|text| entry(text)).collect())
}

fn shown(texts: &[&str]) -> Vec<String> {
    let shares = planned(&these(texts)).unwrap();
    shares
        .iter()
        .map(|share| {
            let GuestMount { port, path, access } = &share.guest;
            format!("{port} {} {path} {access:?}", share.location)
        })
        .collect()
}

fn refused(text: &str) -> String {
    planned(&these(&[text])).unwrap_err().to_string()
}

#[test]
fn what_is_usual() {
    let paths = |mounts| -> Vec<String> {
        let shares = planned(&mounts).unwrap();
        shares.into_iter().map(|share| share.guest.path).collect()
    };
    assert_eq!(paths(Mounts::Usual), ["/home/ada", "/tmp/colima"]);
    assert!(paths(Mounts::None).is_empty());
}

#[test]
fn paths_are_made_absolute_and_locations_resolved() {
    assert_eq!(
        shown(&[
            "~/a b/../c:w",
            "/srv/$x,\"y\"",
            "~/link",
            ".:/here",
            "/root:w"
        ]),
        [
            "1 /home/ada/work /here ReadOnly",
            "2 /home/ada/c /home/ada/c ReadWrite",
            "3 /data/real /home/ada/link ReadOnly",
            "4 /root /root ReadWrite",
            "5 /srv/$x,\"y\" /srv/$x,\"y\" ReadOnly",
        ]
    );
}

#[test]
fn parents_come_before_what_lies_in_them() {
    assert_eq!(
        shown(&["/a/b/c", "/a-b", "/a/b:w", "/a"]),
        [
            "1 /a /a ReadOnly",
            "2 /a-b /a-b ReadOnly",
            "3 /a/b /a/b ReadWrite",
            "4 /a/b/c /a/b/c ReadOnly",
        ]
    );
}

#[test]
fn what_is_the_guests_is_refused() {
    for path in [
        "/",
        "/bin",
        "/usr",
        "/usr/bin",
        "/usr/share/x",
        "/etc",
        "/etc/ssl",
        "/var",
        "/var/lib/docker",
        "/run",
        "/run/user",
        "/proc",
        "/sys/fs",
        "/dev/shm",
        "/tmp",
        "/mnt",
        "/mnt/colima-data",
        "/home",
        "/home/ada.guest",
        "/home/ada.guest/.ssh",
    ] {
        let said = refused(&format!("/data:{path}"));
        assert!(said.contains(&format!("shared as {path}")), "{said}");
    }
    for path in [
        "/home/ada",
        "/root",
        "/tmp/colima",
        "/mnt/x",
        "/usr/local/src",
        "/var/www",
        "/var/folders/zz",
        "/usrlocal",
        "/opt",
        "/Users/ada",
    ] {
        assert!(
            planned(&these(&[&format!("/data:{path}")])).is_ok(),
            "{path}"
        );
    }
}

#[test]
fn what_is_said_about_mistakes() {
    insta::assert_snapshot!(refused("/etc:w"));
    insta::assert_snapshot!(refused("/home"));
    insta::assert_snapshot!(refused("~/missing"));
    insta::assert_snapshot!(refused("~/file"));
    insta::assert_snapshot!(refused("~bob/x"));
    let twice = planned(&these(&["/a:/x", "/b:/x"])).unwrap_err();
    insta::assert_snapshot!(twice.to_string());
    let many: Vec<String> = (0..16).map(|n| format!("/m{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    insta::assert_snapshot!(planned(&these(&many)).unwrap_err().to_string());
}
