//! The `sftp` of OpenSSH against our server.

use std::{path::Path, process::Stdio};

use colima_mount::{Access, Root, Server};

use crate::peers;

const PROGRAM: &str = "/usr/bin/sftp";

/// A program that joins its standard streams to a port: what `sftp -D` starts as its server.
fn joiner(directory: &Path, port: u16) -> std::path::PathBuf {
    let path = directory.join("joiner");
    let text = format!("exec 3<>/dev/tcp/127.0.0.1/{port}\ncat <&3 &\ncat >&3\nkill $!\n");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_sftp_program_copies_lists_and_renames() {
    if !Path::new(PROGRAM).exists() || !Path::new("/bin/bash").exists() {
        println!("skipped: the_sftp_program_copies_lists_and_renames: no {PROGRAM} or bash");
        return;
    }
    let (share, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let big: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(here.path().join("big"), &big).unwrap();
    std::fs::write(here.path().join("with space"), b"small").unwrap();
    peers::runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let joiner = joiner(here.path(), listener.local_addr().unwrap().port());
        let server = Server::new(Root::open(share.path()).unwrap(), Access::ReadWrite);
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            server.serve(stream).await.unwrap();
        });
        let script = "mkdir a\nmkdir a/b\nput big a/b/big\nput \"with space\"\ncd a/b\n\
            rename big bigger\nln -s bigger link\nln bigger second\nchmod 600 bigger\nls -l\n\
            get bigger back\ncd ..\nls -la b\npwd\nrm b/second\ncd ../../../../..\npwd\n\
            df\n-reput big a/b/bigger\n-get /etc/passwd stolen\n-ls ../../../../../../../etc\n";
        std::fs::write(here.path().join("script"), script).unwrap();
        let run = tokio::process::Command::new(PROGRAM)
            .arg("-b")
            .arg("script")
            .arg("-D")
            .arg(format!("/bin/bash {}", joiner.display()))
            .current_dir(here.path())
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(std::time::Duration::from_secs(60), run);
        let output = output.await.expect("an end").unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("Remote working directory: /a"), "{text}");
        assert!(text.contains("Remote working directory: /\n"), "{text}");
        assert!(text.contains("-rw-------"), "{text}");
        assert!(!text.contains(share.path().to_str().unwrap()), "{text}");
        assert_eq!(std::fs::read(here.path().join("back")).unwrap(), big);
        assert_eq!(std::fs::read(share.path().join("a/b/bigger")).unwrap(), big);
        assert_eq!(
            std::fs::read(share.path().join("with space")).unwrap(),
            b"small"
        );
        assert_eq!(
            std::fs::read_link(share.path().join("a/b/link")).unwrap(),
            Path::new("bigger")
        );
        assert!(!share.path().join("a/b/second").exists());
        assert!(!here.path().join("stolen").exists());
    });
}
