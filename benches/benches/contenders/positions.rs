//! What it costs that both sides of a ring publish their positions: a net device's driver and port beside themselves
//! without.
//!
//! One thread moves frames of 60 bytes from a driver to the host's port over split rings. A batch is made available
//! together, taken, returned together, and each side says then in its table how far it has come.

use std::hint::black_box;
use std::time::Instant;

use shmbus_benches::{Comparison, Contender, SetUpError};
use shmbus_devices::RingState;
use shmbus_devices::net::driver::NetDriver;
use shmbus_devices::net::host::GuestPort;
use shmbus_devices::net::port::{Checksum, Port};
use shmbus_devices::net::queues::{DRIVER_FEATURES, DeviceRegions, QueueMemory};
use shmbus_shm::{Mapped, heap};
use shmbus_table::layout_of;

/// All that there is.
pub(crate) fn all() -> Vec<Comparison> {
    vec![
        Comparison::new(
            "positions/publish",
            "one thread moves a frame from a driver to a port; ours publishes both sides' positions, each frame by itself",
            || both(1),
        ),
        Comparison::new("positions/publish-16", "the same in batches of 16", || {
            both(16)
        }),
    ]
}

fn both(batch: u64) -> Result<Vec<Contender>, SetUpError> {
    shmbus_benches::pin_to_first_processor()?;
    Ok(vec![
        moving("shmbus", batch, true)?,
        moving("self", batch, false)?,
    ])
}

fn moving(name: &'static str, batch: u64, publishes: bool) -> Result<Contender, SetUpError> {
    let memory = QueueMemory::new(256, 1500)?;
    let regions = DeviceRegions::<Mapped>::on_heap(memory);
    let mut driver = NetDriver::over_rings(&regions, memory, DRIVER_FEATURES)?;
    let mut port = GuestPort::over_rings(&regions, memory, DRIVER_FEATURES)?;
    if publishes {
        let table = || Ok::<_, SetUpError>(heap(layout_of::<RingState>(2)?.bytes()));
        driver.publish_positions(table()?)?;
        port.publish_positions(table()?)?;
    }
    let (sent, mut received) = ([0xff; 60], [0; 2000]);
    Ok(Contender::new(name, move |operations| {
        let start = Instant::now();
        for _ in 0..operations.div_ceil(batch) {
            for _ in 0..batch {
                black_box(driver.send(black_box(&sent), Checksum::InFrame)).expect(HONEST);
            }
            let _ = black_box(driver.flush());
            for _ in 0..batch {
                black_box(port.receive(&mut received)).expect(HONEST);
            }
            let _ = black_box(port.flush());
        }
        start.elapsed()
    }))
}

const HONEST: &str = "neither side breaks the rules";
