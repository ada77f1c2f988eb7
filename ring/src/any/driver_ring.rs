//! The driver side of a ring of any format.

use shmbus_shm::{Notify, Window};

use super::{Areas, with_each};
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, UsedElement};
use crate::driver::{DriverSlot, sealed};
use crate::event::Recheck;
use crate::fault::{DriverFault, SetupError};
use crate::features::RingFeatures;
use crate::kind::RingKind;
use crate::positions::Positions;
use crate::state::{DriverState, DriverStateWriter, StateError};
use crate::{packed, split, tagged};

/// The driver side of a ring of any format; a [`DriverQueue`](crate::DriverQueue) works over it.
#[derive(Debug)]
pub enum DriverRing<W> {
    /// A split ring.
    Split(split::DriverRing<W>),
    /// A split ring in order.
    SplitInOrder(split::InOrderDriverRing<W>),
    /// A packed ring.
    Packed(packed::DriverRing<W>),
    /// A packed ring in order.
    PackedInOrder(packed::InOrderDriverRing<W>),
    /// A tagged ring.
    Tagged(tagged::DriverRing<W>),
}

impl<W: Window> DriverRing<W> {
    /// The driver side over `areas`, with what was negotiated.
    ///
    /// # Errors
    ///
    /// [`SetupError::Missing`], [`SetupError::Unsupported`] and their private likes if the areas are not of the format that was negotiated, and
    /// what the format's own rings refuse.
    pub fn new(areas: Areas<W>, features: impl Into<RingFeatures>) -> Result<Self, SetupError> {
        let features = areas.check_format(features.into())?;
        Ok(match areas {
            Areas::Split(areas) if features.in_order() => {
                Self::SplitInOrder(split::InOrderDriverRing::new(areas, features)?)
            }
            Areas::Split(areas) => Self::Split(split::DriverRing::new(areas, features)?),
            Areas::Packed(areas) if features.in_order() => {
                Self::PackedInOrder(packed::InOrderDriverRing::new(areas, features)?)
            }
            Areas::Packed(areas) => Self::Packed(packed::DriverRing::new(areas, features)?),
            Areas::Tagged(areas) => Self::Tagged(tagged::DriverRing::new(areas, features)?),
        })
    }
}

impl<W: Window> sealed::DriverFormat for DriverRing<W> {
    type Areas = Areas<W>;

    #[inline(always)]
    fn kind(&self) -> RingKind {
        with_each!(self, ring => ring.kind())
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        with_each!(self, ring => ring.size())
    }

    #[inline(always)]
    fn capacity(&self) -> u16 {
        with_each!(self, ring => ring.capacity())
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        with_each!(self, ring => ring.free())
    }

    #[inline(always)]
    fn has_indirect(&self) -> bool {
        with_each!(self, ring => ring.has_indirect())
    }

    fn start<T>(&mut self, slots: &mut [DriverSlot<T>], position: u16) {
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
    fn place<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        readable: &[Buffer],
        writable: &[Buffer],
    ) -> u16 {
        with_each!(self, ring => ring.place(slots, readable, writable))
    }

    fn place_indirect<T>(&mut self, slots: &mut [DriverSlot<T>], table: Buffer) -> u16 {
        with_each!(self, ring => ring.place_indirect(slots, table))
    }

    fn indirect_row(&self, index: u16, buffer: Buffer, flags: u16) -> [u8; DESCRIPTOR_BYTES] {
        with_each!(self, ring => ring.indirect_row(index, buffer, flags))
    }

    #[inline]
    fn show(&mut self) {
        with_each!(self, ring => ring.show());
    }

    #[inline]
    fn notify(&mut self) -> Notify {
        with_each!(self, ring => ring.notify())
    }

    #[inline]
    fn poll(&mut self) -> Result<u16, DriverFault> {
        with_each!(self, ring => ring.poll())
    }

    #[inline]
    fn poll_spinning(&mut self) -> Result<u16, DriverFault> {
        with_each!(self, ring => ring.poll_spinning())
    }

    #[inline]
    fn peek_used<T>(
        &mut self,
        slots: &[DriverSlot<T>],
    ) -> Result<Option<(u16, UsedElement)>, DriverFault> {
        with_each!(self, ring => ring.peek_used(slots))
    }

    #[inline]
    fn release<T>(&mut self, slots: &mut [DriverSlot<T>], id: u16) {
        with_each!(self, ring => ring.release(slots, id));
    }

    fn halt(&mut self) {
        with_each!(self, ring => ring.halt());
    }

    fn disable_notifications(&mut self) {
        with_each!(self, ring => ring.disable_notifications());
    }

    fn enable_notifications(&mut self, count: u16) -> Recheck {
        with_each!(self, ring => ring.enable_notifications(count))
    }

    fn positions(&self) -> Positions {
        with_each!(self, ring => ring.positions())
    }

    fn has_unpublished(&self) -> bool {
        with_each!(self, ring => ring.has_unpublished())
    }

    fn has_untaken(&self) -> bool {
        with_each!(self, ring => ring.has_untaken())
    }

    fn head(&self) -> u16 {
        with_each!(self, ring => ring.head())
    }

    fn list_descriptors<T>(
        &self,
        slots: &[DriverSlot<T>],
        id: u16,
        to: &mut DriverStateWriter<'_>,
    ) -> Result<(), StateError> {
        with_each!(self, ring => ring.list_descriptors(slots, id, to))
    }

    fn resume<T>(
        &mut self,
        slots: &mut [DriverSlot<T>],
        state: &DriverState<'_>,
    ) -> Result<(), StateError> {
        with_each!(self, ring => ring.resume(slots, state))
    }
}
