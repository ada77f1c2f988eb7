//! A message of the local transport with any bytes: refused, or one that encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_transports::local::codec::Header;
use shmbus_transports::local::message::{HEADER_BYTES, Message};

fuzz_target!(|bytes: &[u8]| {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return;
    };
    let Ok(header) = Header::decode(*header) else {
        return;
    };
    if let Ok(message) = Message::decode(header, body) {
        assert_eq!(message.encode(), bytes);
    }
});
