//! What is there for all guests, once more for a guest that is not to have the original.
//!
//! The memory SHARED is written by the host alone, and seen by everybody. A guest that can write to all of its memory has a
//! copy there, and so can spoil no other's. The originals are read, never the copies.

use shmbus_shm::{Mapped, Region, RegionKind, Window, WindowError, Writing};
use shmbus_table::{Header, Mirror};

use super::error::HostError;
use super::port::PlacedMemory;

/// How many slots of a table are passed on at a time.
const BUDGET: u32 = 1024;

/// One guest's copy of the memory SHARED.
pub(super) struct SharedCopy {
    tables: Vec<Mirror<Mapped, Mapped, Vec<u64>>>,
}

impl SharedCopy {
    /// Shows in `copy` what the `regions` of `shared` hold.
    pub(super) fn new(
        regions: &[Region],
        shared: &Mapped,
        copy: &PlacedMemory,
    ) -> Result<Self, HostError> {
        let told = regions.iter().map(|region| Region {
            epoch: copy.epoch,
            ..*region
        });
        let directory: Vec<_> = (0..).zip(told).collect();
        super::write_directory(&copy.window, &directory, Writing::Unenforced)?;
        let mut tables = Vec::new();
        for region in regions {
            let RegionKind::Table { slots, .. } = region.purpose.kind else {
                continue;
            };
            let source = window(shared, region)?;
            let header = Header::read(&source)?;
            let storage = std::array::from_fn(|_| vec![0; slots as usize]);
            let target = window(&copy.window, region)?;
            tables.push(Mirror::create(source, target, header, storage)?);
        }
        let mut copy = Self { tables };
        // The guest finds everything there when it is let in. Nobody writes meanwhile, so this comes to an end.
        while copy.update() {}
        Ok(copy)
    }

    /// Passes on what changed; returns whether there is more of that.
    pub(super) fn update(&mut self) -> bool {
        let mut more = false;
        for table in &mut self.tables {
            let done = table.update(BUDGET);
            if let Some(fault) = done.fault {
                tracing::error!(%fault, "what is there for all guests cannot be passed on");
            }
            more |= done.more;
        }
        more
    }
}

fn window(memory: &Mapped, region: &Region) -> Result<Mapped, WindowError> {
    let placement = region.placement;
    memory.narrow(placement.offset as usize, placement.bytes as usize)
}
