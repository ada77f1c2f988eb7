//! What a session holds: the bus's own regions, and the payloads of its tables.

use std::collections::BTreeSet;
use std::time::Duration;

use shmbus::control::{DeviceOffer, DriverState};
use shmbus::counters::{Counters, Totals};
use shmbus::{Bus, Guest, inspect};
use shmbus_devices::clock::device::ClockDevice;
use shmbus_devices::clock::twin::ClockTwin;
use shmbus_devices::clock::{
    Answer, ClockKind, ClockSample, Counter, CounterNotice, DisciplineLimits, HostClocks, Question,
};
use shmbus_devices::intc::device::{IntcDevice, IntcOptions};
use shmbus_devices::intc::{Control, Wire};
use shmbus_devices::lane::{Carrier, Reading, RingCarrier};
use shmbus_devices::net::config::DEFAULT_MTU;
use shmbus_devices::net::device::NetDevice;
use shmbus_devices::timer::device::{TimerDevice, TimerOptions};
use shmbus_devices::timer::{Deadline, Expiration};
use shmbus_devices::{CONFIG_WORDS, COUNTERS, RingState, counter_names};
use shmbus_ring::{Positions, RingKind};
use shmbus_shm::RingFormat;
use shmbus_signal::CLASSES;
use shmbus_table::Value;
use shmbus_virtio::{DeviceId, DeviceStatus, Features, PrivateFeatures};

use crate::document::{DOC, check_numbers, check_payload, number, table};

/// What a document's table of roles or a running bus says of a region: its role, its memory, what runs on it.
type RegionOf = (u64, String, String);

/// The regions that a table of roles tells of; those of a class stand for all classes.
fn told_regions(section: &str, column: &str) -> BTreeSet<RegionOf> {
    let mut regions = BTreeSet::new();
    for row in table(section, column).rows {
        let [_, role, memory, kind, _] = row[..] else {
            panic!("{row:?}");
        };
        let (first, count) = match role.split_once(" + ") {
            Some((first, "class")) => (first, CLASSES as u64),
            _ => (role, 1),
        };
        for role in (number(first)..).take(count as usize) {
            regions.insert((role, memory.to_owned(), kind.to_owned()));
        }
    }
    regions
}

#[test]
fn a_running_bus_has_the_regions_told_of() {
    for rings in RingKind::ALL {
        check_regions(rings);
    }
}

fn clock_twin(kind: RingKind) -> ClockTwin {
    let clocks = HostClocks::calibrate(Counter::detect(), DisciplineLimits::default()).unwrap();
    let rings = RingCarrier {
        kind,
        size: 8,
        reading: Reading::Last,
    };
    ClockTwin::new(clocks, rings).unwrap()
}

fn timer_twin(kind: RingKind) -> TimerDevice {
    let options = TimerOptions {
        vcpus: 1,
        timers: 3,
        carrier: Carrier::Ring(RingCarrier {
            kind,
            size: 8,
            reading: Reading::Last,
        }),
    };
    TimerDevice::with(options).unwrap()
}

fn intc_twin(kind: RingKind) -> IntcDevice {
    let carrier = Carrier::Ring(RingCarrier {
        kind,
        size: 8,
        reading: Reading::Last,
    });
    IntcDevice::with(IntcOptions { lines: 3, carrier }).unwrap()
}

/// The regions of a twin, which the document lists once for all formats; a test names those of packed and tagged rings
/// alike.
fn as_rings_of(format: RingFormat, told: BTreeSet<RegionOf>) -> BTreeSet<RegionOf> {
    let ring = match format {
        RingFormat::Split => "Split ring",
        RingFormat::Packed | RingFormat::Tagged => "Packed ring",
    };
    told.into_iter()
        .filter(|(_, memory, _)| format != RingFormat::Split || memory != "COMMON")
        .map(|(role, memory, kind)| match kind.as_str() {
            "ring" => (role, memory, ring.to_owned()),
            _ => (role, memory, kind),
        })
        .collect()
}

