//! Commands through a real sshd.

use std::{io, time::Duration};

use colima_core::{Command, Guest as _};
use colima_net::ssh::{LARGEST_OUTPUT, SshConfig, SshError};

use crate::{sshd::Sshd, stream_bodies::pattern};

macro_rules! client {
    ($test:literal) => {
        match Sshd::new(concat!("ssh_commands::", $test), "") {
            Some(sshd) => sshd.client(SshConfig::default()),
            None => return,
        }
    };
}

fn shell(script: &str) -> Command {
    Command::new(["sh", "-c", script])
}

#[tokio::test]
async fn how_a_command_ended_and_what_it_printed() {
    let ssh = client!("how_a_command_ended_and_what_it_printed");
    let output = ssh.run(&shell("echo out; echo err >&2; exit 3")).await;
    let output = output.unwrap();
    assert_eq!(output.exit_code, 3);
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("USR1", 138)] {
        let script = format!("kill -{signal} $$; sleep 100");
        let output = ssh.run(&shell(&script)).await.unwrap();
        assert_eq!(output.exit_code, code, "{signal}");
    }
    let output = ssh.run(&Command::new(["true"])).await.unwrap();
    assert_eq!(output, colima_core::Output::default());
}

#[tokio::test]
async fn words_and_bytes_arrive_as_they_are() {
    let ssh = client!("words_and_bytes_arrive_as_they_are");
    let hostile = [
        "-n",
        "a b",
        "it's",
        "$(id)",
        "`id`",
        "\"",
        "",
        "new\nline",
        "\\",
        "*",
        "%s",
    ];
    let command = Command::new(["printf", "%s|"].into_iter().chain(hostile));
    let output = ssh.run(&command).await.unwrap();
    let expected: String = hostile.iter().map(|word| format!("{word}|")).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);

    // More than all windows and pipes hold, both ways.
    let bytes = pattern(8 << 20);
    let output = ssh.run(&Command::new(["cat"]).stdin(bytes.clone())).await;
    let output = output.unwrap();
    assert!(output.stdout == bytes);
    // A command that does not read what it is given.
    let output = ssh.run(&shell("exit 7").stdin(bytes)).await.unwrap();
    assert_eq!(output.exit_code, 7);
    // Both outputs at once.
    let script = "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait";
    let output = ssh.run(&shell(script)).await.unwrap();
    let lengths = (output.stdout.len(), output.stderr.len());
    assert_eq!(lengths, (3_000_000, 3_000_000));
}

#[tokio::test]
async fn what_cannot_be_run_is_an_error() {
    let ssh = client!("what_cannot_be_run_is_an_error");
    let error = ssh.run(&Command::new(["no such program"])).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().starts_with("\"no such program\" is no"));
    let error = ssh.run(&Command::default()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);

    let endless = ssh.command(&Command::new(["cat", "/dev/zero"])).await;
    let error = endless.unwrap_err();
    assert!(matches!(
        error,
        SshError::TooMuchOutput {
            limit: LARGEST_OUTPUT
        }
    ));
}

/// Whether a process with this word among its arguments exists; a zombie has none.
fn exists(word: &str) -> bool {
    let me = std::process::id().to_string();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        entry.file_name() != *me
            && std::fs::read(entry.path().join("cmdline")).is_ok_and(|arguments| {
                arguments
                    .split(|&byte| byte == 0)
                    .any(|argument| argument == word.as_bytes())
            })
    })
}

#[tokio::test]
async fn a_command_that_nobody_wants_is_killed_with_its_children() {
    let ssh = client!("a_command_that_nobody_wants_is_killed_with_its_children");
    let id = std::process::id();
    let words = [format!("100000.{id}"), format!("200000.{id}")];
    let script = format!(
        "trap '' TERM HUP PIPE; sleep {} & sleep {}",
        words[0], words[1]
    );
    {
        let running = ssh.clone();
        let running = tokio::spawn(async move { running.run(&shell(&script)).await });
        while !words.iter().all(|word| exists(word)) {
            assert!(!running.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.abort();
    }
    while words.iter().any(|word| exists(word)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let output = ssh.run(&Command::new(["true"])).await.unwrap();
    assert_eq!(output.exit_code, 0);
}

#[tokio::test]
async fn fifty_commands_at_once() {
    let ssh = client!("fifty_commands_at_once");
    let mut running = tokio::task::JoinSet::new();
    for i in 0..50_i32 {
        let ssh = ssh.clone();
        running.spawn(async move {
            let script = format!("cat; exit {i}");
            let output = ssh
                .run(&shell(&script).stdin(format!("{i}")))
                .await
                .unwrap();
            assert_eq!(output.exit_code, i);
            assert_eq!(output.stdout, i.to_string().as_bytes());
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}
