//! The gallery: its header, and the cards in it.

use std::fs::File;
use std::os::fd::AsFd;

use shmbus::Bus;
use shmbus::gallery::{Card, GALLERY_MAGIC, GALLERY_VERSION, GalleryHeader};
use shmbus_devices::timer::device::TimerDevice;
use shmbus_shm::{DirectoryHeader, Window, map_file};
use shmbus_transports::local::GuestName;

use crate::document::{check_payload, check_structure, contents, nth_table};

#[test]
fn a_gallery_is_laid_out_as_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gallery");
    let _bus = Bus::builder()
        .device(TimerDevice::new(2).unwrap())
        .max_guests(3)
        .inspect_file(&path, 0o600)
        .listen(directory.path().join("bus"))
        .unwrap();
    let file = File::open(&path).unwrap();
    let bytes = file.metadata().unwrap().len();
    let window = map_file(file.as_fd(), bytes as usize, false).unwrap();
    let header = GalleryHeader::read(&window).unwrap();
    assert_eq!((header.bytes, header.sessions), (bytes, 3));
    let of_bus = window.narrow(header.bus_area as usize, 4096).unwrap();
    let of_bus = DirectoryHeader::read(&of_bus).unwrap();
    assert_eq!(of_bus.layout.entries(), header.bus_places);
    check_structure(
        &nth_table("Gallery", "offset", 0),
        &contents(&window.narrow(0, 80).unwrap()),
        &[
            ("magic", GALLERY_MAGIC),
            ("version", GALLERY_VERSION.into()),
            ("sessions", header.sessions.into()),
            ("bytes of the memory", header.bytes),
            ("places", header.places.into()),
            ("bus places", header.bus_places.into()),
            ("map", header.map),
            ("bus map", header.bus_map),
            ("cards", header.cards),
            ("bus area", header.bus_area),
            ("areas", header.areas),
            ("area bytes", header.area_bytes),
        ],
    );
}

#[test]
fn a_card_is_laid_out_as_told() {
    let card = Card::Session {
        number: 0x0102_0304,
        name: GuestName::new("abcdefghijklmnopqrstuvwxyz012345").unwrap(),
    };
    check_payload(
        &nth_table("Gallery", "offset", 1),
        &card,
        &[
            ("length of the name in bytes", 32),
            ("session", 0x0102_0304),
            ("name", u64::from_le_bytes(*b"abcdefgh")),
            ("8 more", u64::from_le_bytes(*b"ijklmnop")),
            ("8 more", u64::from_le_bytes(*b"qrstuvwx")),
            ("8 more", u64::from_le_bytes(*b"yz012345")),
        ],
    );
}
