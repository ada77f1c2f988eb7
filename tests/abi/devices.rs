//! What the device types lay out.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::num::NonZeroU64;

use shmbus_devices::clock::{
    Answer, ClockKind, ClockSample, ClockStatus, CounterDomain, CounterNotice, CounterTransform,
    Leap, Question, Rate, TransformSource, VMCLOCK_BYTES, VmclockPage,
};
use shmbus_devices::intc::device::{IntcDevice, IntcOptions};
use shmbus_devices::intc::{Control, LinePriority, Wire};
use shmbus_devices::lane::{Carrier, Lane, Reading, RingCarrier};
use shmbus_devices::net::config::{DEFAULT_MTU, MAX_MTU, NetConfig};
use shmbus_devices::net::device::NetDevice;
use shmbus_devices::net::mac_address::MacAddress;
use shmbus_devices::net::queues::QueueMemory;
use shmbus_devices::timer::device::{TimerDevice, TimerOptions};
use shmbus_devices::timer::{Deadline, Expiration, TimerDriver, TimerLanes};
use shmbus_devices::{Device, SessionId};
use shmbus_ring::{RingKind, any, split};
use shmbus_shm::{RegionKind, RingFormat, Section};
use shmbus_table::{Generation, Value};

use crate::document::{
    DocTable, check_examples, check_numbers, check_payload, check_structure, contents, nth_table,
    number, table, to_bytes,
};

#[test]
fn a_net_device_has_the_memory_told_of() {
    check_examples(&table("Net", "entries"), |[entries]| {
        let ring = split::Layout::new(entries as u16).unwrap();
        assert_eq!(ring.descriptors_offset(), 0);
        [
            ring.available_offset(),
            ring.driver_bytes(),
            ring.used_offset(),
            ring.device_bytes(),
        ]
    });
    check_examples(&table("Net", "entries of packed"), |[entries]| {
        let bytes = |format| {
            let ring = any::Layout::new(format, entries as u16).ok()?;
            Some([
                ring.driver_bytes(),
                ring.device_bytes(),
                ring.common_bytes(),
            ])
        };
        let packed = bytes(RingFormat::Packed).unwrap();
        let tagged = bytes(RingFormat::Tagged).unwrap_or(packed);
        assert_eq!(tagged, packed);
        packed
    });
    check_examples(&table("Net", "MTU"), |[mtu]| {
        let memory = QueueMemory::new(256, mtu as u16).unwrap();
        [memory.buffer_bytes() as usize]
    });
    assert_eq!(table("Net", "MTU").rows[2][0], MAX_MTU.to_string());

    let device = NetDevice::new(DEFAULT_MTU).unwrap();
    let memory = QueueMemory::new(256, DEFAULT_MTU).unwrap();
    let regions = device.regions();
    let buffers = regions
        .iter()
        .filter(|region| region.section == Section::Common);
    for region in buffers {
        let params = [memory.buffer_bytes().into(), 256];
        assert_eq!(region.kind, RegionKind::Raw { params });
        assert_eq!(region.bytes, memory.buffers_bytes());
    }

    let config = NetConfig {
        mtu: 0x0708,
        ..NetConfig::new(MacAddress([2, 3, 4, 5, 6, 7]))
    };
    check_structure(
        &table("Net", "offset"),
        &to_bytes(&config.encode_words()),
        &[
            ("mac", 2),
            ("status", 1),
            ("max_virtqueue_pairs", 1),
            ("mtu", 0x0708),
        ],
    );
}

