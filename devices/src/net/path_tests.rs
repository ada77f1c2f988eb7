//! The whole way in one thread: two guests' stacks and drivers, two guest ports, the switch.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;
use std::time::Instant;

use sha2::{Digest, Sha256};
use shmbus_ring::any::{DeviceRing, DriverRing};
use shmbus_ring::{RingFeatures, RingKind};
use shmbus_shm::testing::{Hostile, Probed};
use shmbus_shm::{Mapped, OffsetSpace, RingFormat, Window};

use super::addresses::Sources;
use super::app::fetch::{Fetch, FetchConfig};
use super::app::serve::{Server, ServerConfig};
use super::app::{Application, Turn, turn};
use super::config::MAX_MTU;
use super::driver::NetDriver;
use super::host::GuestPort;
use super::mac_address::MacAddress;
use super::pcap::{Pace, Recorder, Replay};
use super::port::{Checksum, Port, PortError, Received, Sent};
use super::queues::{DRIVER_FEATURES, DeviceRegions, QueueMemory, QueueRegions};
use super::stack::{Stack, StackConfig};
use super::switch::{PortId, Switch, SwitchLimits};

mod hostile;
mod merged;

const SPLIT: RingKind = RingKind::plain(RingFormat::Split);

type Driver<W> = NetDriver<DriverRing<W>, W>;
type Host<W> = GuestPort<DeviceRing<W>, OffsetSpace<W>>;

/// A device's memory: each region a window of its own, as each lies in another memory on the bus.
struct Memory<W> {
    layout: QueueMemory,
    regions: DeviceRegions<W>,
    features: RingFeatures,
}

impl Memory<Mapped> {
    fn new(size: u16, mtu: u16) -> Self {
        Self::of(SPLIT, size, mtu)
    }

    fn of(rings: RingKind, size: u16, mtu: u16) -> Self {
        let layout = QueueMemory::in_format(rings.format, size, mtu).unwrap();
        Self {
            layout,
            regions: DeviceRegions::on_heap(layout),
            features: RingFeatures::from(DRIVER_FEATURES | rings.features())
                .with_private(rings.private_features()),
        }
    }

    /// The same memory, as it looks to a side that is lied to by the other.
    fn hostile(&self, seed: u64, lies: u8) -> Memory<Probed<Mapped, Hostile>> {
        let probe = Hostile::new(seed, lies);
        let probed = |window: &Mapped| Probed::new(window.clone(), probe.clone());
        let queue = |queue: &QueueRegions<Mapped>| QueueRegions {
            driver: probed(&queue.driver),
            device: probed(&queue.device),
            common: queue.common.as_ref().map(probed),
            buffers: probed(&queue.buffers),
            buffers_address: queue.buffers_address,
        };
        Memory {
            layout: self.layout,
            regions: DeviceRegions {
                receiveq: queue(&self.regions.receiveq),
                transmitq: queue(&self.regions.transmitq),
            },
            features: self.features,
        }
    }
}

impl<W: Window> Memory<W> {
    fn driver(&self) -> Driver<W> {
        NetDriver::over_rings(&self.regions, self.layout, self.features).unwrap()
    }

    fn host(&self) -> Host<W> {
        GuestPort::over_rings(&self.regions, self.layout, self.features).unwrap()
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
        Self::of(SPLIT, guests, size, mtu)
    }

    fn of(rings: RingKind, guests: u8, size: u16, mtu: u16) -> Self {
        let mut switch = Switch::new(SwitchLimits::default());
        let (mut stacks, mut ports) = (Vec::new(), Vec::new());
        for guest in 1..=guests {
            let memory = Memory::of(rings, size, mtu);
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
        self.switch.flush(|_, _, _| {});
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
    let geometries = [(256, 1500), (128, 9000), (64, MAX_MTU), (4, 1500)];
    for (rings, (size, mtu)) in RingKind::ALL
        .into_iter()
        .flat_map(|rings| geometries.map(|geometry| (rings, geometry)))
    {
        let mut bus = Bus::of(rings, 2, size, mtu);
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
        switch.flush(|_, _, _| {});
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
    for rings in RingKind::ALL {
        // A tagged ring's wall takes up an entry.
        let room = if rings.format == RingFormat::Tagged {
            3
        } else {
            4
        };
        stall(&Memory::of(rings, 4, 1500), room);
    }
}

fn stall(memory: &Memory<Mapped>, room: usize) {
    let (mut driver, mut host) = (memory.driver(), memory.host());
    let frame = [5; 60];
    for _ in 0..room {
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
    for _ in 0..room {
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

    for _ in 0..room {
        assert_eq!(host.send(&frame, Checksum::Verified).unwrap(), Sent::Taken);
    }
    assert_eq!(host.send(&frame, Checksum::Verified).unwrap(), Sent::Full);
    assert!(host.flush().receiveq.is_needed());
    // Too small for the frame: it is lost, its buffer is not.
    assert_eq!(
        driver.receive(&mut buffer[..59]).unwrap(),
        Received::Discarded
    );
    for _ in 1..room {
        let expected = Received::Frame {
            bytes: 60,
            checksum: Checksum::Verified,
        };
        assert_eq!(driver.receive(&mut buffer).unwrap(), expected);
    }
    assert_eq!(driver.receive(&mut buffer).unwrap(), Received::Empty);
    let _ = driver.flush();
    for _ in 0..room {
        assert_eq!(host.send(&frame, Checksum::InFrame).unwrap(), Sent::Taken);
    }
}

/// A side that found nothing is told of the next frame, once; one that is still at work is not.
#[test]
fn who_found_nothing_is_told_and_nobody_else() {
    for rings in RingKind::ALL {
        look_and_be_told(&Memory::of(rings, 16, 1500));
    }
}

fn look_and_be_told(memory: &Memory<Mapped>) {
    let (mut driver, mut host) = (memory.driver(), memory.host());
    let _ = driver.flush();
    let (frame, mut buffer) = ([5; 60], [0; 2000]);
    for round in 0..100 {
        // Event indices begin at 0: the first frames are told of although nobody asked.
        let asked = round > 0;
        assert_eq!(host.receive(&mut buffer).unwrap(), Received::Empty);
        for first in [true, false] {
            driver.send(&frame, Checksum::InFrame).unwrap();
            assert_eq!(driver.flush().transmitq.is_needed(), first);
        }
        for _ in 0..2 {
            assert_ne!(host.receive(&mut buffer).unwrap(), Received::Empty);
        }
        assert!(!(host.flush().any() && asked), "the driver has room");

        assert_eq!(driver.receive(&mut buffer).unwrap(), Received::Empty);
        for first in [true, false] {
            host.send(&frame, Checksum::InFrame).unwrap();
            assert_eq!(host.flush().receiveq.is_needed(), first);
        }
        for _ in 0..2 {
            assert_ne!(driver.receive(&mut buffer).unwrap(), Received::Empty);
        }
        assert!(
            !(driver.flush().any() && asked),
            "the host does not wait for buffers"
        );
    }
}
