use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use shmbus_ring::{Lag, RingKind};
use shmbus_shm::{Mapped, RingFormat, heap};
use shmbus_table::TypedReader;

use super::*;
use crate::RingState;
use crate::clock::monotonic_ns;
use crate::net::config::DEFAULT_MTU;
use crate::net::driver::NetDriver;
use crate::net::pcap::Pace;
use crate::net::port::{Checksum, Port, Received, Sent};
use crate::net::queues::choose;

/// Frames that a test sends at a time.
const FRAME: [u8; 60] = [0xff; 60];

/// A session's regions, all on the heap.
fn regions(device: &NetDevice) -> Regions {
    let mut regions = Regions::default();
    for request in device.regions() {
        regions.insert(request.role, request.kind, heap(request.bytes));
    }
    regions
}

/// A guest with an active driver.
struct Joined {
    driver: NetDriver<shmbus_ring::any::DriverRing<Mapped>, Mapped>,
    regions: Regions,
    mac: MacAddress,
}

fn join(device: &mut NetDevice, session: u64) -> Joined {
    let session = SessionId(session);
    let words = device.config(session);
    let config = NetConfig::decode_words(&[words[0], words[1]]).unwrap();
    let regions = regions(device);
    let features = choose(device.features());
    let (driver, _) = attach(&regions, &config, features).unwrap();
    device.activate(session, &regions, features).unwrap();
    Joined {
        driver,
        regions,
        mac: config.mac,
    }
}

impl Joined {
    fn send_to_all(&mut self) {
        let mut frame = FRAME;
        frame[6..12].copy_from_slice(&self.mac.0);
        assert_eq!(
            self.driver.send(&frame, Checksum::InFrame).unwrap(),
            Sent::Taken
        );
        let _ = self.driver.flush();
    }

    fn receives(&mut self) -> bool {
        let mut frame = [0; 2000];
        let received = self.driver.receive(&mut frame).unwrap();
        matches!(received, Received::Frame { .. })
    }

    /// What an observer reads of one side: receiveq1 and transmitq1.
    fn positions(&self, role: u16) -> [RingState; 2] {
        let window = self.regions.get(role).unwrap().clone();
        let storage = || vec![0; 2];
        let mut table =
            TypedReader::<RingState, _, _>::attach(window, storage(), storage()).unwrap();
        [0, 1].map(|slot| table.read(slot).unwrap().0)
    }
}

/// Twenty guests, more than any fixed number that one turn might have room for; one frame moves all their queues.
#[test]
fn the_positions_of_every_queue_that_moved_are_published() {
    let mut device = NetDevice::new(DEFAULT_MTU).unwrap();
    let mut guests: Vec<_> = (0..20).map(|session| join(&mut device, session)).collect();
    let mut outbox = Outbox::default();
    let _ = device.resume(&mut outbox);
    guests[0].send_to_all();
    let progress = device.signalled(SessionId(0), role::TRANSMITQ1_DRIVER, &mut outbox);
    assert_eq!(progress, Progress::Idle);
    for (session, guest) in guests.iter().enumerate() {
        let states = guest.positions(role::DEVICE_POSITIONS);
        let used = states.map(|state| state.positions.used);
        assert_eq!(
            used,
            if session == 0 { [0, 1] } else { [1, 0] },
            "guest {session}"
        );
    }
    // Whether or not its driver wants to be told.
    guests[0].send_to_all();
    guests[0].send_to_all();
    let _ = device.signalled(SessionId(0), role::TRANSMITQ1_DRIVER, &mut outbox);
    let states = guests[19].positions(role::DEVICE_POSITIONS);
    assert_eq!(states[0].positions.used, 3);
    assert!(guests[19].receives());
}

/// An observer with both tables sees how far each side is behind the other, at every step.
#[test]
fn both_sides_publish_and_the_lag_is_what_lies_between() {
    for rings in RingKind::ALL {
        watch_both_sides(rings);
    }
}

fn watch_both_sides(rings: RingKind) {
    let mut device = NetDevice::with_rings(rings, DEFAULT_MTU).unwrap();
    let mut guests = [join(&mut device, 1), join(&mut device, 2)];
    let mut outbox = Outbox::default();
    let lag = |guest: &Joined, queue: usize| {
        let driver = guest.positions(role::DRIVER_POSITIONS)[queue];
        let device = guest.positions(role::DEVICE_POSITIONS)[queue];
        assert_eq!((driver.kind, driver.size), (rings, QUEUE_SIZE));
        let Lag { available, used } = RingState::lag(&driver, &device).unwrap();
        (available.unwrap(), used.unwrap())
    };
    // A tagged ring's wall takes up an entry.
    let room = match rings.format {
        RingFormat::Tagged => QUEUE_SIZE - 1,
        _ => QUEUE_SIZE,
    };
    for guest in &mut guests {
        let _ = guest.driver.flush();
    }
    assert_eq!(lag(&guests[1], 0), (room, 0));
    assert_eq!(lag(&guests[0], 1), (0, 0));

    for _ in 0..3 {
        guests[0].send_to_all();
    }
    assert_eq!(lag(&guests[0], 1), (3, 0), "sent, and not seen yet");
    let _ = device.signalled(SessionId(1), role::TRANSMITQ1_DRIVER, &mut outbox);
    assert_eq!(
        lag(&guests[0], 1),
        (0, 3),
        "the driver takes back when it must"
    );
    assert_eq!(lag(&guests[1], 0), (room - 3, 3));
    while guests[1].receives() {}
    let _ = guests[1].driver.flush();
    assert_eq!(lag(&guests[1], 0), (room, 0));

    // In the middle of a turn too: whoever looks at a busy ring finds neither side ahead of what the other published.
    let mut sent = 0;
    while guests[0].driver.can_send() && sent < 40 {
        let mut frame = FRAME;
        frame[6..12].copy_from_slice(&guests[0].mac.0);
        let _ = guests[0].driver.send(&frame, Checksum::InFrame).unwrap();
        sent += 1;
    }
    assert_eq!(lag(&guests[0], 1), (32, 3), "two batches of 16");
}

