//! The guest's side and the host's side together.

mod hostile;
mod model;
mod rules;

use shmbus_shm::{Mapped, Notify, heap};
use shmbus_table::{TableError, layout_of};

use super::*;
use crate::SessionId;

fn windows(lines: u32) -> IntcWindows<Mapped> {
    let wires = layout_of::<Wire>(lines).unwrap().bytes();
    let controls = layout_of::<Control>(lines).unwrap().bytes();
    IntcWindows {
        wires: heap(wires),
        controls: heap(controls),
        requests: heap(wires),
    }
}

/// A guest's driver, and its memory; the host's side is added to `host`.
fn guest(host: &mut Lines<Mapped>, id: u64) -> (IntcDriver<Mapped>, IntcWindows<Mapped>) {
    let windows = windows(host.lines());
    let driver = IntcDriver::new(windows.clone(), host.lines()).unwrap();
    host.add_guest(SessionId(id), windows.clone(), 0, nobody)
        .unwrap();
    (driver, windows)
}

fn nobody(_: SessionId, _: Notify) {}

fn priority(number: u8) -> LinePriority {
    LinePriority::new(number).unwrap()
}
