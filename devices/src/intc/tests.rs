//! The guest's side and the host's side together.

mod hostile;
mod model;
mod rules;

use shmbus_shm::{Mapped, Notify};

use super::*;
use crate::SessionId;
use crate::lane::{Carrier, Lane, OutletError};

fn tables(lines: u32) -> IntcLanes<Mapped> {
    IntcLanes::on_heap(Carrier::Table, lines).unwrap()
}

/// A table's memory.
fn memory(lane: &Lane<Mapped>) -> &Mapped {
    match lane {
        Lane::Table(window) => window,
        Lane::Ring(_) => panic!("a ring"),
    }
}

/// A guest's driver, and its memory; the host's side is added to `host`.
fn guest_over(
    carrier: Carrier,
    host: &mut Lines<Mapped>,
    id: u64,
) -> (IntcDriver<Mapped>, IntcLanes<Mapped>) {
    let lanes = IntcLanes::on_heap(carrier, host.lines()).unwrap();
    let driver = IntcDriver::new(lanes.clone(), host.lines()).unwrap();
    host.add_guest(SessionId(id), lanes.clone(), 0, nobody)
        .unwrap();
    (driver, lanes)
}

fn guest(host: &mut Lines<Mapped>, id: u64) -> (IntcDriver<Mapped>, IntcLanes<Mapped>) {
    guest_over(Carrier::Table, host, id)
}

fn nobody(_: SessionId, _: Notify) {}

fn priority(number: u8) -> LinePriority {
    LinePriority::new(number).unwrap()
}