#[test]
fn clocks_have_the_payloads_told_of() {
    let sample = ClockSample {
        domain: CounterDomain::Tsc,
        clock: ClockKind::Monotonic,
        status: ClockStatus::FreeRunning,
        leap: Leap::AfterPositive,
        error_growth_ppb: 0x0102,
        counter: 0x0304,
        time_ns: 0x0506,
        rate: Rate::from_ratio(1, 2).unwrap(),
        error_ns: 0x0708,
        disruption: 0x090a,
        valid_for_ns: 0x0b0c,
    };
    check_payload(
        &nth_table("Clock", "offset", 0),
        &sample,
        &[
            ("counter domain", 1),
            ("clock", 2),
            ("status", 3),
            ("leap", 4),
            ("growth", 0x0102),
            ("counter", 0x0304),
            ("time", 0x0506),
            ("rate", 1 << 47),
            ("bound", 0x0708),
            ("disruption", 0x090a),
            ("validity", 0x0b0c),
        ],
    );
    let transform = CounterTransform {
        source: TransformSource::Estimated,
        reader: CounterDomain::Tsc,
        host: CounterDomain::MonotonicRaw,
        scale: 3 << 47,
        offset: 0x0102,
        error_ns: 0x0304,
    };
    check_payload(
        &nth_table("Clock", "offset", 1),
        &CounterNotice {
            transform,
            disruption: 0x0506,
            disruptions: 0x0708,
        },
        &[
            ("source", 3),
            ("the guest's counter domain", 1),
            ("the host's counter domain", 0x80),
            ("scale", 3 << 47),
            ("offset", 0x0102),
            ("error", 0x0304),
            ("disruption marker", 0x0506),
            ("disruptions", 0x0708),
        ],
    );
    assert_eq!(transform.to_host(4), 6 + 0x0102);
    let question = Question { sent: 0x0102 };
    check_payload(
        &nth_table("Clock", "offset", 2),
        &question,
        &[("counter", 0x0102)],
    );
    check_payload(
        &nth_table("Clock", "offset", 3),
        &Answer {
            to: question,
            host: 0x0304,
        },
        &[("counter", 0x0102), ("host's counter", 0x0304)],
    );
}

/// The page of a monotonic clock whose guest's counter is the host's.
#[test]
fn a_vmclock_page_has_the_layout_told_of() {
    let window = shmbus_shm::heap(VMCLOCK_BYTES);
    let mut page = VmclockPage::new(&window, ClockKind::Monotonic, CounterDomain::Tsc).unwrap();
    let sample = ClockSample {
        domain: CounterDomain::Tsc,
        clock: ClockKind::Monotonic,
        status: ClockStatus::Synchronized,
        leap: Leap::BeforePositive,
        error_growth_ppb: 1_000_000_000,
        counter: 0x0304,
        time_ns: 7_500_000_000,
        rate: Rate::ONE,
        error_ns: 0x0708,
        disruption: 0x0900,
        valid_for_ns: 0x0b0c,
    };
    let notice = CounterNotice {
        transform: CounterTransform::identity(CounterDomain::Tsc),
        disruption: 0x0a,
        disruptions: 1,
    };
    page.publish(&sample, &notice, Some(37));
    let flags = table("Clock", "flag");
    let all = flags.rows.iter().map(|row| number(row[1])).sum();
    // A nanosecond in units of 2^-(64 + 28) of a second.
    let (shift, period) = (28, ((1_u128 << (64 + 28)) / 1_000_000_000) as u64);
    check_structure(
        &nth_table("Clock", "offset", 4),
        &contents(&window)[..112],
        &[
            ("magic", u32::from_le_bytes(*b"VCLK").into()),
            ("size", 4096),
            ("version", 1),
            ("counter domain", 1),
            ("clock", 2),
            ("sequence", 4),
            ("disruption marker", 0x090a),
            ("flags", all),
            ("clock status", 2),
            ("TAI's offset", 37),
            ("leap second", 1),
            ("shift", shift),
            ("counter", 0x0304),
            ("period", period),
            ("estimated error of the period", period + 1),
            ("greatest error of the period", period + 1),
            ("seconds", 7),
            ("fraction", 1 << 63),
            ("estimated error of the time", 0x0708 + 6),
            ("greatest error of the time", 0x0708 + 6),
        ],
    );
}

