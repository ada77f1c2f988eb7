//! Clocks over a real bus, read with counters that are not the host's: told, estimated, and changed under way.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shmbus::devices::SessionId;
use shmbus::devices::clock::device::{ClockDevice, role};
use shmbus::devices::clock::{
    ClockControl, ClockDriver, ClockError, ClockKind, Counter, CounterDomain, CounterTransform,
    DisciplineLimits, EstimateLimits, HostClocks, InjectedCounter, Reading, Ticks, TimelineError,
    TransformSource, monotonic_ns, realtime_ns,
};
use shmbus::guest::{GuestEvent, clock_driver_over, estimate_counter};
use shmbus::shm::{Bytes, Mapped, Window};
use shmbus::{Bus, Guest};

use support::{Process, Scratch, program};

/// The clock of a host in another process, with guests' counters that relate to its own so.
struct ClockHost {
    scratch: Scratch,
    _host: Process,
}

impl ClockHost {
    fn start(guest_counter: &str) -> Self {
        let scratch = Scratch::new();
        let mut command = program();
        command.arg("host").arg("--socket").arg(scratch.path("bus"));
        command.args(["--device", "clock", "--guest-counter", guest_counter]);
        let host = Process::start(&mut command);
        host.said("serving");
        Self {
            scratch,
            _host: host,
        }
    }

    fn guest(&self, arguments: &[&str]) -> support::Finished {
        let mut command = program();
        command
            .arg("guest")
            .arg("--socket")
            .arg(self.scratch.path("bus"));
        Process::start(command.arg("clock").args(arguments)).finish()
    }
}

/// Thousands of readings, each between two of the host's own clock: none lies outside of what it claims, whether the
/// counter is the host's, is another one that the host knows of, or one that the guest must find out about.
#[test]
fn the_time_is_within_its_bound_with_any_counter() {
    for (host, guest) in [
        ("same", &[][..]),
        (
            "0.5:-500",
            &["--counter-scale", "2", "--counter-offset", "1000"],
        ),
        ("unknown", &[]),
        ("unknown", &["--counter-offset", "-123456789012345"]),
        (
            "unknown",
            &["--counter-scale", "0.37", "--counter-offset", "99"],
        ),
        ("unknown", &["--counter-scale", "3.1415"]),
    ] {
        let arguments = [&["--count", "2", "--max-error", "10000000"], guest].concat();
        let bus = ClockHost::start(host);
        let clock = bus.guest(&arguments).expect_success();
        let rows: Vec<Vec<&str>> = clock
            .text()
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 4, "{clock}");
        for row in rows.iter().filter(|row| row[0] == "monotonic") {
            assert_eq!(row[5], "0", "outside: {clock}");
        }
    }
}

#[test]
fn a_bound_that_cannot_be_had_and_a_counter_that_is_not_the_one_told_are_refused() {
    let bus = ClockHost::start("unknown");
    let clock = bus.guest(&["--count", "1", "--max-error", "1"]);
    clock.expect_error(&["1 ns were asked for"]);
    // The bus is none the worse.
    let arguments = ["--count", "1", "--max-error", "10000000"];
    bus.guest(&arguments).expect_success();
    let bus = ClockHost::start("same");
    bus.guest(&["--count", "1", "--counter-offset", "-99999999999999"])
        .expect_error(&["clock"]);
}

/// A guest's counter, which another host's may take the place of.
#[derive(Clone)]
struct Movable {
    offset: Arc<AtomicU64>,
}

impl Movable {
    fn set(&self, offset: u64) {
        self.offset.store(offset, Ordering::SeqCst);
    }

    /// What the VMM knows: the host's count is the guest's less the offset.
    fn transform(&self) -> CounterTransform {
        CounterTransform {
            source: TransformSource::Supplied,
            offset: self.offset.load(Ordering::SeqCst).wrapping_neg(),
            ..CounterTransform::identity(self.domain())
        }
    }
}

impl Ticks for Movable {
    fn domain(&self) -> CounterDomain {
        Counter::detect().domain()
    }

    fn now(&self) -> u64 {
        Counter::detect()
            .now()
            .wrapping_add(self.offset.load(Ordering::SeqCst))
    }
}

/// A host in a thread, as in a VMM's process.
struct Vmm {
    _scratch: Scratch,
    guest: Guest,
    session: SessionId,
    control: ClockControl,
    _stopper: std::io::PipeWriter,
}

