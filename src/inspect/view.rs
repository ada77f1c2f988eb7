//! What an inspector sees, as plain values.

use serde::Serialize;
use shmbus_devices::clock::{
    self, ClockKind, ClockReader, Counter, CounterDomain, CounterTransform,
};
use shmbus_devices::counter_names;
use shmbus_devices::timer::{self, Deadline, Expiration};
use shmbus_shm::{Mapped, Region, RegionKind};
use shmbus_virtio::DeviceId;

use super::InspectError;
use super::lines::{self, LineView};
use super::rings::{self, RingView};
use crate::control::{DeviceOffer, DriverState, role};
use crate::counters::{Counters, Totals};
use crate::region_set::{RegionSet, attach_table};

/// A whole bus.
#[derive(Clone, Debug, Serialize)]
pub struct BusView {
    /// Over all sessions.
    pub totals: Totals,
    /// The devices, in the order of their numbers.
    pub devices: Vec<DeviceView>,
    /// The guests that are on the bus.
    pub guests: Vec<GuestView>,
}

/// A device, as all guests see it.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceView {
    /// Its number.
    pub device: u32,
    /// Its type.
    pub kind: String,
    /// What it has counted.
    pub counters: Vec<(&'static str, u64)>,
    /// The clocks that it tells, if it is a clock.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clocks: Vec<ClockView>,
}

/// A clock, as its table tells it.
#[derive(Clone, Debug, Serialize)]
pub struct ClockView {
    /// Which time.
    pub clock: String,
    /// The counter's value at which the sample was taken.
    pub counter: u64,
    /// The time at that value, in nanoseconds.
    pub time_ns: u64,
    /// The bound on its error at that value, in nanoseconds.
    pub error_ns: u64,
    /// The time now, extrapolated; not in a virtual machine, whose counter is another.
    pub now_ns: Option<u64>,
}

/// A guest's session.
#[derive(Clone, Debug, Serialize)]
pub struct GuestView {
    /// The session's number.
    pub session: u64,
    /// What the guest calls itself.
    pub name: String,
    /// Its devices.
    pub devices: Vec<GuestDeviceView>,
    /// Its rings.
    pub rings: Vec<RingView>,
    /// Its timers that were ever set.
    pub timers: Vec<TimerView>,
    /// Its interrupt lines of which anything was said.
    pub lines: Vec<LineView>,
    /// Its regions: the directory.
    pub regions: Vec<RegionView>,
}

/// A device, as one guest uses it.
#[derive(Clone, Debug, Serialize)]
pub struct GuestDeviceView {
    /// Its number.
    pub device: u32,
    /// Its type.
    pub kind: String,
    /// The device status, as the host reports it.
    pub status: u8,
    /// What the guest accepted of the offered features.
    pub features: String,
    /// The same, of the bus's own features.
    pub private_features: String,
}

/// A timer that was set.
#[derive(Clone, Debug, Serialize)]
pub struct TimerView {
    /// The device.
    pub device: u32,
    /// The guest's virtual CPU.
    pub vcpu: u16,
    /// The timer's number.
    pub slot: u32,
    /// What it is set to, in nanoseconds of the bus's monotonic clock, a periodic one for the first time; none if
    /// cancelled.
    pub deadline_ns: Option<u64>,
    /// How often it was set.
    pub set: u64,
    /// The deadline that was last answered.
    pub expired_ns: Option<u64>,
}

/// A region, as the directory tells of it.
#[derive(Clone, Debug, Serialize)]
pub struct RegionView {
    /// Its id.
    pub id: u64,
    /// Its device; none is the bus itself.
    pub device: Option<u32>,
    /// Its role.
    pub role: u16,
    /// What runs on it.
    pub kind: String,
    /// Its memory.
    pub memory: String,
    /// Where it starts there, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The priority class of its signals.
    pub class: u8,
    /// Its channel.
    pub channel: Option<u32>,
}

impl DeviceView {
    pub(super) fn new(
        device: u32,
        counters: &Counters,
        bus: &RegionSet,
        is_this_machine: bool,
    ) -> Self {
        let names = counter_names(counters.device).iter().copied();
        Self {
            device,
            kind: counters.device.to_string(),
            counters: names.zip(counters.values).collect(),
            clocks: match bus.get(Some(device), clock::device::role::CLOCKS) {
                Some((_, window)) if counters.device == DeviceId::CLOCK => {
                    clocks(window, is_this_machine)
                }
                _ => Vec::new(),
            },
        }
    }
}