/// A file in memory.
#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for File {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_recording_begins_with_the_first_guest_and_ticks_at_its_pace() {
    let distance = Duration::from_millis(20);
    let file = File::default();
    let mut recorder = Recorder::new(Box::new(file.clone()), "memory".to_owned()).unwrap();
    let mut frame = FRAME;
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    for time in [Duration::ZERO, distance, 2 * distance] {
        recorder.record(&frame, UNIX_EPOCH + time);
    }
    assert_eq!(recorder.finish().unwrap(), 3);
    let bytes = file.0.lock().unwrap().clone();
    let input = Box::new(std::io::Cursor::new(bytes));
    let replay = Replay::new(input, "memory".to_owned(), Pace::AsRecorded).unwrap();

    let mut device = NetDevice::new(DEFAULT_MTU).unwrap();
    device.add_replay(replay).unwrap();
    let mut outbox = Outbox::default();
    assert_eq!(device.resume(&mut outbox), Progress::Idle);
    assert_eq!(device.next_tick(), None, "nobody is there to see it");

    let mut guest = join(&mut device, 1);
    let start = monotonic_ns();
    assert_eq!(device.resume(&mut outbox), Progress::Idle);
    assert!(guest.receives() && !guest.receives());
    for number in 1..=2_u64 {
        let due = device.next_tick().unwrap();
        assert!(due >= start + number * distance.as_nanos() as u64);
        assert_eq!(device.tick(due - 1, &mut outbox), Progress::Idle);
        assert!(!guest.receives(), "frame {number} is not due");
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(monotonic_ns()) + 1));
        assert_eq!(device.tick(monotonic_ns(), &mut outbox), Progress::Idle);
        assert!(guest.receives() && !guest.receives(), "frame {number}");
    }
    assert_eq!(device.next_tick(), None);
}

/// What cannot be done in one turn is said to be left, also by a tick.
#[test]
fn a_tick_that_stops_at_its_budget_says_so() {
    let file = File::default();
    let mut recorder = Recorder::new(Box::new(file.clone()), "memory".to_owned()).unwrap();
    let mut frame = FRAME;
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    let later = UNIX_EPOCH + Duration::from_millis(1);
    recorder.record(&frame, UNIX_EPOCH);
    for _ in 0..2 * BUDGET {
        recorder.record(&frame, later);
    }
    recorder.finish().unwrap();
    let bytes = file.0.lock().unwrap().clone();
    let input = Box::new(std::io::Cursor::new(bytes));
    let mut device = NetDevice::new(DEFAULT_MTU).unwrap();
    device
        .add_replay(Replay::new(input, "memory".to_owned(), Pace::AsRecorded).unwrap())
        .unwrap();
    let _guest = join(&mut device, 1);
    let mut outbox = Outbox::default();
    assert_eq!(device.resume(&mut outbox), Progress::Idle);
    let due = device.next_tick().unwrap();
    std::thread::sleep(Duration::from_nanos(due.saturating_sub(monotonic_ns()) + 1));
    assert_eq!(device.tick(due, &mut outbox), Progress::More);
    assert_eq!(device.resume(&mut outbox), Progress::More);
    assert_eq!(device.resume(&mut outbox), Progress::Idle);
    let mut counters = [0; COUNTERS];
    device.counters(&mut counters);
    let frames = COUNTER_NAMES
        .iter()
        .position(|name| *name == "frames")
        .unwrap();
    assert_eq!(counters[frames], u64::from(1 + 2 * BUDGET));
}

#[test]
fn a_driver_that_starts_again_has_one_turn_and_not_two() {
    let mut device = NetDevice::new(DEFAULT_MTU).unwrap();
    for _ in 0..3 {
        let _guest = join(&mut device, 7);
    }
    assert_eq!(device.busy.len(), 1);
    device.leave(SessionId(7), &mut Outbox::default());
    assert_eq!(device.progress(), Progress::Idle);
}

/// The format is that of the memory; whether buffers are used in order is the driver's choice too.
#[test]
fn a_driver_may_decline_the_order_and_not_the_format() {
    for rings in RingKind::ALL {
        let accepted = rings.format == RingFormat::Split;
        let mut device = NetDevice::with_rings(rings, DEFAULT_MTU).unwrap();
        let session = SessionId(1);
        let words = device.config(session);
        let config = NetConfig::decode_words(&[words[0], words[1]]).unwrap();
        let regions = regions(&device);
        let declined = crate::net::queues::DRIVER_FEATURES;
        let attached = attach(&regions, &config, declined);
        assert_eq!(attached.is_ok(), accepted);
        let activated = device.activate(session, &regions, declined.into());
        assert_eq!(activated.is_ok(), accepted);
        if let Err(error) = activated {
            assert!(error.to_string().contains("not negotiated"), "{error}");
        }
    }
}
