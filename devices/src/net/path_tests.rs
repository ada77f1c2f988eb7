//! The whole way in one thread: two guests' stacks and drivers, two guest ports, the switch.

use core::net::Ipv4Addr;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::fs;
use std::time::Instant;

use sha2::{Digest, Sha256};
use shmbus_ring::split::{DeviceRing, DriverRing};
use shmbus_shm::testing::{Hostile, Probed};
use shmbus_shm::{Bytes, Entries, Field, Mapped, OffsetSpace, Window, heap};

use super::addresses::Sources;
use super::app::fetch::{Fetch, FetchConfig};
use super::app::serve::{Server, ServerConfig};
use super::app::{Application, Turn, turn};
use super::config::MAX_MTU;
use super::driver::{DeviceError, NetDriver};
use super::host::{GuestError, GuestPort};
use super::mac_address::MacAddress;
use super::pcap::{Pace, Recorder, Replay};
use super::port::{Checksum, Port, PortError, Received, Sent};
use super::queues::{DRIVER_FEATURES, DeviceRegions, QueueMemory, QueueRegions};
use super::stack::{Stack, StackConfig};
use super::switch::{PortId, Switch, SwitchLimits};

type Driver<W> = NetDriver<DriverRing<W>, W>;
type Host<W> = GuestPort<DeviceRing<W>, OffsetSpace<W>>;

/// A device's memory: each region a window of its own, as each lies in another memory on the bus.
struct Memory<W> {
    layout: QueueMemory,
    regions: DeviceRegions<W>,
}

impl Memory<Mapped> {
    fn new(size: u16, mtu: u16) -> Self {
        let layout = QueueMemory::new(size, mtu).unwrap();
        let queue = || QueueRegions {
            driver: heap(layout.ring().driver_bytes()),
            device: heap(layout.ring().device_bytes()),
            buffers: heap(layout.buffers_bytes()),
        };
        Self {
            layout,
            regions: DeviceRegions {
                receiveq: queue(),
                transmitq: queue(),
            },
        }
    }

    /// The same memory, as it looks to a side that is lied to by the other.
    fn hostile(&self, seed: u64, lies: u8) -> Memory<Probed<Mapped, Hostile>> {
        let probe = Hostile::new(seed, lies);
        let probed = |window: &Mapped| Probed::new(window.clone(), probe.clone());
        let queue = |queue: &QueueRegions<Mapped>| QueueRegions {
            driver: probed(&queue.driver),
            device: probed(&queue.device),
            buffers: probed(&queue.buffers),
        };
        Memory {
            layout: self.layout,
            regions: DeviceRegions {
                receiveq: queue(&self.regions.receiveq),
                transmitq: queue(&self.regions.transmitq),
            },
        }
    }
}

impl<W: Window> Memory<W> {
    fn driver(&self) -> Driver<W> {
        NetDriver::over_split_rings(&self.regions, self.layout, DRIVER_FEATURES).unwrap()
    }

    fn host(&self) -> Host<W> {
        GuestPort::over_split_rings(&self.regions, self.layout, DRIVER_FEATURES).unwrap()
    }
}

fn mac(guest: u8) -> MacAddress {
    MacAddress::local(u32::from(guest))
}

fn address(guest: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, guest)
}

/// Guests 1 and up, each on a port of its own.
struct Bus {
    switch: Switch<Host<Mapped>>,
    stacks: Vec<Stack<Driver<Mapped>>>,
    ports: Vec<PortId>,
    start: Instant,
}

