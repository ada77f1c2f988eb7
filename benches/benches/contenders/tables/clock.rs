//! Telling the time: ours by a table and the counter, the peer's by the vDSO.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use shmbus_benches::{Comparison, Contender, SetUpError, pin_to_first_processor};
use shmbus_devices::clock::{
    ClockKind, ClockPublisher, ClockReader, Counter, DisciplineLimits, HostClocks, clock_table,
};
use shmbus_shm::{Access, SharedMemory, Writers};

use super::{HONEST, OURS};

pub(super) fn comparison() -> Comparison {
    Comparison::new(
        "clock-read",
        "one thread reads the monotonic clock; ours with a bound on its error and an ordered read of the counter",
        || {
            pin_to_first_processor()?;
            Ok(vec![ours()?, vdso()])
        },
    )
}

fn ours() -> Result<Contender, SetUpError> {
    let bytes = clock_table()?.bytes() as u64;
    let memory = SharedMemory::create("bench", bytes, Writers::Creator)?;
    let descriptor = memory.as_fd().try_clone_to_owned()?;
    let peers = SharedMemory::from_peer(descriptor, bytes, Access::Read)?;
    let clocks = HostClocks::calibrate(Counter::detect(), DisciplineLimits::default())?;
    let mut publisher = ClockPublisher::new(memory.window().clone(), clocks)?;
    let mut reader = ClockReader::local(peers.window().clone())?;
    Ok(Contender::new(OURS, move |operations| {
        // As a host does, some twenty times a second.
        let _ = publisher.publish().expect(HONEST);
        let start = Instant::now();
        for _ in 0..operations {
            black_box(reader.now(ClockKind::Monotonic).expect(HONEST));
        }
        start.elapsed()
    }))
}

fn vdso() -> Contender {
    Contender::new("vdso", |operations| {
        let start = Instant::now();
        for _ in 0..operations {
            black_box(clock_gettime(ClockId::Monotonic));
        }
        start.elapsed()
    })
}
