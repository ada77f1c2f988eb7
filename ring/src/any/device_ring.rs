//! The device side of a ring of any format.

use shmbus_shm::{AddressSpace, Notify, Window};

use super::{Areas, with_each};
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES};
use crate::device::{Completed, DeviceSlot, FoundChain, sealed};
use crate::event::Recheck;
use crate::fault::{DeviceFault, SetupError};
use crate::features::RingFeatures;
use crate::kind::RingKind;
use crate::positions::Positions;
use crate::state::{DeviceState, DeviceStateWriter, SavedChain, StateError};
use crate::{packed, split, tagged};

/// The device side of a ring of any format; a [`DeviceQueue`](crate::DeviceQueue) works over it.
#[derive(Debug)]
pub enum DeviceRing<W> {
    /// A split ring.
    Split(split::DeviceRing<W>),
    /// A split ring in order.
    SplitInOrder(split::InOrderDeviceRing<W>),
    /// A packed ring.
    Packed(packed::DeviceRing<W>),
    /// A packed ring in order.
    PackedInOrder(packed::InOrderDeviceRing<W>),
    /// A tagged ring.
    Tagged(tagged::DeviceRing<W>),
}

impl<W: Window> DeviceRing<W> {
    /// The device side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError::Missing`], [`SetupError::Unsupported`] and their private likes if the areas are not of the format that was negotiated, and
    /// what the format's own rings refuse.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        let features = areas.check_format(features.into())?;
        Ok(match areas {
            Areas::Split(areas) if features.in_order() => {
                Self::SplitInOrder(split::InOrderDeviceRing::new(areas, features)?)
            }
            Areas::Split(areas) => Self::Split(split::DeviceRing::new(areas, features)?),
            Areas::Packed(areas) if features.in_order() => {
                Self::PackedInOrder(packed::InOrderDeviceRing::new(areas, features)?)
            }
            Areas::Packed(areas) => Self::Packed(packed::DeviceRing::new(areas, features)?),
            Areas::Tagged(areas) => Self::Tagged(tagged::DeviceRing::new(areas, features)?),
        })
    }
}

impl<W: Window> sealed::DeviceFormat for DeviceRing<W> {
    type Areas = Areas<W>;

    #[inline(always)]
    fn kind(&self) -> RingKind {
        with_each!(self, ring => ring.kind())
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        with_each!(self, ring => ring.size())
    }

    fn start(&mut self, slots: &mut [DeviceSlot], position: u16) {
        with_each!(self, ring => ring.start(slots, position));
    }

    fn rebind(&mut self, areas: Areas<W>) -> Result<(), SetupError> {
        match (self, areas) {
            (Self::Split(ring), Areas::Split(areas)) => ring.rebind(areas),
            (Self::SplitInOrder(ring), Areas::Split(areas)) => ring.rebind(areas),
            (Self::Packed(ring), Areas::Packed(areas)) => ring.rebind(areas),
            (Self::PackedInOrder(ring), Areas::Packed(areas)) => ring.rebind(areas),
            (Self::Tagged(ring), Areas::Tagged(areas)) => ring.rebind(areas),
            _ => Err(SetupError::OtherFormat),
        }
    }

    #[inline]
    fn poll(&mut self) -> Result<u16, DeviceFault> {
        with_each!(self, ring => ring.poll())
    }

    #[inline]
    fn poll_spinning(&mut self) -> Result<u16, DeviceFault> {
        with_each!(self, ring => ring.poll_spinning())
    }

    #[inline]
    fn peek(
        &self,
        space: &impl AddressSpace,
        segments: &mut [Buffer],
    ) -> Result<Option<FoundChain>, DeviceFault> {
        with_each!(self, ring => ring.peek(space, segments))
    }

    #[inline]
    fn advance(&mut self, found: &FoundChain) {
        with_each!(self, ring => ring.advance(found));
    }

    #[inline]
    fn place_used(&mut self, slots: &mut [DeviceSlot], chain: Completed) {
        with_each!(self, ring => ring.place_used(slots, chain));
    }

    #[inline]
    fn settle(&mut self, slots: &mut [DeviceSlot], stepwise: bool) -> [u16; 2] {
        with_each!(self, ring => ring.settle(slots, stepwise))
    }

    #[inline]
    fn claim(&mut self) {
        with_each!(self, ring => ring.claim());
    }

    #[inline]
    fn show(&mut self) {
        with_each!(self, ring => ring.show());
    }

    #[inline]
    fn notify(&mut self) -> Notify {
        with_each!(self, ring => ring.notify())
    }

    fn halt(&mut self) {
        with_each!(self, ring => ring.halt());
    }

    fn disable_notifications(&mut self) {
        with_each!(self, ring => ring.disable_notifications());
    }

    fn enable_notifications(&mut self) -> Recheck {
        with_each!(self, ring => ring.enable_notifications())
    }

    fn positions(&self) -> Positions {
        with_each!(self, ring => ring.positions())
    }

    fn age(&self, position: u16) -> u32 {
        with_each!(self, ring => ring.age(position))
    }

    fn has_unpublished(&self) -> bool {
        with_each!(self, ring => ring.has_unpublished())
    }

    fn load_descriptor(&self, position: u16, index: u16) -> [u8; DESCRIPTOR_BYTES] {
        with_each!(self, ring => ring.load_descriptor(position, index))
    }

    fn copy_descriptors(
        &mut self,
        chain: SavedChain<'_>,
        to: &mut DeviceStateWriter<'_>,
    ) -> Result<(), StateError> {
        with_each!(self, ring => ring.copy_descriptors(chain, to))
    }

    fn resume(
        &mut self,
        slots: &mut [DeviceSlot],
        state: &DeviceState<'_>,
    ) -> Result<(), StateError> {
        with_each!(self, ring => ring.resume(slots, state))
    }

    fn walk_again(
        &self,
        space: &impl AddressSpace,
        chain: SavedChain<'_>,
        segments: &mut [Buffer],
    ) -> Result<FoundChain, DeviceFault> {
        with_each!(self, ring => ring.walk_again(space, chain, segments))
    }
}
