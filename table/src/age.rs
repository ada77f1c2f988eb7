//! How old a slot's value is, told in its writer's heartbeats, and how long a writer has been silent.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmbus_shm::{Entries, Window, WindowError};

use crate::flags::TableFlags;
use crate::header::Life;
use crate::layout::TableLayout;

/// How long ago a slot was last published, by the writer's own count: no clock of the reader's is needed.
///
/// A writer that is dead or stalled makes no beats, so the ages stand still with it: [`Silence`] notices that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// The writer's heartbeats since then.
    pub beats: u64,
    /// Nanoseconds from one beat to the next, as the table's header says.
    pub beat_ns: u64,
}

impl Age {
    /// The least time that has passed, in nanoseconds, as of the writer's last beat: the first of these beats may have
    /// come right after the publication.
    pub const fn at_least_ns(self) -> u64 {
        self.beats.saturating_sub(1).saturating_mul(self.beat_ns)
    }

    /// The most time that has passed, in nanoseconds, as long as the writer beats: the next beat is still to come.
    pub const fn at_most_ns(self) -> u64 {
        self.beats.saturating_add(1).saturating_mul(self.beat_ns)
    }
}

/// A slot has told no age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// There is no such slot.
    #[error("the table has {slots} slots; there is no slot {slot}")]
    NoSuchSlot {
        /// The slot asked for.
        slot: u32,
        /// How many slots there are.
        slots: u32,
    },
    /// The table was made without ages.
    #[error("the table does not tell how old its values are")]
    NotTold,
    /// No value has been published yet.
    #[error("the slot was never written")]
    NeverWritten,
    /// The value is from a beat that the writer has not come to. No honest writer says that.
    #[error(
        "the slot was published at beat {published}, but the writer's heartbeat is {heartbeat}"
    )]
    Ahead {
        /// The beat at which the slot says it was published.
        published: u64,
        /// The writer's heartbeat, loaded after that.
        heartbeat: u64,
    },
}

/// The array that says at which beat each slot was last published: 0 for never, since the first beat is 1.
#[derive(Clone, Debug)]
pub(crate) struct Ages<W>(Entries<u64, W>);

impl<W: Window> Ages<W> {
    /// The array of the table at the start of `window`, if it has one.
    pub(crate) fn new(window: &W, layout: TableLayout) -> Result<Option<Self>, WindowError> {
        if !layout.flags().contains(TableFlags::AGES) {
            return Ok(None);
        }
        let slots = (layout.slots() as usize).next_power_of_two();
        let beats = Entries::new(window, layout.ages_offset(), slots)?;
        Ok(Some(Self(beats)))
    }

    pub(crate) fn clear(&self) {
        for slot in 0..self.0.count() {
            self.0.store(slot, 0, Relaxed);
        }
    }

    /// Release: who finds this beat finds the value that it is told of, and a heartbeat that is not before it.
    #[inline(always)]
    pub(crate) fn set(&self, slot: u32, beats: u64) {
        self.0.store(slot as usize, beats, Release);
    }

    /// How old a slot of a table says it is, whose array this is, if it has one.
    pub(crate) fn age(
        ages: Option<&Self>,
        life: &Life<W>,
        layout: TableLayout,
        slot: u32,
    ) -> Result<Age, AgeError> {
        let slots = layout.slots();
        if slot >= slots {
            return Err(AgeError::NoSuchSlot { slot, slots });
        }
        let published = ages.ok_or(AgeError::NotTold)?.get(slot);
        if published == 0 {
            return Err(AgeError::NeverWritten);
        }
        let heartbeat = life.heartbeat();
        let beats = heartbeat.checked_sub(published).ok_or(AgeError::Ahead {
            published,
            heartbeat,
        })?;
        Ok(Age {
            beats,
            beat_ns: layout.beat_ns(),
        })
    }

    /// The beat at which a slot says it was last published.
    pub(crate) fn get(&self, slot: u32) -> u64 {
        let beats = self.0.load(slot as usize, Relaxed);
        // Pairs with the Release of the beat. Loads from a read-only mapping are relaxed.
        self.0.fence(Acquire);
        beats
    }
}

/// How long a writer has been silent, by its reader's clock. A writer that is dead, or stalled, is one that stays
/// silent for some of its beats, whose length is the table's ([`TableLayout::beat_ns`]) or agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    heartbeat: u64,
    since_ns: u64,
}

impl Silence {
    /// Begins to watch a writer whose heartbeat is `heartbeat` at `now_ns`.
    pub const fn new(heartbeat: u64, now_ns: u64) -> Self {
        Self {
            heartbeat,
            since_ns: now_ns,
        }
    }

    /// Takes note of the heartbeat at `now_ns`, and returns for how many nanoseconds it has stood still as far as was
    /// looked: 0 if it has moved since the last look. A clock that goes back counts as one that stands still.
    pub const fn look(&mut self, heartbeat: u64, now_ns: u64) -> u64 {
        if heartbeat != self.heartbeat {
            *self = Self::new(heartbeat, now_ns);
        }
        now_ns.saturating_sub(self.since_ns)
    }
}