#[test]
fn clocks_have_the_numbers_told_of() {
    use {ClockStatus as Status, CounterDomain as Domain, TransformSource as Source};
    fn check<T: Debug>(column: &str, known: &[T], number: impl Fn(&T) -> u8) {
        let names: Vec<_> = known.iter().map(|value| format!("{value:?}")).collect();
        let numbers = known.iter().map(|value| u64::from(number(value)));
        let expected: Vec<_> = names.iter().map(String::as_str).zip(numbers).collect();
        check_numbers(&table("Clock", column), &expected);
    }
    let domains = [
        Domain::Cntvct,
        Domain::Tsc,
        Domain::MonotonicRaw,
        Domain::Invalid,
    ];
    check("counter domain", &domains, |value| *value as u8);
    check("clock", &ClockKind::ALL, |value| *value as u8);
    let statuses = [
        Status::Unknown,
        Status::Initializing,
        Status::Synchronized,
        Status::FreeRunning,
        Status::Unreliable,
    ];
    check("clock status", &statuses, |value| *value as u8);
    let leaps = [
        Leap::None,
        Leap::BeforePositive,
        Leap::BeforeNegative,
        Leap::DuringPositive,
        Leap::AfterPositive,
        Leap::AfterNegative,
        Leap::Unknown,
    ];
    check("leap second", &leaps, |value| *value as u8);
    let sources = [
        Source::Invalid,
        Source::Identity,
        Source::Supplied,
        Source::Estimated,
    ];
    check("transform source", &sources, |value| *value as u8);
}

#[test]
fn timers_have_the_payloads_told_of() {
    check_payload(
        &nth_table("Timer", "offset", 0),
        &Deadline::Periodic {
            first_ns: 0x0102,
            period_ns: NonZeroU64::new(0x0304).unwrap(),
        },
        &[
            ("state: 0 off, 1 armed, 2 periodic", 2),
            ("deadline", 0x0102),
            ("period", 0x0304),
        ],
    );
    let mut off = [0; Deadline::WORDS];
    Deadline::Cancelled.encode(&mut off);
    assert_eq!(off, [0; Deadline::WORDS]);
    Deadline::At(7).encode(&mut off);
    assert_eq!(off, [1, 7, 0]);
    let answers = Generation::from_word(0x0001_0000_0000_0007).unwrap();
    check_payload(
        &nth_table("Timer", "offset", 1),
        &Expiration {
            answers,
            deadline_ns: 0x0102,
            fired_ns: 0x0304,
            count: NonZeroU64::new(0x0506).unwrap(),
        },
        &[
            ("generation", 0x0001_0000_0000_0007),
            ("due", 0x0102),
            ("when the host fired it", 0x0304),
            ("count", 0x0506),
        ],
    );

    let ring = RingCarrier {
        kind: RingKind::plain(RingFormat::Split),
        size: 4,
        reading: Reading::Last,
    };
    for (carrier, number) in [(Carrier::Table, 0), (Carrier::Ring(ring), 2)] {
        let options = TimerOptions {
            vcpus: 3,
            timers: 5,
            carrier,
        };
        let mut device = TimerDevice::with(options).unwrap();
        let config = device.config(SessionId(1));
        assert_eq!(config, [3, number, 5, 0, 0, 0, 0, 0]);
        if number != 0 {
            check_structure(
                &nth_table("Timer", "offset", 2),
                &to_bytes(&config),
                &[
                    ("virtual CPUs", 3),
                    ("carrier: 0 tables, 1 rings of which every", 2),
                    ("timers", 5),
                ],
            );
        }
        let roles = device.regions().iter().map(|region| region.role).max();
        assert!((2 * 16..3 * 16).contains(&roles.unwrap()));
    }
}

