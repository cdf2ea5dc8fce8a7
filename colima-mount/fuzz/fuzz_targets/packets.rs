//! Any bytes decode to a packet or an error, and what decodes encodes to what decodes to the same.
#![no_main]

use bytes::Bytes;
use colima_mount::sftp::{ChangeSet, Field as _, Hello, Listing, Opened, Reply, Request, Side, Written};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok((id, request)) = Request::decode(bytes.clone()) {
        // An unknown extended request keeps its type and loses its name.
        let again = Request::decode(request.encode(id).payload());
        assert!(matches!(request, Request::Unknown { .. }) || again == Ok((id, request)));
    }
    if let Ok((id, reply)) = Reply::decode(bytes.clone()) {
        assert_eq!(Reply::decode(reply.clone().encode(id).payload()), Ok((id, reply)));
    }
    for side in [Side::Client, Side::Server] {
        let _ = Hello::decode(side, bytes.clone());
    }
    let _ = Listing::take(&mut bytes.clone());
    let _ = ChangeSet::take(&mut bytes.clone());
    let _ = Opened::take(&mut bytes.clone());
    let _ = Written::take(&mut bytes.clone());
});
