//! Files through the client: what is written behind, read ahead, synced and closed.

use colima_mount::{
    Access, Client, Root,
    server::Limits,
    sftp::{Creation, Errno, NewTime, OpenFlags, Timestamp, Update},
};

use crate::peers;

const NEW: Creation = Creation {
    mode: 0o640,
    owner: None,
};

#[test]
fn what_is_written_is_read_back_in_any_pattern() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(directory.path()).await;
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        let file = client.open(b"f", flags, Some(NEW)).await.unwrap();
        let mut model = vec![0u8; 6_000_000];
        let mut seed = 1u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let mut end = 0;
        let mut position = 0;
        for round in 0..400 {
            // Mostly on from where it was, as programs do; sometimes anywhere.
            if random(10) == 0 {
                position = random(5_000_000);
            }
            let length = random(50_000) + 1;
            position = position.min(model.len() - length);
            if random(3) > 0 {
                let data = vec![u8::try_from(round % 251).unwrap(); length];
                model[position..position + length].copy_from_slice(&data);
                file.write_at(position as u64, &data).await.unwrap();
                end = end.max(position + length);
            } else {
                let got = file.read_at(position as u64, length).await.unwrap();
                let expected = &model[position.min(end)..(position + length).min(end)];
                assert!(got == expected, "round {round} at {position}, {length}");
            }
            position += length;
        }
        assert_eq!(file.metadata().await.unwrap().size, end as u64);
        file.sync().await.unwrap();
        assert!(std::fs::read(directory.path().join("f")).unwrap() == model[..end]);
        // From the front to the end, through what is read ahead.
        let mut offset = 0;
        while offset < end {
            let got = file.read_at(offset as u64, 100_000).await.unwrap();
            assert!(
                got[..] == model[offset..(offset + 100_000).min(end)],
                "{offset}"
            );
            offset += got.len();
        }
        assert!(file.read_at(end as u64, 10).await.unwrap().is_empty());
        file.close().await.unwrap();
    });
}

#[test]
fn an_error_of_a_write_behind_is_told_once_by_the_next_who_may_hear_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("f"), b"x").unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(directory.path()).await;
        // Writes to a file that is open for reading fail at the server.
        let file = client.open(b"f", OpenFlags::READ, None).await.unwrap();
        file.write_at(0, b"y").await.unwrap();
        assert_eq!(file.sync().await, Err(Errno::BadHandle));
        assert_eq!(file.sync().await, Ok(()));
        file.write_at(0, b"y").await.unwrap();
        assert_eq!(file.close().await, Err(Errno::BadHandle));
    });
}

#[test]
fn what_was_written_reaches_the_server_when_the_file_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(directory.path()).await;
        let file = client
            .open(b"f", OpenFlags::WRITE, Some(NEW))
            .await
            .unwrap();
        let data = vec![3; 3_000_000];
        file.write_at(0, &data).await.unwrap();
        drop(file);
        // Closing is ordered behind the writes, so a look that sees the handle gone sees them all.
        let reader = client.open(b"f", OpenFlags::READ, None).await.unwrap();
        let mut seen = 0;
        while seen < data.len() {
            seen = usize::try_from(reader.metadata().await.unwrap().size).unwrap();
        }
        assert_eq!(reader.read_at(0, data.len()).await.unwrap(), data);
    });
}

#[test]
fn a_lost_connection_fails_everything_and_hangs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let root = Root::open(directory.path()).unwrap();
        let (stream, session) = peers::serve(root, Access::ReadWrite, Limits::default());
        let client = Client::connect(stream).await.unwrap();
        let file = client
            .open(b"f", OpenFlags::WRITE, Some(NEW))
            .await
            .unwrap();
        session.abort();
        client.closed().await;
        assert_eq!(client.metadata(b"f").await, Err(Errno::NotConnected));
        let _ = file.write_at(0, b"x").await;
        assert_eq!(file.flush().await, Err(Errno::NotConnected));
        assert_eq!(file.read_at(0, 1).await, Err(Errno::NotConnected));
    });
}

#[test]
fn times_keep_their_nanoseconds_and_modes_are_exact() {
    let directory = tempfile::tempdir().unwrap();
    peers::runtime().block_on(async {
        let client = peers::client(directory.path()).await;
        let creation = Creation {
            mode: 0o777,
            owner: None,
        };
        client
            .open(b"f", OpenFlags::WRITE, Some(creation))
            .await
            .unwrap()
            .close()
            .await
            .unwrap();
        assert_eq!(client.metadata(b"f").await.unwrap().mode & 0o7777, 0o777);
        for seconds in [-100, 0, 1_700_000_000, 5_000_000_000] {
            let time = Timestamp {
                seconds,
                nanoseconds: 123_456_789,
            };
            let update = Update {
                modified: Some(NewTime::At(time)),
                ..Update::default()
            };
            assert_eq!(client.set(b"f", update).await.unwrap().modified, time);
        }
    });
}
