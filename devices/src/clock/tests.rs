//! Host and guest together.

use std::sync::atomic::{AtomicBool, Ordering};

use shmbus_shm::{Mapped, heap};
use shmbus_table::{Epoch, TableWriter, TypedWriter};

use super::*;

fn memory() -> Mapped {
    heap(clock_table().unwrap().bytes())
}

/// A counter whose values differ from the machine's as a guest's do: `machine = shifted * 3/2 - 77`.
#[derive(Clone, Copy)]
struct Shifted(Counter);

const OFFSET: u64 = 77u64.wrapping_neg();

impl Ticks for Shifted {
    fn domain(&self) -> CounterDomain {
        self.0.domain()
    }

    fn now(&self) -> u64 {
        (self.0.now().wrapping_sub(OFFSET) as u128 * 2 / 3) as u64
    }
}

/// Reads a clock between two readings of the host's: what the host showed meanwhile lies within the bound. Nothing if
/// the sample was stale, as the thread did not get to run, or the wall clock was set.
fn check<C: Ticks>(reader: &mut ClockReader<Mapped, C>, clock: ClockKind) -> Option<Reading> {
    let host = match clock {
        ClockKind::Utc => realtime_ns,
        _ => monotonic_ns,
    };
    let before = host();
    let outcome = reader.now(clock);
    let after = host();
    let reading = match outcome {
        Ok(reading) => reading,
        Err(ClockError::Sample {
            error: TimelineError::Extrapolation(ExtrapolationError::Stale { .. }),
            ..
        }) => return None,
        Err(error) => panic!("{error}"),
    };
    if clock == ClockKind::Utc && reading.time_ns.abs_diff(before) > 500_000_000 {
        return None;
    }
    let earliest = before.saturating_sub(reading.error_ns);
    let latest = after.saturating_add(reading.error_ns);
    assert!(
        (earliest..=latest).contains(&reading.time_ns),
        "{clock}: {reading:?} outside {before}..={after}"
    );
    Some(reading)
}

#[test]
fn a_guest_tells_the_host_s_time_within_the_bound() {
    for counter in [Counter::detect(), Counter::monotonic_raw()] {
        let window = memory();
        let clocks = HostClocks::calibrate(counter, DisciplineLimits::default()).unwrap();
        let mut host = ClockPublisher::new(window.clone(), clocks).unwrap();
        let mut guest = ClockReader::local(window.clone()).unwrap();
        let transform = CounterTransform {
            source: TransformSource::Supplied,
            scale: CounterTransform::SCALE_ONE * 3 / 2,
            offset: OFFSET,
            // Two thirds of a tick are lost when the test divides.
            error_ns: 2,
            ..CounterTransform::identity(counter.domain())
        };
        let mut shifted = ClockReader::new(window, Shifted(counter), transform).unwrap();
        let mut readings = 0;
        for round in 0..if cfg!(miri) { 3 } else { 3_000 } {
            if round % 50 == 0 {
                assert!(host.publish().unwrap().is_needed());
            }
            for clock in [ClockKind::Utc, ClockKind::Monotonic] {
                readings += usize::from(check(&mut guest, clock).is_some());
                readings += usize::from(check(&mut shifted, clock).is_some());
            }
        }
        assert!(readings > 0);
        assert!(matches!(
            guest.now(ClockKind::Tai),
            Err(ClockError::Slot { .. })
        ));
    }
}

/// Looking at a sample or a notice takes note of it, and times told afterwards are those of the new one.
#[test]
fn what_was_looked_at_is_what_time_is_told_by() {
    let (window, notices) = (memory(), heap(notice_bytes()));
    let mut table =
        TypedWriter::<ClockSample, _, _>::create(window.clone(), 3, Epoch::FIRST, vec![0; 3])
            .unwrap();
    let mut told =
        TypedWriter::<CounterNotice, _, _>::create(notices.clone(), 1, Epoch::FIRST, vec![0])
            .unwrap();
    let counter = Counter::monotonic_raw();
    let sample = |time_ns, disruption| ClockSample {
        domain: CounterDomain::MonotonicRaw,
        clock: ClockKind::Monotonic,
        status: ClockStatus::Synchronized,
        leap: Leap::None,
        error_growth_ppb: 0,
        counter: counter.now(),
        time_ns,
        rate: Rate::ONE,
        error_ns: 1,
        disruption,
        valid_for_ns: u64::MAX,
    };
    let mut notice = CounterNotice {
        transform: CounterTransform::identity(CounterDomain::MonotonicRaw),
        disruption: 0,
        disruptions: 0,
    };
    let slot = ClockKind::Monotonic.slot();
    let _ = table.publish(slot, &sample(1 << 60, 1)).unwrap();
    let _ = told.publish(0, &notice).unwrap();
    let mut guest = ClockReader::noticing(window, notices, counter).unwrap();
    for _ in 0..2 {
        let reading = guest.now(ClockKind::Monotonic).unwrap();
        assert!(reading.time_ns >= 1 << 60 && reading.disruption == 1);
    }
    let _ = table.publish(slot, &sample(1 << 50, 2)).unwrap();
    guest.sample(ClockKind::Monotonic).unwrap();
    let reading = guest.now(ClockKind::Monotonic).unwrap();
    assert!(reading.time_ns < 1 << 60 && reading.disruption == 2);

    notice.disruption = 5;
    let _ = told.publish(0, &notice).unwrap();
    assert_eq!(guest.notice(), Ok(Some(notice)));
    let reading = guest.now(ClockKind::Monotonic).unwrap();
    assert_eq!(reading.disruption, 7);

    notice.transform.source = TransformSource::Invalid;
    let _ = told.publish(0, &notice).unwrap();
    guest.notice().unwrap();
    let error = guest.now(ClockKind::Monotonic).unwrap_err().to_string();
    assert!(error.contains("no valid transform"), "{error}");
}