#[test]
fn lanes_over_rings_have_the_elements_told_of() {
    let ring = RingCarrier {
        kind: RingKind::plain(RingFormat::Split),
        size: 4,
        reading: Reading::Last,
    };
    let told = table("Lanes over rings", "payload bytes of a twin").rows;
    let strides = told.iter().map(|row| (number(row[0]), number(row[2])));
    let strides: BTreeMap<u64, u64> = strides.collect();
    let device = TimerDevice::with(TimerOptions {
        vcpus: 1,
        timers: 2,
        carrier: Carrier::Ring(ring),
    });
    let regions = device.unwrap().regions();
    for (role, words) in [(4, Deadline::WORDS), (7, Expiration::WORDS)] {
        let region = regions.iter().find(|region| region.role == role).unwrap();
        let stride = strides[&(8 * words as u64)];
        let params = [stride, ring.size.into()];
        assert_eq!(region.kind, RegionKind::Raw { params });
        assert_eq!(region.bytes as u64, stride * u64::from(ring.size));
    }

    // The first deadline that a guest sends lies at the start of its elements.
    let lanes = TimerLanes::on_heap(Carrier::Ring(ring), 0x0200).unwrap();
    let mut driver = TimerDriver::new(lanes.clone(), 0x0200).unwrap();
    let _ = driver.set(0x0102, 0x0304).unwrap();
    let Lane::Ring(deadlines) = lanes.deadlines else {
        panic!("it was asked for");
    };
    let mut element = contents(&deadlines.buffers);
    element.truncate(24);
    check_structure(
        &DocTable {
            rows: table("Lanes over rings", "offset")
                .rows
                .into_iter()
                .map(|mut row| {
                    row[1] = row[1].trim_end_matches("[payload]");
                    row
                })
                .collect(),
            ..table("Lanes over rings", "offset")
        },
        &element,
        &[
            ("slot", 0x0102),
            ("generation", 1 << 48 | 1),
            ("payload", 1),
        ],
    );
}

#[test]
fn interrupt_lines_have_the_payloads_told_of() {
    check_payload(
        &nth_table("Interrupt controller", "offset", 0),
        &Wire {
            asserted: true,
            edges: 0x0102,
            raised_ns: 0x0304,
        },
        &[
            ("level: 0 or 1", 1),
            ("number of the last edge", 0x0102),
            ("when the line was last given cause", 0x0304),
        ],
    );
    let control = Control {
        enabled: true,
        in_service: false,
        priority: LinePriority::new(30).unwrap(),
        claimed: 0x0102,
        ended: 0x0304,
        deliveries: 0x0506,
    };
    let told = nth_table("Interrupt controller", "offset", 1);
    let rows = |flags| {
        [
            ("flags: 1 enabled, 2 in service", flags),
            ("priority", 30),
            ("number of the last edge that was delivered", 0x0102),
            ("number of the last edge whose service", 0x0304),
            ("deliveries", 0x0506),
        ]
    };
    check_payload(&told, &control, &rows(1));
    let control = Control {
        enabled: false,
        in_service: true,
        ..control
    };
    check_payload(&told, &control, &rows(2));
    let ring = RingCarrier {
        kind: RingKind::plain(RingFormat::Split),
        size: 4,
        reading: Reading::Last,
    };
    for (carrier, number) in [(Carrier::Table, 0), (Carrier::Ring(ring), 2)] {
        let mut device = IntcDevice::with(IntcOptions { lines: 5, carrier }).unwrap();
        let config = device.config(SessionId(1));
        assert_eq!(config, [5, number, 0, 0, 0, 0, 0, 0]);
        if number != 0 {
            let rows = [
                ("lines of a guest", 5),
                ("carrier: 0 tables, 1 rings of which every", 2),
            ];
            let told = nth_table("Interrupt controller", "offset", 2);
            check_structure(&told, &to_bytes(&config), &rows);
        }
    }
    // What a slot stands for that was never written.
    assert_eq!(Control::default().priority, LinePriority::new(31).unwrap());
}
