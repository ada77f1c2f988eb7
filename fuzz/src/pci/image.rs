//! A configuration space of any bytes, or an honest device's with some of them changed: what it describes lies inside
//! its BARs and apart, or is refused.

use std::cell::Cell;

use arbitrary::Arbitrary;
use shmbus_transports::pci::emulated::{Blueprint, EmulatedDma};
use shmbus_transports::pci::virtio::{Layout, VirtioCapability};
use shmbus_transports::pci::{
    AccessError, Bar, BarIndex, Capability, Function, Header, Msix, Place, Registers,
};
use shmbus_virtio::{DeviceId, Features};

/// A configuration space, and how long the BARs are.
#[derive(Arbitrary, Debug)]
pub struct ImageInput {
    /// All of it; otherwise an honest device's.
    bytes: Option<Vec<u8>>,
    changes: Vec<(u8, u8)>,
    /// Where these say nothing, an honest device's.
    bars: [Option<u32>; 6],
}

/// An honest device's configuration space, and its BARs.
fn honest() -> (Vec<u8>, [u64; 6]) {
    let blueprint = Blueprint::new(DeviceId::NET, Features::empty(), 2, &[]);
    let (function, _) = blueprint.build(&EmulatedDma::new(0));
    let config = function.config().expect("it has one");
    let bytes = (0..config.len()).map(|offset| config.read_u8(offset).expect("it is there"));
    (bytes.collect(), blueprint.bars)
}

/// Registers that read as bytes, and count how often.
struct Image<'a> {
    bytes: &'a [u8],
    accesses: Cell<u32>,
    strayed: Cell<bool>,
}

impl Image<'_> {
    fn read(&self, offset: u64, bytes: u64) -> Result<u32, AccessError> {
        self.accesses.set(self.accesses.get() + 1);
        // As the system shows it to users without privileges, it may be short; but nobody looks behind 256 bytes.
        if offset + bytes > 256 || !offset.is_multiple_of(bytes) {
            self.strayed.set(true);
        }
        let len = self.len();
        let range = offset as usize..(offset + bytes) as usize;
        let found = self.bytes.get(range);
        let found = found.ok_or(AccessError::OutOfBounds { offset, bytes, len })?;
        let number = |number, byte: &u8| number << 8 | u32::from(*byte);
        Ok(found.iter().rev().fold(0, number))
    }
}

impl Registers for Image<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        Ok(self.read(offset, 1)? as u8)
    }

    fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        Ok(self.read(offset, 2)? as u16)
    }

    fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        self.read(offset, 4)
    }

    fn write_u8(&self, _: u64, _: u8) -> Result<(), AccessError> {
        panic!("nothing is written")
    }

    fn write_u16(&self, _: u64, _: u16) -> Result<(), AccessError> {
        panic!("nothing is written")
    }

    fn write_u32(&self, _: u64, _: u32) -> Result<(), AccessError> {
        panic!("nothing is written")
    }
}

/// Reads all that there is to read.
///
/// # Panics
///
/// When what was checked is wrong after all.
pub fn image(input: &ImageInput) {
    let (mut bytes, mut bars) = honest();
    if let Some(other) = &input.bytes {
        bytes.clone_from(other);
    }
    for (at, byte) in &input.changes {
        if let Some(place) = bytes.get_mut(usize::from(*at)) {
            *place = *byte;
        }
    }
    for (bar, len) in bars.iter_mut().zip(input.bars) {
        *bar = len.map_or(*bar, u64::from);
    }
    let image = Image {
        bytes: &bytes,
        accesses: Cell::new(0),
        strayed: Cell::new(false),
    };
    decode(&image, &bars);
    // 48 capabilities of up to 192 bytes each.
    assert!(image.accesses.get() < 10_000);
    assert!(!image.strayed.get());
}

fn decode(image: &Image<'_>, bars: &[u64; 6]) {
    let bar_len = |bar: BarIndex| Some(bars[usize::from(bar.get())]).filter(|len| *len > 0);
    let _ = Header::read(image);
    if let Ok(bars) = Bar::read_all(image) {
        assert!(bars.is_sorted_by_key(|bar| bar.index));
    }
    let Ok(capabilities) = Capability::read_all(image) else {
        return;
    };
    assert!(capabilities.len() <= 48);
    assert!(capabilities.iter().all(|capability| capability.at >= 0x40));
    let msix = Msix::read(image, &capabilities);
    let Ok(virtio) = VirtioCapability::read_all(image, &capabilities) else {
        return;
    };
    let Ok(msix) = msix else {
        return;
    };
    let Ok(layout) = Layout::new(&virtio, msix.as_ref(), bar_len) else {
        return;
    };
    let mut places: Vec<Place> = layout
        .shared_memory
        .iter()
        .map(|region| region.place)
        .collect();
    places.extend([layout.common, layout.notify, layout.isr]);
    places.extend(layout.device);
    let own = places.len();
    places.extend(msix.iter().flat_map(|msix| [msix.table, msix.pending]));
    for (index, place) in places.iter().enumerate() {
        let end = u128::from(place.offset) + u128::from(place.len);
        assert!(bar_len(place.bar).is_some_and(|len| end <= len.into()));
        // A table that overlaps its own pending bits is the device's business alone.
        for other in &places[..index.min(own)] {
            let apart = place.bar != other.bar
                || place.offset >= other.offset + other.len
                || other.offset >= place.offset + place.len;
            assert!(apart, "{place} and {other}");
        }
    }
    assert!(layout.common.len >= 56 && layout.common.offset.is_multiple_of(4));
    assert!(layout.notify.len >= 2 && layout.notify.offset.is_multiple_of(2));
}
