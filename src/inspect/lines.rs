//! A guest's interrupt lines, as both sides tell of them.

use serde::Serialize;
use shmbus_devices::intc::device::role;
use shmbus_devices::intc::{Control, Wire};

use crate::region_set::{RegionSet, attach_table};

/// A line of which anything was ever said.
#[derive(Clone, Debug, Serialize)]
pub struct LineView {
    /// The device.
    pub device: u32,
    /// The line's number.
    pub line: u32,
    /// Whether the host tells the guest that its level is asserted.
    pub asserted: bool,
    /// How many edges the host told the guest of.
    pub edges: u64,
    /// Whether the guest wants it.
    pub enabled: bool,
    /// How urgent it is: 0 the most, 31 the least.
    pub priority: u8,
    /// Whether it is in service.
    pub in_service: bool,
    /// How often it was delivered.
    pub deliveries: u64,
    /// The edges that were delivered, and those whose service has ended. A reader that looks while the guest goes on may
    /// find them ahead of `edges`.
    pub claimed: u64,
    /// See `claimed`.
    pub ended: u64,
    /// What the guest itself drives onto the line: a level, and so many edges.
    pub drives: bool,
    /// See `drives`.
    pub raised: u64,
}

/// The lines of an interrupt controller of a guest.
pub(super) fn of_intc(device: u32, regions: &RegionSet) -> Vec<LineView> {
    let window = |role| regions.get(Some(device), role).map(|(_, window)| window);
    let wires = |role| {
        let table = window(role).map(attach_table::<Wire>);
        table.and_then(Result::ok)
    };
    let (mut told, mut requests) = (wires(role::WIRES), wires(role::REQUESTS));
    let controls = window(role::CONTROLS).map(attach_table::<Control>);
    let mut controls = controls.and_then(Result::ok);
    let slots = [&told, &requests].map(|table| {
        let table = table.as_ref();
        table.map_or(0, |table| table.table().layout().slots())
    });
    (0..slots[0].max(slots[1]))
        .filter_map(|line| {
            let told = told.as_mut().and_then(|table| table.read(line).ok());
            let request = requests.as_mut().and_then(|table| table.read(line).ok());
            let control = controls.as_mut().and_then(|table| table.read(line).ok());
            if told.is_none() && request.is_none() && control.is_none() {
                return None;
            }
            let wire = told.map(|(wire, _)| wire).unwrap_or_default();
            let driven = request.map(|(wire, _)| wire).unwrap_or_default();
            let control = control.map(|(control, _)| control).unwrap_or_default();
            Some(LineView {
                device,
                line,
                asserted: wire.asserted,
                edges: wire.edges,
                enabled: control.enabled,
                priority: control.priority.number(),
                in_service: control.in_service,
                deliveries: control.deliveries,
                claimed: control.claimed,
                ended: control.ended,
                drives: driven.asserted,
                raised: driven.edges,
            })
        })
        .collect()
}
