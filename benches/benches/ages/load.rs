//! One carrier under one load.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shmbus_benches::{AgePoint, Partner};
use shmbus_devices::clock::monotonic_ns;
use shmbus_devices::lane::Carrier;
use shmbus_devices::timer::{Alarm, TimerDriver, TimerLanes, Timers};

use super::bell::bell;
use super::guest::{self, AHEAD_NS};
use super::host::{self, HostWork};

/// What a host does for each deadline beside arming the kernel's timer, which takes about a microsecond.
pub(crate) const SPIN: Duration = Duration::from_micros(10);

/// Deadlines offered, in those that the host can serve.
pub(crate) const LOADS: [f64; 9] = [0.05, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0];

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) repetitions: usize,
    /// How long each run takes.
    pub(crate) run: Duration,
}

impl Effort {
    /// For figures: about a minute.
    pub(crate) const FULL: Self = Self {
        repetitions: 5,
        run: Duration::from_millis(100),
    };
    /// To see that all works.
    pub(crate) const QUICK: Self = Self {
        repetitions: 2,
        run: Duration::from_millis(20),
    };
    /// A test: everything runs, nothing is measured.
    pub(crate) const ONCE: Self = Self {
        repetitions: 1,
        run: Duration::from_millis(2),
    };
}

/// Nanoseconds that the host takes to act on a deadline, undisturbed: the median.
pub(crate) fn serving_ns() -> Result<f64, Box<dyn Error>> {
    let mut alarm = Alarm::new()?;
    let mut times = Vec::new();
    for turn in 0..1000 {
        let start = Instant::now();
        host::act(&mut alarm, monotonic_ns() + AHEAD_NS + turn, SPIN)?;
        times.push(start.elapsed().as_nanos() as f64);
    }
    Ok(shmbus_benches::median(&mut times))
}

/// Runs a guest and a host over `carrier`.
pub(crate) fn measure(
    carrier: Carrier,
    load: f64,
    serving_ns: f64,
    run: Duration,
) -> Result<AgePoint, Box<dyn Error>> {
    let lanes = TimerLanes::on_heap(carrier, 1)?;
    let mut driver = TimerDriver::new(lanes.clone(), 1)?;
    let mut timers = Timers::default();
    timers.add(host::OWNER, lanes, 1)?;
    let (mut to_host, mut host_ear) = bell()?;
    let (mut to_guest, mut guest_ear) = bell()?;

    let stop = Arc::new(AtomicBool::new(false));
    let outcome: Arc<Mutex<Option<io::Result<HostWork>>>> = Arc::default();
    let (stopped, done) = (stop.clone(), outcome.clone());
    let partner = Partner::spawn(move |_| {
        let worked = host::work(&mut timers, &mut to_guest, &mut host_ear, SPIN, &stopped);
        if let Ok(mut done) = done.lock() {
            *done = Some(worked);
        }
    })?;
    let interval_ns = serving_ns / load;
    let mut guest = Ok(guest::GuestWork::default());
    let took = partner.beside(0, || {
        guest = guest::work(&mut driver, &mut to_host, &mut guest_ear, interval_ns, run);
        stop.store(true, Ordering::Relaxed);
    });
    drop(partner);
    let guest = guest?;
    let host = outcome
        .lock()
        .map_err(|_| "the host panicked")?
        .take()
        .ok_or("the host did nothing")??;

    let seconds = took.as_secs_f64();
    let percentile = |percent| host.ages.percentile_ns(percent).unwrap_or(0) as f64;
    let acted = host.ages.count();
    Ok(AgePoint {
        p50_ns: percentile(50.0),
        p99_ns: percentile(99.0),
        offered: 1e9 / interval_ns,
        set: guest.set as f64 / seconds,
        acted: acted as f64 / seconds,
        superseded: guest.set.saturating_sub(acted) as f64 / seconds,
        held_back: guest.held_back as f64 / seconds,
        signals_to_host: guest.signals as f64 / seconds,
        signals_to_guest: host.signals as f64 / seconds,
        host_cpu: host.busy_ns as f64 / 1e9 / seconds,
        guest_cpu: guest.busy_ns as f64 / 1e9 / seconds,
    })
}
