//! What is there for all guests, once more for a guest that is not to have the original.
//!
//! The memory SHARED is written by the host alone, and seen by everybody. A guest whose memory it can write to all over gets
//! its own copy there, and can spoil no other's.

use shmbus_shm::{Mapped, Region, Writing};

use super::error::HostError;
use super::port::PlacedMemory;

/// One guest's copy of the memory SHARED.
pub(super) struct SharedCopy {}

impl SharedCopy {
    /// Sets up in `copy` what the `regions` of `shared` hold.
    pub(super) fn new(
        regions: &[Region],
        _shared: &Mapped,
        copy: &PlacedMemory,
    ) -> Result<Self, HostError> {
        let regions = regions.iter().map(|region| Region {
            epoch: copy.epoch,
            ..*region
        });
        let directory: Vec<_> = (0..).zip(regions).collect();
        super::write_directory(&copy.window, &directory, Writing::Unenforced)?;
        Ok(Self {})
    }

    /// Passes on what changed; returns whether there is more of that.
    pub(super) fn update(&mut self) -> bool {
        false
    }
}
