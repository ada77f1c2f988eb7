//! A recording with any bytes, played back: frames, then an end or an error.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use shmbus_devices::net::pcap::{Pace, Replay};
use shmbus_devices::net::port::{Port, Received};

/// The header of a file of Ethernet frames, little-endian: without it, hardly an input would come to its records.
const HEADER: [u8; 24] = [
    0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
];

fuzz_target!(|input: (bool, &[u8])| {
    let (whole, bytes) = input;
    let file = if whole {
        bytes.to_vec()
    } else {
        [&HEADER, bytes].concat()
    };
    let records = file.len() / 16; // a record's header takes 16 bytes
    let input = Box::new(Cursor::new(file));
    let Ok(mut replay) = Replay::new(input, "input".to_owned(), Pace::Unpaced) else {
        return;
    };
    let mut frame = [0; 2048];
    for _ in 0..=records {
        match replay.receive(&mut frame) {
            Ok(Received::Frame { bytes, .. }) => assert!(bytes <= frame.len()),
            Ok(Received::Discarded) => {}
            Ok(Received::Empty) => {
                assert!(replay.has_ended());
                return;
            }
            Err(_) => return,
        }
    }
    panic!("more records than fit into the file");
});
