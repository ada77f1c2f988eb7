use std::sync::atomic::Ordering::{Relaxed, Release};

use shmbus_devices::net::device::{NetDevice, role};
use shmbus_ring::split::Layout;
use shmbus_shm::Field;

use super::*;
use crate::Bus;

const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn a_device_whose_driver_broke_the_rules_can_be_reset_and_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut bus = Bus::builder()
        .device(NetDevice::new(1500).unwrap())
        .listen(&path)
        .unwrap();
    let (stop, stopper) = std::io::pipe().unwrap();
    let host = std::thread::spawn(move || bus.run(stop));
    let mut guest = Guest::connect(&path, "clumsy", TIMEOUT).unwrap();
    let regions = guest.regions(0);
    let features = guest.offer(0).unwrap().features;

    // More chains available than the ring has entries.
    let (_, size) = regions.ring(role::TRANSMITQ1_DRIVER).unwrap();
    let available = Layout::new(size).unwrap().available_offset();
    let driver = regions.get(role::TRANSMITQ1_DRIVER).unwrap();
    let index = Field::<u16, _>::new(driver, available + 2).unwrap();
    index.store(size + 1, Release);
    // The host may find it before or after it says that the driver is ready.
    let _ = guest.activate(0, features);
    let deadline = Instant::now() + TIMEOUT;
    let needs_reset = DeviceStatus::DEVICE_NEEDS_RESET;
    while !guest.offer(0).unwrap().status.contains(needs_reset) {
        assert!(Instant::now() < deadline);
        guest.wait(Some(Duration::from_millis(10))).unwrap();
        while guest.next_event().is_some() {}
    }
    assert!(matches!(
        guest.activate(0, features),
        Err(GuestError::Refused { .. })
    ));

    guest.reset(0).unwrap();
    assert!(guest.offer(0).unwrap().status.is_empty());
    index.store(0, Relaxed);
    guest.activate(0, features).unwrap();
    guest.leave();
    drop(stopper);
    host.join().unwrap().unwrap();
}

/// An inspector sees the others, and the guest too, but for what it spoiled.
#[test]
fn a_guest_that_spoils_its_own_tables_blinds_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut bus = Bus::builder()
        .device(NetDevice::new(1500).unwrap())
        .listen(&path)
        .unwrap();
    let (stop, stopper) = std::io::pipe().unwrap();
    let host = std::thread::spawn(move || bus.run(stop));
    let guest = Guest::connect(&path, "clumsy", TIMEOUT).unwrap();
    let honest = Guest::connect(&path, "honest", TIMEOUT).unwrap();
    let (_, drivers) = guest
        .regions
        .own(crate::control::role::DRIVER_TABLE)
        .unwrap();
    let regions = guest.regions(0);
    for table in [drivers, regions.get(role::DRIVER_POSITIONS).unwrap()] {
        let magic = Field::<u64, _>::new(table, 0).unwrap();
        magic.store(7, Relaxed);
    }
    let view = crate::inspect::look(&path).unwrap();
    for guest in &view.guests {
        assert_eq!(guest.devices.len(), 1, "{guest:?}");
        assert_eq!(guest.rings.len(), 2, "{guest:?}");
        assert_eq!(guest.rings[0].driver_positions, None);
    }
    assert_eq!(view.guests.len(), 2);
    guest.leave();
    honest.leave();
    drop(stopper);
    host.join().unwrap().unwrap();
}