impl Vmm {
    /// With `transform` for its guest's counter, and a driver over `counter`.
    fn start<C: Ticks>(
        transform: CounterTransform,
        page: Option<ClockKind>,
        counter: C,
    ) -> (Self, ClockDriver<Mapped, C>) {
        let scratch = Scratch::new();
        let path = scratch.path("bus");
        let clocks = HostClocks::calibrate(Counter::detect(), DisciplineLimits::default()).unwrap();
        let session = Arc::new(Mutex::new(None));
        let asked = Arc::clone(&session);
        let mut device = ClockDevice::new(clocks).unwrap().guest_counters(move |id| {
            *asked.lock().unwrap() = Some(id);
            transform
        });
        if let Some(clock) = page {
            device = device.with_vmclock(clock);
        }
        let control = device.control().unwrap();
        let mut bus = Bus::builder().device(device).listen(&path).unwrap();
        let (stop, stopper) = std::io::pipe().unwrap();
        std::thread::spawn(move || bus.run(stop));
        let mut guest = Guest::connect(&path, "vm", Duration::from_secs(20)).unwrap();
        let limits = EstimateLimits {
            max_error_ns: 10_000_000,
            ..EstimateLimits::default()
        };
        let driver = clock_driver_over(&mut guest, 0, counter, limits).unwrap();
        let session = session.lock().unwrap().unwrap();
        let vmm = Self {
            _scratch: scratch,
            guest,
            session,
            control,
            _stopper: stopper,
        };
        (vmm, driver)
    }

    /// Waits until the host signals the guest of a disruption.
    fn is_told(&mut self) -> bool {
        while self.guest.wait(Some(support::LIMIT)).unwrap() {
            while let Some(event) = self.guest.next_event() {
                if let GuestEvent::Signalled {
                    device: 0,
                    role: role::NOTICES,
                } = event
                {
                    return true;
                }
            }
        }
        false
    }

    /// Whether there is a signal by now.
    fn was_told(&mut self) -> bool {
        let mut told = false;
        while self.guest.wait(Some(Duration::ZERO)).unwrap() {
            while let Some(event) = self.guest.next_event() {
                told |= matches!(
                    event,
                    GuestEvent::Signalled {
                        role: role::NOTICES,
                        ..
                    }
                );
            }
        }
        told
    }
}

#[track_caller]
fn read_within_the_bound<C: Ticks>(driver: &mut ClockDriver<Mapped, C>) -> Reading {
    let before = monotonic_ns();
    let reading = driver.now(ClockKind::Monotonic).unwrap();
    let after = monotonic_ns();
    let possible = before - reading.error_ns..=after + reading.error_ns;
    assert!(
        possible.contains(&reading.time_ns),
        "{reading:?} outside {possible:?}"
    );
    reading
}

/// A guest is migrated: to a host that knows its counter, to one that does not, and while nobody says so.
#[test]
fn each_migration_is_noticed_once_and_time_is_right_again() {
    let counter = Movable {
        offset: Arc::default(),
    };
    counter.set(5_000_000_000_000);
    let (mut vmm, mut clock) = Vmm::start(counter.transform(), None, counter.clone());
    let first = read_within_the_bound(&mut clock);
    // Samples are published all the time, and nobody is woken for them.
    while read_within_the_bound(&mut clock).time_ns < first.time_ns + 200_000_000 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!vmm.was_told());
    assert_eq!(clock.disruptions().unwrap(), 0);
    assert_eq!(
        read_within_the_bound(&mut clock).disruption,
        first.disruption
    );

    // Each time while the guest stands still, as it does when it is migrated.
    let mut marker = first.disruption;
    for offset in [77, 1 << 60, 5_000] {
        counter.set(offset);
        vmm.control
            .disrupt(vmm.session, counter.transform())
            .unwrap();
        assert!(vmm.is_told());
        assert_eq!(clock.disruptions().unwrap(), 1);
        assert_eq!(clock.disruptions().unwrap(), 0, "each once");
        let reading = read_within_the_bound(&mut clock);
        assert_ne!(reading.disruption, marker);
        marker = reading.disruption;
        for _ in 0..1_000 {
            assert_eq!(read_within_the_bound(&mut clock).disruption, marker);
        }
    }

    counter.set(123_456_789);
    let domain = counter.domain();
    let unknown = CounterTransform::unknown(domain, domain);
    vmm.control.disrupt_all(unknown).unwrap();
    assert!(vmm.is_told());
    assert_eq!(clock.disruptions().unwrap(), 1);
    let refused = ClockError::Sample {
        clock: ClockKind::Monotonic,
        error: TimelineError::NoTransform,
    };
    assert_eq!(clock.now(ClockKind::Monotonic), Err(refused));
    assert!(clock.must_estimate().unwrap());
    estimate_counter(&mut vmm.guest, 0, &mut clock).unwrap();
    let estimated = read_within_the_bound(&mut clock);
    assert_ne!(estimated.disruption, marker);

    // Nobody says so: the next exchange does.
    counter.set(1 << 50);
    estimate_counter(&mut vmm.guest, 0, &mut clock).unwrap();
    let found = read_within_the_bound(&mut clock);
    assert_ne!(found.disruption, estimated.disruption);
    assert!(!vmm.was_told());
    vmm.guest.leave();
}

/// A reader of VMClock pages that knows nothing but the published ABI: offsets and units are written down here from
/// `include/uapi/linux/vmclock-abi.h` of Linux.
mod vmclock {
    use super::*;

