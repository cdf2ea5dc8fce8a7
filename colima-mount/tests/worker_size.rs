//! What a server takes of its host: memory, descriptors.

use std::fs;

use colima_mount::{
    Access, Client,
    server::confine::Wall,
    sftp::{Attributes, OpenFlags, Reply, Request},
};

use crate::{peers, worker::Worker};

/// KiB of memory of a process, by a field of its status.
fn memory(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.unwrap().trim_start_matches(':').trim();
    number.strip_suffix(" kB").unwrap().parse().unwrap()
}

/// The confined process is a child of the one that was started.
fn only_child(process: u32) -> u32 {
    // The thread of a test has it.
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().unwrap();
        }
    }
    panic!("{process} has no child");
}

#[test]
fn ten_thousand_open_files_take_less_than_32_mib() {
    const TEST: &str = "ten_thousand_open_files_take_less_than_32_mib";
    const FILES: usize = 10_000;

    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let missing = if !rustix::process::geteuid().is_root() {
        Some("needs root, to be another user")
    } else if most.is_some_and(|most| most < FILES as u64 + 512) {
        Some("this process may not have so many descriptors")
    } else {
        None
    };
    if let Some(missing) = missing {
        println!("skipped: {TEST}: {missing}");
        return;
    }
    let share = tempfile::tempdir().unwrap();
    for number in 0..100 {
        fs::write(
            share.path().join(format!("a file with a name {number}")),
            "content",
        )
        .unwrap();
    }
    let worker = Worker::default().behind(Wall::Namespace);
    peers::runtime().block_on(async {
        let (stream, mut child) = worker.spawn("worker::serves", share.path(), Access::ReadWrite);
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let client = Client::connect(stream).await.unwrap();
        let mut files = Vec::new();
        for number in 0..FILES {
            let name = format!("a file with a name {}", number % 100);
            files.push(
                client
                    .open(name.as_bytes(), OpenFlags::READ, None)
                    .await
                    .unwrap(),
            );
            assert_eq!(files[number].read_at(0, 100).await.unwrap(), "content");
        }
        let server = only_child(child.id());
        let open = fs::read_dir(format!("/proc/{server}/fd")).unwrap().count();
        assert!(open >= FILES, "{open} descriptors");
        // As much as a client can have in flight, of what is largest.
        let file = fs::File::create(share.path().join("large")).unwrap();
        file.set_len(64 << 20).unwrap();
        let large = Request::Open {
            path: "large".into(),
            flags: OpenFlags::READ,
            attributes: Attributes::default(),
        };
        // In the place of one of the others.
        drop(files.pop());
        let Reply::Handle(handle) = client.call(&large).await.unwrap() else {
            panic!("no handle");
        };
        let mut reading = tokio::task::JoinSet::new();
        for number in 0..64 {
            let request = Request::Read {
                handle: handle.clone(),
                offset: number << 20,
                length: 1 << 20,
            };
            reading.spawn(client.call(&request));
        }
        while let Some(read) = reading.join_next().await {
            assert!(matches!(read.unwrap(), Ok(Reply::Data(data)) if data.len() == 1 << 20));
        }
        let close = Request::Close { handle };
        client.call(&close).await.unwrap();
        let (now, peak) = (memory(server, "VmRSS"), memory(server, "VmHWM"));
        assert!(peak < 32 * 1024, "{peak} KiB");
        println!("{now} KiB with {open} descriptors, {peak} at most");
        // One more than all waits until one is closed.
        files.push(client.open(b"large", OpenFlags::READ, None).await.unwrap());
        let waiting = client.open(b"a file with a name 0", OpenFlags::READ, None);
        let closing = async { drop(files.pop()) };
        let (opened, ()) = tokio::join!(waiting, closing);
        opened.unwrap();
        drop(files);
        drop(client);
        assert!(child.wait().unwrap().success());
    });
}
