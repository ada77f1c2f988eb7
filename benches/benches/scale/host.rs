//! The host of a bus with many devices.

use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::path::Path;
use std::time::Instant;

use shmbus::Bus;
use shmbus_devices::timer::device::TimerDevice;

/// Timers of each device.
pub(crate) const TIMERS: u32 = 4;

/// Serves until standard input ends. Says first how many nanoseconds it took to have the devices registered.
pub(crate) fn serve(socket: &Path, devices: u32) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let mut builder = Bus::builder();
    for _ in 0..devices {
        builder = builder.device(TimerDevice::new(TIMERS)?);
    }
    let mut bus = builder.listen(socket)?;
    let mut out = stdout();
    writeln!(out, "{}", began.elapsed().as_nanos())?;
    out.flush()?;
    bus.run(stdin())?;
    Ok(())
}
