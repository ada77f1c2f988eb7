//! Where a device's structures are, checked.

use super::capability::{StructureKind, VirtioCapability};
use super::common_config;
use super::error::LayoutError;
use crate::pci::bars::Place;
use crate::pci::function::BarIndex;
use crate::pci::msix::Msix;

/// A region of memory that the device shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemoryRegion {
    /// Its number, by which the device's type knows it.
    pub id: u8,
    /// Where it is.
    pub place: Place,
}

/// Where a device's structures are. Each lies inside its BAR, is long enough, aligned, and shares no byte with another
/// or with the function's MSI-X table: who writes to one changes no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The common configuration.
    pub common: Place,
    /// Where queues are notified.
    pub notify: Place,
    /// How far apart queues' notify addresses are, in bytes; 0 if all are one.
    pub notify_multiplier: u32,
    /// The interrupt status.
    pub isr: Place,
    /// The configuration of the device's type, as much of it as devices have; not every type has one.
    pub device: Option<Place>,
    /// Regions of shared memory.
    pub shared_memory: Vec<SharedMemoryRegion>,
}

/// What every notification takes at least.
const NOTIFY_BYTES: u64 = 2;
/// No structure is longer today; what is behind is for devices to come (virtio 1.4, section 4.1.4).
const LONGEST: u64 = 4096;

/// How long a structure must be, in bytes; what has to divide its offset; and how much of it is ever used.
fn demands(kind: StructureKind) -> (u64, u64, u64) {
    match kind {
        StructureKind::Common => (common_config::BYTES, 4, LONGEST),
        StructureKind::Notify => (NOTIFY_BYTES, 2, u64::MAX),
        StructureKind::Isr => (1, 1, 1),
        StructureKind::Device => (1, 4, LONGEST),
    }
}

impl Layout {
    /// Makes it of a device's capabilities. Of several structures of one kind it takes the first that can be used, as
    /// virtio wants it. `bar_len` tells how long a BAR is, in bytes, and `None` for one that is not there.
    ///
    /// # Errors
    ///
    /// [`LayoutError`], where no structure of a kind can be used that of the first of them.
    pub fn new(
        capabilities: &[VirtioCapability],
        msix: Option<&Msix>,
        mut bar_len: impl FnMut(BarIndex) -> Option<u64>,
    ) -> Result<Self, LayoutError> {
        if capabilities.is_empty() {
            return Err(LayoutError::Legacy);
        }
        let mut taken = Vec::new();
        if let Some(msix) = msix {
            msix.check(&mut bar_len)?;
            taken.push(("MSI-X table", msix.table));
            taken.push(("MSI-X pending bits", msix.pending));
        }
        let mut find = |kind| {
            let found = first_usable(capabilities, kind, &taken, &mut bar_len)?;
            taken.push((kind.name(), found.0));
            Ok::<_, LayoutError>(found)
        };
        let (common, _) = find(StructureKind::Common)?;
        let (isr, _) = find(StructureKind::Isr)?;
        let device = match find(StructureKind::Device) {
            Ok((place, _)) => Some(place),
            Err(LayoutError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        let (notify, notify_multiplier) = find(StructureKind::Notify)?;

        let mut shared_memory: Vec<SharedMemoryRegion> = Vec::new();
        for capability in capabilities {
            let VirtioCapability::SharedMemory { id, place } = *capability else {
                continue;
            };
            if shared_memory.iter().any(|region| region.id == id) {
                return Err(LayoutError::SharedMemoryTwice { id });
            }
            let what = "shared memory region";
            place.check(what, bar_len(place.bar))?;
            check_apart(what, place, &taken)?;
            taken.push((what, place));
            shared_memory.push(SharedMemoryRegion { id, place });
        }
        Ok(Self {
            common,
            notify,
            notify_multiplier,
            isr,
            device,
            shared_memory,
        })
    }
}

fn first_usable(
    capabilities: &[VirtioCapability],
    wanted: StructureKind,
    taken: &[(&'static str, Place)],
    bar_len: &mut impl FnMut(BarIndex) -> Option<u64>,
) -> Result<(Place, u32), LayoutError> {
    let mut first_error = None;
    for capability in capabilities {
        let VirtioCapability::Structure {
            kind,
            place,
            multiplier,
        } = *capability
        else {
            continue;
        };
        if kind != wanted {
            continue;
        }
        match checked(kind, place, multiplier, taken, bar_len(place.bar)) {
            Ok(place) => return Ok((place, multiplier)),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(LayoutError::Missing { kind: wanted }))
}

fn checked(
    kind: StructureKind,
    mut place: Place,
    multiplier: u32,
    taken: &[(&'static str, Place)],
    bar_len: Option<u64>,
) -> Result<Place, LayoutError> {
    place.check(kind.name(), bar_len)?;
    let (expected, alignment, longest) = demands(kind);
    if place.len < expected {
        return Err(LayoutError::TooShort {
            kind,
            expected,
            found: place.len,
        });
    }
    if !place.offset.is_multiple_of(alignment) {
        return Err(LayoutError::Misaligned {
            kind,
            alignment,
            found: place.offset,
        });
    }
    if kind == StructureKind::Notify
        && multiplier != 0
        && (!multiplier.is_power_of_two() || multiplier == 1)
    {
        return Err(LayoutError::Multiplier { found: multiplier });
    }
    place.len = place.len.min(longest);
    check_apart(kind.name(), place, taken)?;
    Ok(place)
}

fn check_apart(
    second: &'static str,
    second_place: Place,
    taken: &[(&'static str, Place)],
) -> Result<(), LayoutError> {
    match taken
        .iter()
        .find(|(_, place)| place.overlaps(&second_place))
    {
        Some(&(first, first_place)) => Err(LayoutError::Overlap {
            first,
            first_place,
            second,
            second_place,
        }),
        None => Ok(()),
    }
}