    pub(super) struct Told {
        pub(super) time_type: u8,
        pub(super) disruption_marker: u64,
        pub(super) clock_status: u8,
        pub(super) flags: u64,
        pub(super) ns: u64,
        /// In nanoseconds, with the period's over the distance.
        pub(super) esterror_ns: u64,
        pub(super) maxerror_ns: u64,
    }

    /// Tries a bounded number of times, as a reader of a plain sequence count must.
    pub(super) fn read(page: &Mapped, counter: impl Fn() -> u64) -> Option<Told> {
        assert_eq!(page.len(), 4096);
        let bytes = Bytes::new(page, 0, 112).unwrap();
        for _ in 0..1_000 {
            let mut sequence = [0; 4];
            bytes.copy_to(12, &mut sequence);
            let begun = u32::from_le_bytes(sequence);
            if begun & 1 == 1 {
                std::hint::spin_loop();
                continue;
            }
            page.fence(Ordering::Acquire);
            let mut copy = [0; 112];
            bytes.copy_to(0, &mut copy);
            let now = counter();
            page.fence(Ordering::Acquire);
            bytes.copy_to(12, &mut sequence);
            if u32::from_le_bytes(sequence) == begun {
                return Some(interpret(&copy, now));
            }
        }
        None
    }

    fn interpret(page: &[u8; 112], now: u64) -> Told {
        let u64_at = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        assert_eq!(page[0..4], 0x4b4c_4356_u32.to_le_bytes(), "magic");
        assert_eq!(page[4..8], 4096_u32.to_le_bytes(), "size");
        assert_eq!(page[8..10], 1_u16.to_le_bytes(), "version");
        let (counter_id, time_type, clock_status, shift) = (page[10], page[11], page[34], page[39]);
        assert!(matches!(counter_id, 0 | 1 | 0xff));
        let delta = now.wrapping_sub(u64_at(40));
        // Seconds in units of 2^-64.
        let elapsed = |period: u64| (u128::from(delta) * u128::from(period)) >> shift;
        let in_ns = |units: u128| {
            let fraction = (units & u128::from(u64::MAX)) * 1_000_000_000;
            (units >> 64) as u64 * 1_000_000_000 + (fraction >> 64) as u64
        };
        let time = (u128::from(u64_at(72)) << 64) + u128::from(u64_at(80)) + elapsed(u64_at(48));
        Told {
            time_type,
            disruption_marker: u64_at(16),
            clock_status,
            flags: u64_at(24),
            ns: in_ns(time),
            esterror_ns: u64_at(88) + in_ns(elapsed(u64_at(56))),
            maxerror_ns: u64_at(96) + in_ns(elapsed(u64_at(64))),
        }
    }
}

#[test]
fn a_vmclock_page_tells_the_time_to_a_reader_of_the_published_abi() {
    const UNRELIABLE: u8 = 4;
    let host = Counter::detect();
    let Some(1 | 0) = Some(host.domain() as u8) else {
        eprintln!("SKIPPED: the ABI has no number for this machine's counter");
        return;
    };
    // Nine guest ticks for each four of the host's, and from another start.
    let counter = InjectedCounter::new(host, 9 << 46, 1_000_000);
    let transform = counter.transform(10).unwrap();
    for (kind, own_clock) in [
        (ClockKind::Monotonic, monotonic_ns as fn() -> u64),
        (ClockKind::Utc, realtime_ns),
    ] {
        let (mut vmm, mut clock) = Vmm::start(transform, Some(kind), counter);
        let page = vmm.guest.regions(0).get(role::VMCLOCK).unwrap().clone();
        let (mut readings, mut marker) = (0, 0);
        let until = monotonic_ns() + 300_000_000;
        while monotonic_ns() < until {
            let before = own_clock();
            let told = vmclock::read(&page, || counter.now()).unwrap();
            let after = own_clock();
            marker = told.disruption_marker;
            assert_eq!(told.time_type, kind as u8);
            assert_ne!(told.clock_status, UNRELIABLE);
            // Period and time have an estimated error; of the host's own clock, it is the greatest.
            let valid = if kind == ClockKind::Monotonic {
                0x78
            } else {
                0x28
            };
            assert_eq!(told.flags & 0x78, valid);
            let error_ns = told.esterror_ns;
            assert_eq!(told.maxerror_ns, error_ns);
            if kind == ClockKind::Utc && told.ns.abs_diff(before) > 1_000_000_000 {
                continue; // The wall clock was set.
            }
            let possible = before - error_ns..=after + error_ns;
            assert!(
                possible.contains(&told.ns),
                "{} outside {possible:?}",
                told.ns
            );
            readings += 1;
        }
        assert!(readings > 0);

        let domain = host.domain();
        let unknown = CounterTransform::unknown(domain, domain);
        vmm.control.disrupt(vmm.session, unknown).unwrap();
        assert!(vmm.is_told());
        assert_eq!(clock.disruptions().unwrap(), 1);
        // The page follows the signal at once.
        support::eventually("the page says so", || {
            let told = vmclock::read(&page, || counter.now()).unwrap();
            (told.disruption_marker != marker && told.clock_status == UNRELIABLE).then_some(())
        });
    }
}