fn notice_bytes() -> usize {
    shmbus_table::layout_of::<CounterNotice>(1).unwrap().bytes()
}

#[test]
fn readers_in_other_threads_never_see_time_go_back() {
    let window = memory();
    let clocks = HostClocks::calibrate(Counter::detect(), DisciplineLimits::default()).unwrap();
    let mut host = ClockPublisher::new(window.clone(), clocks).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut guest = ClockReader::local(window.clone()).unwrap();
                let done = &done;
                scope.spawn(move || {
                    let (mut reads, mut last) = (0u64, 0);
                    while !done.load(Ordering::Relaxed) {
                        let Some(reading) = check(&mut guest, ClockKind::Monotonic) else {
                            continue;
                        };
                        assert!(reading.time_ns >= last);
                        last = reading.time_ns;
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for _ in 0..if cfg!(miri) { 3 } else { 200 } {
            let _ = host.publish().unwrap();
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
        let reads: Vec<u64> = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        assert!(cfg!(miri) || reads.iter().sum::<u64>() > 0, "{reads:?}");
    });
}

/// Whatever a host writes, the reader gets a typed error or a time; never a panic.
#[test]
fn a_lying_host_is_reported() {
    let window = memory();
    let layout = clock_table().unwrap();
    let type_id = <ClockSample as shmbus_table::Value>::TYPE_ID;
    let mut table =
        TableWriter::create(window.clone(), layout, type_id, Epoch::FIRST, vec![0; 3]).unwrap();
    assert!(matches!(
        ClockReader::local(window.clone()),
        Err(ClockError::Slot { .. })
    ));

    let slot = ClockKind::Monotonic.slot();
    let raw = CounterDomain::MonotonicRaw as u64;
    let kinds = raw | 2 << 8 | 2 << 16;
    let one = Rate::ONE.bits();
    let _ = table.publish(slot, &[kinds, 0, 0, one, 0, 0, 0]).unwrap();
    let mut guest = ClockReader::local(window).unwrap();
    for (words, wrong) in [
        ([kinds, 0, 0, one, 0, 0, 0], "ns old"),
        ([kinds, 0, 0, 0, 0, 0, u64::MAX], "a rate that is not zero"),
        (
            [kinds | 0xff << 16, 0, 0, one, 0, 0, u64::MAX],
            "a clock status",
        ),
        (
            [kinds | 7 << 24, 0, 0, one, 0, 0, u64::MAX],
            "a leap second indicator",
        ),
        (
            [kinds & !0xff00, 0, 0, one, 0, 0, u64::MAX],
            "a sample of UTC",
        ),
        (
            [kinds & !0xff | 1, 0, 0, one, 0, 0, u64::MAX],
            "counts with Tsc",
        ),
        ([kinds, u64::MAX / 2, 0, u64::MAX, 0, 0, u64::MAX], "behind"),
        ([kinds, 0, u64::MAX, u64::MAX, 0, 0, u64::MAX], "64-bit"),
    ] {
        let _ = table.publish(slot, &words).unwrap();
        let error = guest.now(ClockKind::Monotonic).unwrap_err().to_string();
        assert!(error.contains(wrong), "{wrong}: {error}");
    }

    // The largest bounds there are saturate, and the time still comes.
    let counter = Counter::monotonic_raw().now();
    let huge = [
        kinds | u64::MAX << 32,
        counter,
        5,
        one,
        u64::MAX - 1,
        0,
        u64::MAX,
    ];
    let _ = table.publish(slot, &huge).unwrap();
    let reading = guest.now(ClockKind::Monotonic).unwrap();
    assert_eq!(reading.error_ns, u64::MAX);
}
