//! A virtio-net header and a configuration with any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_devices::net::config::NetConfig;
use shmbus_devices::net::header::{HEADER_BYTES, NetHeader};
use shmbus_devices::net::port::Checksum;

fuzz_target!(
    |input: ([u8; HEADER_BYTES], u16, bool, [u64; NetConfig::WORDS])| {
        let (bytes, frame_bytes, negotiated, words) = input;
        let header = NetHeader::parse(&bytes);
        assert_eq!(NetHeader::parse(&header.emit()), header);
        if let Ok(Checksum::Partial { start, offset }) =
            header.checksum(usize::from(frame_bytes), negotiated)
        {
            assert!(usize::from(start) + usize::from(offset) + 2 <= usize::from(frame_bytes));
        }
        if let Ok(config) = NetConfig::decode_words(&words) {
            assert_eq!(NetConfig::decode_words(&config.encode_words()), Ok(config));
        }
    }
);