fn check_regions(rings: RingKind) {
    let roles_of_net = match rings.format {
        RingFormat::Split => "role",
        RingFormat::Packed | RingFormat::Tagged => "role of packed",
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let clocks = HostClocks::calibrate(Counter::detect(), DisciplineLimits::default()).unwrap();
    let mut bus = Bus::builder()
        .device(NetDevice::with_rings(rings, DEFAULT_MTU).unwrap())
        .device(
            ClockDevice::new(clocks)
                .unwrap()
                .with_vmclock(ClockKind::Utc),
        )
        .device(TimerDevice::new(3).unwrap())
        .device(IntcDevice::new(3).unwrap())
        .device(timer_twin(rings))
        .device(clock_twin(rings))
        .device(intc_twin(rings))
        .listen(&path)
        .unwrap();
    let (stop, stopper) = std::io::pipe().unwrap();
    let host = std::thread::spawn(move || bus.run(stop));
    let guest = Guest::connect(&path, "abi", Duration::from_secs(20)).unwrap();
    let view = inspect::look(&path).unwrap();
    guest.leave();
    drop(stopper);
    host.join().unwrap().unwrap();

    let regions = &view.guests[0].regions;
    for (device, section, roles) in [
        (None, "Session", "role"),
        (Some(0), "Net", roles_of_net),
        (Some(1), "Clock", "role"),
        (Some(2), "Timer", "role"),
        (Some(3), "Interrupt controller", "role"),
        (Some(4), "Timer", "role of a twin"),
        (Some(5), "Clock", "role of a clock's twin"),
        (Some(6), "Interrupt controller", "role of a twin"),
    ] {
        let found: BTreeSet<RegionOf> = regions
            .iter()
            .filter(|region| region.device == device)
            .map(|region| {
                let kind = match region.kind.split_once(" of ") {
                    Some(("table", size)) => {
                        format!("table of {}", size.split_once("x ").unwrap().1)
                    }
                    // The document has one table for both formats.
                    Some((ring, _)) => ring.replace("Tagged", "Packed"),
                    None => region.kind.clone(),
                };
                (region.role.into(), region.memory.clone(), kind)
            })
            .collect();
        let mut told = told_regions(section, roles);
        if roles.ends_with(" twin") {
            told = as_rings_of(rings.format, told);
        }
        assert_eq!(found, told, "{section}, {rings}");
    }
    let signalled = regions.iter().filter(|region| region.channel.is_some());
    assert!(signalled.count() > 0);
    for region in regions {
        if region.kind == "raw" && region.bytes % 4096 == 0 {
            assert_eq!(region.offset % 4096, 0, "{region:?}");
        }
        let is_alone = ["HOST", "GUEST"].contains(&region.memory.as_str());
        assert!(region.channel.is_none() || is_alone, "{region:?}");
    }
}

#[test]
fn payloads_have_the_types_told_of() {
    fn row<V: Value>(name: &str) -> Vec<String> {
        let letters = V::TYPE_ID.to_le_bytes();
        let letters = std::str::from_utf8(&letters).unwrap();
        let bytes = (8 * V::WORDS).to_string();
        vec![name.to_owned(), format!("`{letters}`"), bytes]
    }
    let expected = [
        row::<DeviceOffer>("device offer"),
        row::<DriverState>("driver state"),
        row::<Counters>("counters"),
        row::<RingState>("ring state"),
        row::<ClockSample>("clock sample"),
        row::<CounterNotice>("counter notice"),
        row::<Question>("question"),
        row::<Answer>("answer"),
        row::<Deadline>("deadline"),
        row::<Expiration>("expiration"),
        row::<Wire>("wire"),
        row::<Control>("control"),
    ];
    assert_eq!(table("Session", "payload").rows, expected);
}

#[test]
fn devices_and_drivers_meet_in_the_tables_told_of() {
    let features = Features::from_words([0x0102, 0x0103]);
    let private = PrivateFeatures::from_bits_retain(0x0304);
    let offer = DeviceOffer {
        id: DeviceId(0x0506),
        features,
        private,
        status: DeviceStatus::DEVICE_NEEDS_RESET,
        config: std::array::from_fn(|index| 0x0700 + index as u64),
    };
    assert_eq!(CONFIG_WORDS, 8);
    let needs_reset = u64::from(DeviceStatus::DEVICE_NEEDS_RESET.bits());
    assert!(DOC.contains(&format!("DEVICE_NEEDS_RESET ({needs_reset:#04x})")));
    check_payload(
        &table("Device table", "offset"),
        &offer,
        &[
            ("device type", 0x0506),
            ("status", needs_reset),
            ("features", 0x0102),
            ("private features", 0x0304),
            ("configuration", 0x0700),
        ],
    );
    check_numbers(
        &table("Device table", "device"),
        &[
            ("net", DeviceId::NET.0.into()),
            ("clock", DeviceId::CLOCK.0.into()),
            ("timer", DeviceId::TIMER.0.into()),
            ("intc", DeviceId::INTC.0.into()),
        ],
    );
    check_payload(
        &table("Driver table", "offset"),
        &DriverState {
            status: 0x0f,
            features,
            private,
        },
        &[
            ("status", 0x0f),
            ("features", 0x0102),
            ("private features", 0x0304),
        ],
    );
}

#[test]
fn counters_have_the_order_told_of() {
    let counters = Counters {
        device: DeviceId(0x0102),
        values: std::array::from_fn(|index| 0x0300 + index as u64),
    };
    assert_eq!(COUNTERS, 16);
    check_payload(
        &table("Counters", "offset"),
        &counters,
        &[("device type", 0x0102), ("counters", 0x0300)],
    );
    let totals = Counters::from(Totals {
        guests: 1,
        guests_ever: 2,
        signals_sent: 3,
        signals_suppressed: 4,
    });
    let expected = [
        (
            "bus",
            "guests, guests_ever, signals_sent, signals_suppressed".to_owned(),
        ),
        ("net", counter_names(DeviceId::NET).join(", ")),
        ("clock", counter_names(DeviceId::CLOCK).join(", ")),
        ("timer", counter_names(DeviceId::TIMER).join(", ")),
        ("intc", counter_names(DeviceId::INTC).join(", ")),
    ];
    assert_eq!(
        (totals.device.0, &totals.values[..5]),
        (0, &[1, 2, 3, 4, 0][..])
    );
    let told = table("Counters", "of");
    assert_eq!(told.rows.len(), expected.len());
    for (row, (of, names)) in told.rows.iter().zip(expected) {
        assert_eq!(row[..], [of, &names]);
    }
}

#[test]
fn rings_have_the_state_told_of() {
    let state = RingState {
        kind: RingKind::in_order(RingFormat::Packed),
        size: 0x0708,
        positions: Positions {
            available: 0x8304,
            used: 0x0506,
            in_flight: 0x0007,
        },
    };
    check_payload(
        &table("Ring state", "offset"),
        &state,
        &[
            ("entries", 0x0708),
            ("format", RingFormat::Packed as u64 | 128),
            ("available", 0x8304),
            ("used", 0x0506),
            ("in flight", 7),
        ],
    );
    let told: BTreeSet<&str> = table("Ring state", "ring format")
        .rows
        .iter()
        .map(|row| row[0])
        .collect();
    let formats = RingKind::ALL.map(|kind| format!("{:?}", kind.format));
    assert_eq!(told, formats.iter().map(String::as_str).collect());
}

/// What the document says of positions, done by its words.
#[test]
fn positions_are_apart_as_told_of() {
    let size = 5;
    let lap = |from: u16, to: u16| {
        let linear =
            |position: u16| u32::from(position & 0x7fff) + if position >> 15 == 1 { 0 } else { 5 };
        (linear(to) + 10 - linear(from)) % 10
    };
    let positions: Vec<u16> = (0..5).chain(0x8000..0x8005).collect();
    for from in &positions {
        for to in &positions {
            let apart = lap(*from, *to) as u16;
            let expected = (apart <= size).then_some(apart);
            assert_eq!(
                RingKind::plain(RingFormat::Packed).entries_between(*from, *to, size),
                expected
            );
        }
    }
    assert_eq!(
        RingKind::plain(RingFormat::Split).entries_between(65535, 2, 4),
        Some(3)
    );
    assert_eq!(
        RingKind::plain(RingFormat::Split).entries_between(65535, 4, 4),
        None
    );
}
