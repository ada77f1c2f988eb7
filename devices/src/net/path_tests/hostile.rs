//! A side that breaks the rules, and memory that lies.

use core::sync::atomic::Ordering;

use shmbus_ring::split::Layout;
use shmbus_shm::{Bytes, Entries, Field, Mapped};

use super::super::driver::DeviceError;
use super::super::host::GuestError;
use super::*;

#[test]
fn a_guest_that_breaks_the_rules_stops_its_own_port_only() {
    let mut bus = Bus::new(1, 16, 1500);
    let memory = Memory::new(16, 1500);
    let mut driver = memory.driver();
    let bad = bus
        .switch
        .attach(memory.host(), Sources::Only(mac(9)))
        .unwrap();

    let available = Layout::new(16).unwrap().available_offset();
    let index = Field::<u16, _>::new(&memory.regions.transmitq.driver, available + 2).unwrap();
    index.store(17, Ordering::Relaxed);
    bus.switch.poll(bad, 16, Duration::ZERO);
    let (port, error) = bus.switch.next_fault().unwrap();
    assert_eq!(port, bad);
    assert!(
        matches!(error, PortError::Guest(GuestError::Queue { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("transmitq1"), "{error}");

    // The others go on, and frames for it are counted as lost.
    let raw = [&mac(9).0[..], &mac(1).0[..], &[8, 0], &[0; 46]].concat();
    bus.stacks[0]
        .port_mut()
        .send(&raw, Checksum::InFrame)
        .unwrap();
    let _ = bus.stacks[0].port_mut().flush();
    assert_eq!(bus.switch.poll(bus.ports[0], 16, Duration::ZERO).frames, 1);
    assert_eq!(bus.switch.counters(bad).unwrap().dropped_full, 1);
    assert!(bus.switch.next_fault().is_none());

    // A reset on both sides recovers it.
    driver.reset();
    bus.switch.port_mut(bad).unwrap().reset();
    bus.switch.revive(bad);
    let raw = [&mac(1).0[..], &mac(9).0[..], &[8, 0], &[0; 46]].concat();
    driver.send(&raw, Checksum::InFrame).unwrap();
    let _ = driver.flush();
    assert_eq!(bus.switch.poll(bad, 16, Duration::ZERO).frames, 1);
    assert!(bus.switch.next_fault().is_none());
}

#[test]
fn wrong_addresses_headers_and_buffers_are_named() {
    let mut frame = [0; 2000];
    let descriptors =
        |queue: &QueueRegions<Mapped>| Entries::<u64, _>::new(&queue.driver, 0, 32).unwrap();

    // A transmitted frame outside its region.
    let memory = Memory::new(16, 1500);
    let (mut driver, mut host) = (memory.driver(), memory.host());
    driver.send(&[1; 60], Checksum::InFrame).unwrap();
    let _ = driver.flush();
    let table = descriptors(&memory.regions.transmitq);
    let head = (0..16)
        .find(|index| table.load(2 * index + 1, Ordering::Relaxed) != 0)
        .unwrap();
    table.store(2 * head, u64::MAX - 5, Ordering::Relaxed);
    let error = host.receive(&mut frame).unwrap_err();
    assert!(
        matches!(error, PortError::Guest(GuestError::Queue { .. })),
        "{error}"
    );
    assert_eq!(
        host.receive(&mut frame).unwrap_err().to_string(),
        error.to_string(),
        "it is latched"
    );

    // Too short for a header: dropped.
    let memory = Memory::new(16, 1500);
    let (mut driver, mut host) = (memory.driver(), memory.host());
    driver.send(&[1; 60], Checksum::InFrame).unwrap();
    let _ = driver.flush();
    descriptors(&memory.regions.transmitq).store(2 * head + 1, 11, Ordering::Relaxed);
    assert_eq!(host.receive(&mut frame).unwrap(), Received::Discarded);

    // A driver's word that its checksum is right counts for nothing.
    let buffers = Bytes::new(
        &memory.regions.transmitq.buffers,
        0,
        memory.layout.buffers_bytes(),
    )
    .unwrap();
    let write_headers = |at: usize, value: u8| {
        for index in 0..16 {
            buffers.copy_from(at + index * memory.layout.buffer_bytes() as usize, &[value]);
        }
    };
    driver.send(&[1; 60], Checksum::InFrame).unwrap();
    let _ = driver.flush();
    write_headers(0, 2);
    let expected = Received::Frame {
        bytes: 60,
        checksum: Checksum::InFrame,
    };
    assert_eq!(host.receive(&mut frame).unwrap(), expected);

    // Segmentation was not negotiated.
    driver.send(&[1; 60], Checksum::InFrame).unwrap();
    let _ = driver.flush();
    write_headers(1, 1);
    let error = host.receive(&mut frame).unwrap_err();
    assert!(
        matches!(error, PortError::Guest(GuestError::Header(_))),
        "{error}"
    );

    // A receive buffer that takes no frame.
    let memory = Memory::new(16, 1500);
    let (mut driver, mut host) = (memory.driver(), memory.host());
    let _ = driver.flush();
    for index in 0..16 {
        descriptors(&memory.regions.receiveq).store(2 * index + 1, 64 | 2 << 32, Ordering::Relaxed);
    }
    assert_eq!(host.send(&[1; 52], Checksum::InFrame).unwrap(), Sent::Taken);
    let error = host.send(&[1; 53], Checksum::InFrame).unwrap_err();
    let expected = GuestError::SmallBuffer {
        found: 64,
        expected: 65,
    };
    assert!(
        matches!(error, PortError::Guest(found) if found == expected),
        "{error}"
    );
}

#[test]
fn a_device_that_breaks_the_rules_stops_the_driver() {
    let memory = Memory::new(16, 1500);
    let (mut driver, mut host) = (memory.driver(), memory.host());
    let _ = driver.flush();
    host.send(&[1; 60], Checksum::InFrame).unwrap();
    let _ = host.flush();
    // The used element claims more than the buffer has.
    let used = Layout::new(16).unwrap().used_offset() + 4;
    let element = Field::<u64, _>::new(&memory.regions.receiveq.device, used).unwrap();
    element.store(element.load(Ordering::Relaxed) | 1 << 60, Ordering::Relaxed);
    let error = driver.receive(&mut [0; 2000]).unwrap_err();
    assert!(
        matches!(error, PortError::Device(DeviceError::Queue { .. })),
        "{error}"
    );
    assert!(
        driver.send(&[1; 60], Checksum::InFrame).is_err(),
        "it is latched"
    );
    assert!(driver.can_send(), "so that the next send tells why");

    driver.reset();
    host.reset();
    assert_eq!(
        driver.send(&[1; 60], Checksum::InFrame).unwrap(),
        Sent::Taken
    );
}

/// Each side in turn sees memory that changes between any two of its looks, while the other side is honest. Calls end,
/// nothing panics; a stopped side is reset and goes on.
#[test]
fn neither_side_panics_or_hangs_on_memory_that_lies() {
    for rings in RingKind::ALL {
        lie_to_both_sides(rings);
    }
}

fn lie_to_both_sides(rings: RingKind) {
    let rounds = if cfg!(miri) { 4 } else { 400 };
    let mut faults = [0, 0];
    let mut frame = [0; 2000];
    for seed in 0..rounds {
        let lies = [2, 20, 200][seed as usize % 3];
        let memory = Memory::of(rings, 8, 1500);
        let hostile = memory.hostile(seed, lies);

        let (mut driver, mut host) = (memory.driver(), hostile.host());
        for _ in 0..20 {
            for _ in 0..3 {
                let _ = driver.send(
                    &[3; 100],
                    Checksum::Partial {
                        start: 34,
                        offset: 16,
                    },
                );
            }
            let _ = (
                driver.flush(),
                host.receive(&mut frame),
                host.receive(&mut frame),
            );
            let _ = (host.send(&[4; 100], Checksum::InFrame), host.flush());
            while matches!(
                driver.receive(&mut frame),
                Ok(Received::Frame { .. } | Received::Discarded)
            ) {}
            if host.fault().is_some() || driver.fault().is_some() {
                faults[0] += u32::from(host.fault().is_some());
                driver.reset();
                host.reset();
            }
        }

        let (mut driver, mut host) = (hostile.driver(), memory.host());
        let config = StackConfig::new(mac(1), address(1), 24, memory.layout);
        let mut stack = Stack::new(hostile.driver(), &config, Duration::ZERO).unwrap();
        for round in 0..20 {
            let _ = (driver.send(&[3; 100], Checksum::InFrame), driver.flush());
            let _ = (
                host.send(&[4; 100], Checksum::InFrame),
                host.receive(&mut frame),
                host.flush(),
            );
            for _ in 0..4 {
                let _ = driver.receive(&mut frame);
            }
            let _ = stack.poll(Duration::from_millis(round), 16);
            if host.fault().is_some() || driver.fault().is_some() {
                faults[1] += u32::from(driver.fault().is_some());
                driver.reset();
                host.reset();
            }
        }
    }
    assert!(
        cfg!(miri) || faults.iter().all(|faults| *faults > 100),
        "{rings}: {faults:?}"
    );
}
