//! When a side wants to be told (virtio 1.4, sections 2.7.7 and 2.7.10), and what else lies where it says so.

use core::sync::atomic::Ordering::Relaxed;

use shmbus_shm::{Field, Window, WindowError};

use crate::event::Untold;

/// In `flags`: this side does not want to be told (`VIRTQ_AVAIL_F_NO_INTERRUPT`, `VIRTQ_USED_F_NO_NOTIFY`).
const UNWANTED: u16 = 1;

/// The two words of an area by which its writer asks the other side: `flags`, and `used_event` or `avail_event`.
#[derive(Clone, Debug)]
pub(super) struct Suppression<W> {
    flags: Field<u16, W>,
    event: Field<u16, W>,
}

impl<W: Window> Suppression<W> {
    pub(super) fn new(window: &W, event_offset: usize) -> Result<Self, WindowError> {
        Ok(Self {
            flags: Field::new(window, 0)?,
            event: Field::new(window, event_offset)?,
        })
    }

    /// Whether the writer wants to be told of what it was shown before the entry `next`: `by_position` as negotiated.
    #[inline(always)]
    pub(super) fn is_wanted(&self, by_position: bool, untold: Untold, next: u16) -> bool {
        if by_position {
            untold.includes_entry(self.event.load(Relaxed), next)
        } else {
            self.flags.load(Relaxed) & UNWANTED == 0
        }
    }

    /// What lies in the event index's place.
    pub(super) fn event(&self) -> u16 {
        self.event.load(Relaxed)
    }
}

/// What this side asks of the other: kept here, so that it is stored only when it changes.
#[derive(Debug)]
pub(super) struct Wish {
    place: EventPlace,
    said: Said,
}

/// What the event index's place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventPlace {
    /// The event index: the other side ignores `flags`.
    Event,
    /// This side's position in the other's ring, for observers: where the proposal of 2008 had it, and `flags` count.
    Position,
    /// Nothing; `flags` count.
    Unused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Unwanted,
    Wanted,
    /// Wanted when this entry is written.
    At(u16),
}

impl Wish {
    /// `by_position` and `publish_indices` as negotiated; the former needs the place.
    pub(super) fn new(by_position: bool, publish_indices: bool) -> Self {
        let place = match (by_position, publish_indices) {
            (true, _) => EventPlace::Event,
            (false, true) => EventPlace::Position,
            (false, false) => EventPlace::Unused,
        };
        Self {
            place,
            said: Said::Wanted,
        }
    }

    /// Wanted from the first entry on.
    pub(super) fn start<W: Window>(&mut self, own: &Suppression<W>, position: u16) {
        self.said = match self.place {
            EventPlace::Event => Said::At(position),
            _ => Said::Wanted,
        };
        own.flags.store(0, Relaxed);
        own.event.store(position, Relaxed);
    }

    /// With an event index `flags` stay 0, and the event is left behind: one in 65536 entries is told of.
    pub(super) fn disable<W: Window>(&mut self, own: &Suppression<W>) {
        if self.said == Said::Wanted {
            self.said = Said::Unwanted;
            own.flags.store(UNWANTED, Relaxed);
        }
    }

    /// Wanted when the entry at `position` is written, or sooner. The caller fences, then looks once more.
    pub(super) fn enable<W: Window>(&mut self, own: &Suppression<W>, position: u16) {
        let wanted = match self.place {
            EventPlace::Event => Said::At(position),
            _ => Said::Wanted,
        };
        if self.said == wanted {
            return;
        }
        self.said = wanted;
        match wanted {
            Said::At(event) => own.event.store(event, Relaxed),
            _ => own.flags.store(0, Relaxed),
        }
    }

    /// Whether this side asks by position.
    pub(super) fn is_by_position(&self) -> bool {
        self.place == EventPlace::Event
    }

    /// Publishes where this side has come to in the other's ring, if that was negotiated and there is a place for it.
    #[inline(always)]
    pub(super) fn tell_position<W: Window>(&self, own: &Suppression<W>, position: u16) {
        if self.place == EventPlace::Position {
            own.event.store(position, Relaxed);
        }
    }
}
