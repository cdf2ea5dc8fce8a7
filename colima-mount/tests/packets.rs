//! Bytes to packets and back.

use bytes::Bytes;
use colima_mount::sftp::{
    Attributes, Change, ChangeSet, Creation, DirectoryEntry, Errno, Field, FileId, Hello, Listing,
    Metadata, Name, NewNode, NewTime, OpenFlags, Opened, Owner, Rename, Reply, Request, Seconds,
    Side, Target, Timestamp, Update, XattrMode,
};
use proptest::{collection::vec, option, prelude::*};

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let seconds = (any::<u32>(), any::<u32>())
        .prop_map(|(accessed, modified)| Seconds { accessed, modified });
    let any = (
        option::of(any::<u64>()),
        option::of(any::<(u32, u32)>()),
        option::of(any::<u32>()),
        option::of(seconds),
        vec((bytes(), bytes()), 0..3),
    );
    any.prop_map(|(size, owner, mode, times, extended)| Attributes {
        size,
        owner,
        mode,
        times,
        extended,
    })
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<(i64, u32)>().prop_map(|(seconds, nanoseconds)| Timestamp {
        seconds,
        nanoseconds,
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let id = any::<(u64, u64, u64)>().prop_map(|(device, inode, birth)| FileId {
        device,
        inode,
        birth,
    });
    let numbers = any::<(u32, u32, u32, u32, u32, u32, u64, u64, u32)>();
    (id, numbers, timestamp(), timestamp(), timestamp()).prop_map(
        |(id, numbers, accessed, modified, changed)| Metadata {
            id,
            mode: numbers.0,
            links: numbers.1,
            user: numbers.2,
            group: numbers.3,
            device_major: numbers.4,
            device_minor: numbers.5,
            size: numbers.6,
            blocks: numbers.7,
            block_size: numbers.8,
            accessed,
            modified,
            changed,
        },
    )
}

fn flags() -> impl Strategy<Value = OpenFlags> {
    let all = [
        OpenFlags::READ,
        OpenFlags::WRITE,
        OpenFlags::APPEND,
        OpenFlags::CREATE,
        OpenFlags::TRUNCATE,
        OpenFlags::EXCLUSIVE,
    ];
    vec(any::<bool>(), 6).prop_map(move |set| {
        let chosen = all.iter().zip(set).filter(|(_, set)| *set);
        chosen.fold(OpenFlags::default(), |flags, (flag, _)| flags | *flag)
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        bytes().prop_map(Target::Path),
        bytes().prop_map(Target::Handle)
    ]
}

fn creation() -> impl Strategy<Value = Creation> {
    let owner = option::of(any::<(u32, u32)>().prop_map(|(user, group)| Owner { user, group }));
    (any::<u32>(), owner).prop_map(|(mode, owner)| Creation { mode, owner })
}

fn new_time() -> impl Strategy<Value = NewTime> {
    prop_oneof![Just(NewTime::Now), timestamp().prop_map(NewTime::At)]
}

fn update() -> impl Strategy<Value = Update> {
    (
        option::of(any::<u64>()),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        option::of(new_time()),
        option::of(new_time()),
    )
        .prop_map(|(size, mode, user, group, accessed, modified)| Update {
            size,
            mode,
            user,
            group,
            accessed,
            modified,
        })
}

fn node() -> impl Strategy<Value = NewNode> {
    prop_oneof![
        Just(NewNode::Directory),
        Just(NewNode::Fifo),
        Just(NewNode::Socket),
        Just(NewNode::Regular),
        any::<(u32, u32)>().prop_map(|(major, minor)| NewNode::CharacterDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| NewNode::BlockDevice { major, minor }),
        bytes().prop_map(|target| NewNode::Symlink { target }),
    ]
}

fn plain_request() -> impl Strategy<Value = Request> {
    let pair = || (bytes(), bytes());
    let with = || (bytes(), attributes());
    prop_oneof![
        (bytes(), flags(), attributes()).prop_map(|(path, flags, attributes)| Request::Open {
            path,
            flags,
            attributes
        }),
        bytes().prop_map(|handle| Request::Close { handle }),
        (bytes(), any::<(u64, u32)>()).prop_map(|(handle, (offset, length))| Request::Read {
            handle,
            offset,
            length
        }),
        (bytes(), any::<u64>(), bytes()).prop_map(|(handle, offset, data)| Request::Write {
            handle,
            offset,
            data
        }),
        bytes().prop_map(|path| Request::Lstat { path }),
        bytes().prop_map(|handle| Request::Fstat { handle }),
        with().prop_map(|(path, attributes)| Request::Setstat { path, attributes }),
        with().prop_map(|(handle, attributes)| Request::Fsetstat { handle, attributes }),
        bytes().prop_map(|path| Request::Opendir { path }),
        bytes().prop_map(|handle| Request::Readdir { handle }),
        bytes().prop_map(|path| Request::Remove { path }),
        with().prop_map(|(path, attributes)| Request::Mkdir { path, attributes }),
        bytes().prop_map(|path| Request::Rmdir { path }),
        bytes().prop_map(|path| Request::Realpath { path }),
        bytes().prop_map(|path| Request::Stat { path }),
        pair().prop_map(|(from, to)| Request::Rename { from, to }),
        bytes().prop_map(|path| Request::Readlink { path }),
        pair().prop_map(|(target, path)| Request::Symlink { target, path }),
        (21u8..200).prop_map(|kind| Request::Unknown { kind }),
    ]
}

fn extended_request() -> impl Strategy<Value = Request> {
    let pair = || (bytes(), bytes());
    let moves = prop_oneof![
        Just(Rename::Replace),
        Just(Rename::Keep),
        Just(Rename::Exchange)
    ];
    let modes = prop_oneof![
        Just(XattrMode::Set),
        Just(XattrMode::Create),
        Just(XattrMode::Replace)
    ];
    prop_oneof![
        pair().prop_map(|(from, to)| Request::PosixRename { from, to }),
        bytes().prop_map(|path| Request::Statvfs { path }),
        bytes().prop_map(|handle| Request::Fstatvfs { handle }),
        pair().prop_map(|(from, to)| Request::Hardlink { from, to }),
        bytes().prop_map(|handle| Request::Fsync { handle }),
        (bytes(), attributes())
            .prop_map(|(path, attributes)| Request::Lsetstat { path, attributes }),
        Just(Request::Limits {}),
        target().prop_map(|target| Request::Look { target }),
        (bytes(), flags(), option::of(creation()), any::<u32>()).prop_map(
            |(path, flags, creation, first)| Request::OpenFile {
                path,
                flags,
                creation,
                first,
            }
        ),
        (bytes(), option::of(any::<u64>()), any::<u32>()).prop_map(|(handle, from, budget)| {
            Request::List {
                handle,
                from,
                budget,
            }
        }),
        (bytes(), node(), creation()).prop_map(|(path, node, creation)| Request::Make {
            path,
            node,
            creation
        }),
        (target(), bytes()).prop_map(|(from, to)| Request::Link { from, to }),
        (target(), update()).prop_map(|(target, update)| Request::Set { target, update }),
        (pair(), moves).prop_map(|((from, to), rename)| Request::Move { from, to, rename }),
        (target(), bytes()).prop_map(|(target, name)| Request::GetXattr { target, name }),
        target().prop_map(|target| Request::ListXattr { target }),
        (target(), pair(), modes).prop_map(|(target, (name, value), mode)| {
            Request::SetXattr {
                target,
                name,
                value,
                mode,
            }
        }),
        (target(), bytes()).prop_map(|(target, name)| Request::RemoveXattr { target, name }),
        bytes().prop_map(|path| Request::Watch { path }),
        Just(Request::Changes {}),
        Just(Request::Events {}),
        (bytes(), any::<(u32, u64, u64)>()).prop_map(|(handle, (mode, offset, length))| {
            Request::Allocate {
                handle,
                mode,
                offset,
                length,
            }
        }),
        (bytes(), any::<u64>(), bytes()).prop_map(|(handle, offset, data)| {
            Request::WriteTell {
                handle,
                offset,
                data,
            }
        }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let name = (bytes(), bytes(), attributes()).prop_map(|(name, line, attributes)| Name {
        name,
        line,
        attributes,
    });
    prop_oneof![
        (any::<u32>(), bytes()).prop_map(|(status, text)| Reply::Status { status, text }),
        bytes().prop_map(Reply::Handle),
        bytes().prop_map(Reply::Data),
        vec(name, 0..5).prop_map(Reply::Names),
        attributes().prop_map(Reply::Attributes),
        bytes().prop_map(Reply::Extended),
    ]
}

fn round_trip<T: Field + PartialEq + std::fmt::Debug>(value: &T) {
    let Reply::Extended(mut body) = Reply::extended(value) else {
        panic!("another reply");
    };
    assert_eq!(&T::take(&mut body).unwrap(), value);
    assert!(body.is_empty());
}

/// Every prefix of a packet is an error, not a panic and not another packet of the same fields.
fn truncated(payload: &Bytes) {
    for length in 0..payload.len() {
        let _ = Request::decode(payload.slice(..length));
        let _ = Reply::decode(payload.slice(..length));
    }
}

proptest! {
    #[test]
    fn requests_survive_the_wire(
        id: u32,
        request in prop_oneof![plain_request(), extended_request()],
    ) {
        let payload = request.encode(id).payload();
        prop_assert_eq!(Request::decode(payload.clone()), Ok((id, request)));
        truncated(&payload);
    }

    #[test]
    fn replies_survive_the_wire(id: u32, reply in reply()) {
        let payload = reply.clone().encode(id).payload();
        prop_assert_eq!(Reply::decode(payload.clone()), Ok((id, reply)));
        truncated(&payload);
    }

    #[test]
    fn bodies_survive_the_wire(
        metadata in metadata(),
        names in vec((bytes(), option::of(metadata())), 0..5),
        handle in bytes(),
    ) {
        let entries = names.iter().map(|(name, metadata)| DirectoryEntry {
            name: name.clone(),
            cookie: metadata.map_or(0, |metadata| metadata.size),
            metadata: *metadata,
        });
        round_trip(&Listing { entries: entries.collect() });
        let changes = names.iter().map(|(name, now)| Change {
            directory: metadata.id,
            name: name.clone(),
            now: *now,
        });
        round_trip(&ChangeSet { lost: vec![metadata.id; names.len()], changes: changes.collect() });
        round_trip(&Opened { first: handle.clone(), handle, metadata });
    }

    #[test]
    fn hellos_survive_the_wire(version: u32, extensions in vec((bytes(), bytes()), 0..5)) {
        let hello = Hello { version, extensions };
        for side in [Side::Client, Side::Server] {
            let decoded = Hello::decode(side, hello.encode(side).payload());
            prop_assert_eq!(decoded.as_ref(), Ok(&hello));
        }
        let other = Hello::decode(Side::Server, hello.encode(Side::Client).payload());
        prop_assert!(other.is_err());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(kind in 0u8..=210, rest in vec(any::<u8>(), 0..200)) {
        let payload = Bytes::from([&[kind][..], &rest].concat());
        let _ = Request::decode(payload.clone());
        let _ = Reply::decode(payload.clone());
        let _ = Hello::decode(Side::Client, payload.clone());
        let _ = Listing::take(&mut payload.clone());
        let _ = ChangeSet::take(&mut payload.clone());
    }
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_it_is_allocated() {
    let huge = [0xFF; 4];
    let names = Bytes::from([&[104, 0, 0, 0, 1][..], &huge].concat());
    assert!(Reply::decode(names).is_err());
    assert!(Listing::take(&mut Bytes::copy_from_slice(&huge)).is_err());
    let big = Bytes::from(vec![0; Listing::MAX + 1]);
    assert!(Listing::take(&mut big.clone()).is_err());
}

#[test]
fn every_error_number_survives_the_wire() {
    for errno in Errno::ALL {
        assert_eq!(Errno::from_wire(errno.wire()), Some(*errno));
        assert_eq!(Errno::from(rustix::io::Errno::from(*errno)), *errno);
        assert_ne!(Errno::from_wire(errno.code() as u32), None);
        assert!(!errno.text().contains('/') || errno.text() == "input/output error");
    }
    // Numbers of Linux that no entry has are an input/output error, whatever they are.
    for raw in 1..=133 {
        let errno = Errno::from(rustix::io::Errno::from_raw_os_error(raw));
        assert!(
            i32::from(errno.number()) == raw || errno == Errno::Io,
            "{raw}"
        );
    }
    assert_eq!(Errno::from_wire(0), None);
}

#[test]
fn an_open_is_the_bytes_of_the_draft() {
    let request = Request::Open {
        path: Bytes::from_static(b"/a"),
        flags: OpenFlags::READ,
        attributes: Attributes::default(),
    };
    let (head, tail) = request.encode(7).into_parts();
    let expected = b"\0\0\0\x13\x03\0\0\0\x07\0\0\0\x02/a\0\0\0\x01\0\0\0\0";
    assert_eq!((&head[..], &tail[..]), (&expected[..], &[][..]));
}