/// What a clock's table tells. Its samples are of the host's counter, which is this one's on the same machine only.
fn clocks(window: &Mapped, is_this_machine: bool) -> Vec<ClockView> {
    let window = window.clone();
    let reader = match is_this_machine {
        true => ClockReader::local(window),
        false => {
            let unknown = CounterTransform::identity(CounterDomain::Invalid);
            ClockReader::new(window, Counter::monotonic_raw(), unknown)
        }
    };
    let Ok(mut reader) = reader else {
        return Vec::new();
    };
    let mut views = Vec::new();
    for clock in ClockKind::ALL {
        if let Ok(sample) = reader.sample(clock) {
            views.push(ClockView {
                clock: clock.to_string(),
                counter: sample.counter,
                time_ns: sample.time_ns,
                error_ns: sample.error_ns,
                now_ns: match is_this_machine {
                    true => reader.now(clock).ok().map(|reading| reading.time_ns),
                    false => None,
                },
            });
        }
    }
    views
}

impl GuestView {
    pub(super) fn new(
        session: u64,
        name: &str,
        regions: &RegionSet,
        directory: &[Region],
    ) -> Result<Self, InspectError> {
        let mut offers = attach_table::<DeviceOffer>(&regions.own(role::DEVICE_TABLE)?.1)?;
        // The guest's own: whatever it made of it, the rest can be seen.
        let drivers = &regions.own(role::DRIVER_TABLE)?.1;
        let mut drivers = attach_table::<DriverState>(drivers).ok();
        let mut view = Self {
            session,
            name: name.to_owned(),
            devices: Vec::new(),
            rings: Vec::new(),
            timers: Vec::new(),
            lines: Vec::new(),
            regions: directory.iter().map(RegionView::from).collect(),
        };
        let kinds = directory.iter().map(|region| {
            let purpose = region.purpose;
            ((purpose.device, purpose.role), purpose.kind)
        });
        let kinds = kinds.collect();
        for device in 0..offers.table().layout().slots() {
            // Of many devices, some may not be shown yet.
            let Ok((offer, _)) = offers.read(device) else {
                continue;
            };
            // A driver that never said anything accepted nothing.
            let accepted = drivers.as_mut().and_then(|table| table.read(device).ok());
            let accepted = accepted.map(|(state, _)| state).unwrap_or_default();
            view.devices.push(GuestDeviceView {
                device,
                kind: offer.id.to_string(),
                status: offer.status.bits(),
                features: format!("{:#x}", accepted.features.bits()),
                private_features: format!("{:#x}", accepted.private.bits()),
            });
            match offer.id {
                DeviceId::NET => view.rings.extend(rings::of_net(device, regions, &kinds)),
                DeviceId::TIMER => view.timers.extend(timers(device, regions)),
                DeviceId::INTC => view.lines.extend(lines::of_intc(device, regions)),
                _ => {}
            }
        }
        Ok(view)
    }
}

/// A guest's timers that were ever set. A twin over rings has no tables to look at.
fn timers(device: u32, regions: &RegionSet) -> Vec<TimerView> {
    let vcpus = 0..timer::device::MOST_VCPUS;
    vcpus
        .map_while(|vcpu| timers_of_vcpu(device, vcpu, regions))
        .flatten()
        .collect()
}

fn timers_of_vcpu(device: u32, vcpu: u16, regions: &RegionSet) -> Option<Vec<TimerView>> {
    use timer::device::role;
    let table = |role: u16| {
        let role = role + vcpu * role::OF_VCPU;
        regions.get(Some(device), role).map(|(_, window)| window)
    };
    let mut deadlines = attach_table::<Deadline>(table(role::DEADLINES)?).ok()?;
    let expirations = table(role::EXPIRATIONS).map(attach_table::<Expiration>);
    let mut expirations = expirations.and_then(Result::ok);
    let slots = deadlines.table().layout().slots();
    let set = (0..slots).filter_map(|slot| {
        let (deadline, generation) = deadlines.read(slot).ok()?;
        let expired = expirations.as_mut().and_then(|table| table.read(slot).ok());
        Some(TimerView {
            device,
            vcpu,
            slot,
            deadline_ns: deadline.nth_ns(1),
            set: generation.count(),
            expired_ns: expired.map(|(expiration, _)| expiration.deadline_ns),
        })
    });
    Some(set.collect())
}

impl From<&Region> for RegionView {
    fn from(region: &Region) -> Self {
        Self {
            id: region.id.0,
            device: region.purpose.device,
            role: region.purpose.role,
            kind: match region.purpose.kind {
                RegionKind::Ring { format, size } => format!("{format:?} ring of {size}"),
                RegionKind::Table { slots, slot_bytes } => {
                    format!("table of {slots} x {slot_bytes} B")
                }
                RegionKind::Raw { .. } => "raw".to_owned(),
            },
            memory: region.placement.memory.section().to_string(),
            offset: region.placement.offset,
            bytes: region.placement.bytes,
            class: region.purpose.class,
            channel: region.purpose.channel,
        }
    }
}
