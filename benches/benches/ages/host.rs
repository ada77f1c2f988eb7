//! The host: acts on deadlines.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use shmbus_devices::SessionId;
use shmbus_devices::clock::monotonic_ns;
use shmbus_devices::timer::{Alarm, LatenessHistogram, TimerOwner, Timers};
use shmbus_shm::Mapped;

use super::bell::{Bell, Ear};
use super::guest::AHEAD_NS;

/// Whose timers there are.
pub(crate) const OWNER: TimerOwner = TimerOwner {
    session: SessionId(1),
    vcpu: 0,
};

/// What a host has done.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostWork {
    /// The ages of the deadlines that it acted on, in nanoseconds.
    pub(crate) ages: LatenessHistogram,
    /// Nanoseconds of processor time.
    pub(crate) busy_ns: u64,
    /// Signals to the guest.
    pub(crate) signals: u64,
}

/// What acting on a deadline costs beside finding it: the kernel's timer is armed, and then the host is busy for `spin`
/// with what depends on the deadline.
pub(crate) fn act(alarm: &mut Alarm, deadline_ns: u64, spin: Duration) -> io::Result<()> {
    alarm.set(Some(deadline_ns))?;
    let end = monotonic_ns() + spin.as_nanos() as u64;
    while monotonic_ns() < end {
        std::hint::spin_loop();
    }
    Ok(())
}

/// Acts on deadlines until `stop`; on each once, one after the other.
pub(crate) fn work(
    timers: &mut Timers<Mapped>,
    bell: &mut Bell,
    ear: &mut Ear,
    spin: Duration,
    stop: &AtomicBool,
) -> io::Result<HostWork> {
    let mut alarm = Alarm::new()?;
    let mut work = HostWork::default();
    let begin_ns = processor_time_ns();
    let mut acted = timers.counters().set;
    while !stop.load(Ordering::Relaxed) {
        let more = timers.look(OWNER, monotonic_ns(), 1);
        let mut rung = Ok(());
        // What was taken is returned before it is acted on, so that the ring does not stay full meanwhile.
        timers.flush(|_, notify| rung = bell.ring(notify));
        rung?;
        if timers.counters().set != acted {
            acted = timers.counters().set;
            if let Some(deadline_ns) = timers.next_deadline_ns() {
                let set_ns = deadline_ns.saturating_sub(AHEAD_NS);
                work.ages.record(monotonic_ns().saturating_sub(set_ns));
                act(&mut alarm, deadline_ns, spin)?;
            }
        }
        if !more {
            ear.wait(Some(Duration::from_millis(5)))?;
            while ear.next_event().is_some() {}
        }
    }
    if let Some((_, fault)) = timers.take_fault() {
        return Err(io::Error::other(fault));
    }
    work.busy_ns = processor_time_ns() - begin_ns;
    work.signals = bell.rung();
    Ok(work)
}

/// Of the calling thread.
fn processor_time_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