impl Bus {
    fn new(guests: u8, size: u16, mtu: u16) -> Self {
        let mut switch = Switch::new(SwitchLimits::default());
        let (mut stacks, mut ports) = (Vec::new(), Vec::new());
        for guest in 1..=guests {
            let memory = Memory::new(size, mtu);
            let config = StackConfig::new(mac(guest), address(guest), 24, memory.layout);
            // The driver formats its areas before the device looks at them.
            stacks.push(Stack::new(memory.driver(), &config, Duration::ZERO).unwrap());
            ports.push(
                switch
                    .attach(memory.host(), Sources::Only(mac(guest)))
                    .unwrap(),
            );
        }
        Self {
            switch,
            stacks,
            ports,
            start: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn turn(&mut self, guest: usize, application: &mut impl Application<Driver<Mapped>>) -> Turn {
        let now = self.now();
        turn(&mut self.stacks[guest], application, now, 256)
    }

    fn switch(&mut self) {
        let now = self.now();
        for port in &self.ports {
            let _ = self.switch.poll(*port, 256, now);
        }
        self.switch.flush(|_, _| {});
        if let Some((port, error)) = self.switch.next_fault() {
            panic!("{port}: {error}");
        }
    }
}

/// Serves a file from guest 1 to guest 2.
fn transfer(bus: &mut Bus, file: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), file).unwrap();
    let mut server = Server::new(
        &mut bus.stacks[0],
        directory.path(),
        ServerConfig::default(),
    )
    .unwrap();
    let config = FetchConfig::new(address(1), 80, "file");
    let now = bus.now();
    let mut fetch = Fetch::new(&mut bus.stacks[1], config, Vec::new(), now);
    let fetched = loop {
        let _ = bus.turn(0, &mut server);
        bus.switch();
        let _ = bus.turn(1, &mut fetch);
        bus.switch();
        if let Some(outcome) = fetch.outcome() {
            break outcome.unwrap();
        }
    };
    assert_eq!(fetched.bytes, file.len() as u64);
    assert_eq!(fetched.sha256, <[u8; 32]>::from(Sha256::digest(file)));
    assert!(fetch.finish(&mut bus.stacks[1]) == file);
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
#[cfg_attr(miri, ignore = "uses files")]
fn a_file_goes_from_guest_to_guest_over_tcp() {
    let file = noise(2_000_000);
    for (size, mtu) in [(256, 1500), (128, 9000), (64, MAX_MTU), (4, 1500)] {
        let mut bus = Bus::new(2, size, mtu);
        transfer(&mut bus, &file);
        let counters = bus
            .ports
            .iter()
            .map(|port| bus.switch.counters(*port).unwrap());
        let [served, fetched] = counters.collect::<Vec<_>>()[..] else {
            panic!()
        };
        assert!(served.received_bytes > 2_000_000 && fetched.sent_bytes > 2_000_000);
        assert_eq!(
            (served.dropped_malformed, fetched.dropped_malformed),
            (0, 0)
        );
        assert_eq!(bus.stacks[1].counters().discarded_frames, 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "uses files")]
fn a_recording_of_the_bus_can_be_played_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus.pcap");
    let file = noise(100_000);
    let mut bus = Bus::new(2, 64, 1500);
    bus.switch.record(Some(Recorder::create(&path).unwrap()));
    transfer(&mut bus, &file);
    let frames = bus.switch.record(None).unwrap().finish().unwrap();
    let received: u64 = bus
        .ports
        .iter()
        .map(|port| bus.switch.counters(*port).unwrap().received_frames)
        .sum();
    assert_eq!(frames, received);

    // Every TCP checksum is whole in the recording, although guests leave them out.
    let mut switch: Switch<Box<dyn Port>> = Switch::new(SwitchLimits::default());
    let replay = Replay::open(&path, Pace::Unpaced).unwrap();
    let replay = switch
        .attach(Box::new(replay), Sources::Learned { at_most: 8 })
        .unwrap();
    let memory = Memory::new(256, 1500);
    let mut guest = memory.driver();
    let _ = guest.flush();
    let port = switch
        .attach(Box::new(memory.host()), Sources::Only(mac(9)))
        .unwrap();
    let (mut frame, mut intact) = (vec![0; 2000], 0);
    while switch.poll(replay, 16, Duration::ZERO).frames > 0 {
        switch.flush(|_, _| {});
        while let Received::Frame { bytes, checksum } = guest.receive(&mut frame).unwrap() {
            assert_eq!(checksum, Checksum::InFrame);
            assert!(super::checksum::is_intact(&frame[..bytes]));
            intact += 1;
        }
        let _ = guest.flush();
    }
    assert_eq!(switch.counters(replay).unwrap().received_frames, frames);
    // What both stations' addresses are known for is not flooded.
    assert!(intact > 0 && intact < frames && switch.counters(port).unwrap().sent_frames == intact);
}

#[test]
fn a_stalled_guest_loses_frames_and_the_driver_sees_back_pressure() {
    let memory = Memory::new(4, 1500);
    let (mut driver, mut host) = (memory.driver(), memory.host());
    let frame = [5; 60];
    for _ in 0..4 {
        assert_eq!(driver.send(&frame, Checksum::InFrame).unwrap(), Sent::Taken);
    }
    assert!(!driver.can_send());
    assert_eq!(driver.send(&frame, Checksum::InFrame).unwrap(), Sent::Full);
    assert_eq!(
        driver.send(&[0; 1519], Checksum::InFrame).unwrap(),
        Sent::TooLong
    );
    assert!(driver.flush().any());

    let mut buffer = [0; 2000];
    for _ in 0..4 {
        let expected = Received::Frame {
            bytes: 60,
            checksum: Checksum::InFrame,
        };
        assert_eq!(host.receive(&mut buffer).unwrap(), expected);
        assert_eq!(buffer[..60], frame);
    }
    assert_eq!(host.receive(&mut buffer).unwrap(), Received::Empty);
    assert!(
        host.flush().transmitq.is_needed(),
        "the driver waits for room"
    );
    assert!(driver.can_send());

    for _ in 0..4 {
        assert_eq!(host.send(&frame, Checksum::Verified).unwrap(), Sent::Taken);
    }
    assert_eq!(host.send(&frame, Checksum::Verified).unwrap(), Sent::Full);
    assert!(host.flush().receiveq.is_needed());
    // Too small for the frame: it is lost, its buffer is not.
    assert_eq!(
        driver.receive(&mut buffer[..59]).unwrap(),
        Received::Discarded
    );
    for _ in 0..3 {
        let expected = Received::Frame {
            bytes: 60,
            checksum: Checksum::Verified,
        };
        assert_eq!(driver.receive(&mut buffer).unwrap(), expected);
    }
    assert_eq!(driver.receive(&mut buffer).unwrap(), Received::Empty);
    let _ = driver.flush();
    for _ in 0..4 {
        assert_eq!(host.send(&frame, Checksum::InFrame).unwrap(), Sent::Taken);
    }
}

#[test]
fn a_guest_that_breaks_the_rules_stops_its_own_port_only() {
    let mut bus = Bus::new(1, 16, 1500);
    let memory = Memory::new(16, 1500);
    let mut driver = memory.driver();
    let bad = bus
        .switch
        .attach(memory.host(), Sources::Only(mac(9)))
        .unwrap();

    let available = memory.layout.ring().available_offset();
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
    let used = memory.layout.ring().used_offset() + 4;
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
    let rounds = if cfg!(miri) { 4 } else { 400 };
    let mut faults = [0, 0];
    let mut frame = [0; 2000];
    for seed in 0..rounds {
        let lies = [2, 20, 200][seed as usize % 3];
        let memory = Memory::new(8, 1500);
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
        "{faults:?}"
    );
}
