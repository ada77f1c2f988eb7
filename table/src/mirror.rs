//! A table that shows in other memory what another table holds.

use core::ops::ControlFlow;

use shmbus_shm::slot::{Epoch, Generation, ReadError as SlotError};
use shmbus_shm::{Notify, Scan, Window};

use crate::error::{ReadError, TableError};
use crate::header::{FIRST_BEAT, Header};
use crate::reader::TableReader;
use crate::resume::MAX_SLOT_WORDS;
use crate::value::{InvalidValue, Value};
use crate::writer::TableWriter;

/// Slots that are looked for at a time: a scan cannot read what it finds while it is under way.
const BATCH: usize = 16;

/// How a slot's words are checked before they are shown.
type Check = fn(&mut [u64]) -> Result<(), InvalidValue>;

/// Re-publishes a table, the *source*, in memory that its own readers have, the *target*, of which this is the only
/// writer.
///
/// That is for readers who are not to have the source's memory, or cannot: because more lies there than they may see, or
/// because others can write there, as in a memory that a whole guest shares. What they find in the target is a table like any
/// other, with the same geometry, the source's values, its ages and heartbeat. Between two updates the values of a slot
/// supersede each other as always, and only the last is passed on.
///
/// The source is read as any reader reads it, and may do what it likes: a slot that gives no value, or one that is not what its
/// type allows, keeps in the target the last good one it had there. [`Mirrored`] tells of that.
///
/// # Generations
///
/// A value keeps the *count* of its generation, so that what is said of "the third deadline" elsewhere is true of the
/// target as well. Its epoch is the target's own: whenever the source's writer restarts, or the source is set up anew
/// ([`Mirror::renew`]), or a source goes back in its count, which no honest one does, the target goes on under the next
/// epoch, and its readers learn what a restart makes them learn. While a value is being passed on, a reader may find it
/// under a smaller count that was passed over; as with words, the count is a lower bound.
///
/// # Cost
///
/// Without news an update is two loads. With news it is one scan of the source's tree, and for each slot that changed a read and
/// a publication, never more than the caller allows at a time: the rest is carried over.
///
/// # What it does not serve
///
/// Tables with transactions, of which several slots are shown as one, and tables whose values can be pinned, which need memory
/// of their readers: [`TableError::Kind`].
#[derive(Debug)]
pub struct Mirror<F, T, S> {
    source: TableReader<F, S>,
    target: TableWriter<T, S>,
    /// The source's epoch that the target's stands for, once a value was passed on.
    life: Option<Epoch>,
    /// The source's heartbeat as it was passed on.
    heartbeat: u64,
    /// Whether the scan that is under way was begun in an earlier call.
    is_carried_over: bool,
    check: Check,
}

/// What an update did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "what was published may have to be signalled, and the rest may have been carried over"]
pub struct Mirrored {
    /// Slots that were published in the target.
    pub published: u32,
    /// Slots that changed in the source and keep the value they had in the target.
    pub kept: u32,
    /// Why, of the first of these.
    pub fault: Option<MirrorFault>,
    /// Whether there is more to pass on than the caller allowed. The next update goes on with it.
    pub more: bool,
}

impl Mirrored {
    /// Whether the target's channel is to be told.
    pub fn notify(&self) -> Notify {
        match self.published {
            0 => Notify::No,
            _ => Notify::Yes,
        }
    }
}

/// Why a slot keeps in the target the value it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorFault {
    /// The source gave no value. One whose writer was too fast is read again with the next update.
    #[error("slot {slot} of the source: {source}")]
    Unreadable {
        /// The slot.
        slot: u32,
        /// What was found.
        source: ReadError,
    },
    /// The source gave a value that its type does not have.
    #[error("slot {slot} of the source: {source}")]
    Invalid {
        /// The slot.
        slot: u32,
        /// What was found.
        source: InvalidValue,
    },
    /// The target cannot hold the value: its epochs are used up, or its count is. It must be set up anew.
    #[error("slot {slot} of the target: {source}")]
    Target {
        /// The slot.
        slot: u32,
        /// What was found.
        source: TableError,
    },
}

impl<F: Window, T: Window, S: AsRef<[u64]> + AsMut<[u64]>> Mirror<F, T, S> {
    /// Sets up a table at the start of `target` for what the table at the start of `source` holds. The first update passes on
    /// every value that is there.
    ///
    /// `header` says what the table is: the source must have that geometry and type, and the target begins under that
    /// epoch. The three pieces of storage are of a word for each slot.
    ///
    /// # Errors
    ///
    /// [`TableError`]: the source is no table, not this one, or of a kind that is not served; the target is too small, or
    /// the storage is.
    pub fn create(
        source: F,
        target: T,
        header: Header,
        storage: [S; 3],
    ) -> Result<Self, TableError> {
        let [cursors, seen, written] = storage;
        let source = TableReader::attach(source, cursors, seen)?;
        let Header {
            layout,
            type_id,
            epoch,
        } = header;
        let found = Header {
            layout: source.layout(),
            type_id: source.type_id(),
            epoch,
        };
        found.check_successor(layout, type_id)?;
        Ok(Self {
            source,
            target: TableWriter::create(target, layout, type_id, epoch, written)?,
            life: None,
            heartbeat: FIRST_BEAT,
            is_carried_over: false,
            check: |_| Ok(()),
        })
    }

    /// The same, of a table of values of `V`: what `V` does not allow is not shown, and of what it does allow nothing
    /// but the value. Without this words are passed on as they are.
    ///
    /// # Errors
    ///
    /// [`TableError::Type`] and [`TableError::ValueBytes`].
    pub fn of_values<V: Value>(mut self) -> Result<Self, TableError> {
        crate::typed::check::<V>(self.target.layout(), self.target.type_id())?;
        self.check = |words| {
            let value = V::decode(words)?;
            words.fill(0);
            value.encode(words);
            Ok(())
        };
        Ok(self)
    }

    /// Follows a source that was set up anew, in new memory or where it was: it must be a table of the same geometry and type. A
    /// slot keeps its value in the target until the new source has one for it.
    ///
    /// A writer that restarts where it was needs no such call.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the mirror then stays with the source it had.
    pub fn renew(&mut self, source: F) -> Result<(), TableError> {
        if self.life.is_some() {
            self.target.epoch().next().ok_or(TableError::EpochsUsedUp)?;
        }
        self.source.begin_anew(source)?;
        self.is_carried_over = false;
        if self.life.take().is_some() {
            self.target.go_on()?;
        }
        Ok(())
    }

    /// Passes on what changed in the source since the last update: at most `budget` slots, and one at least.
    pub fn update(&mut self, budget: u32) -> Mirrored {
        let heartbeat = self.source.heartbeat();
        if heartbeat != self.heartbeat {
            self.heartbeat = heartbeat;
            self.target.set_beats(heartbeat);
        }
        let mut done = Mirrored::default();
        let mut left = budget.max(1) as usize;
        loop {
            let mut batch = [0; BATCH];
            let room = left.min(BATCH);
            let mut found = 0;
            let scan = self.source.scan(|slot, _| {
                if let Some(place) = batch.get_mut(found) {
                    *place = slot;
                }
                found += 1;
                match found == room {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            self.pass_on(batch.get(..found).unwrap_or_default(), &mut done);
            left -= found.min(left);
            match scan {
                Scan::Paused => {}
                // It found what had changed when it began, in an earlier call.
                Scan::Finished if self.is_carried_over => self.is_carried_over = false,
                Scan::Finished | Scan::Unchanged => return done,
            }
            if left == 0 {
                done.more = true;
                self.is_carried_over |= scan == Scan::Paused;
                return done;
            }
        }
    }

    /// Passes on these slots, with a buffer that is as large as one's value.
    fn pass_on(&mut self, slots: &[u32], done: &mut Mirrored) {
        let words = self.source.layout().slot_words();
        match words {
            _ if slots.is_empty() => {}
            0..=8 => self.pass_on_by(&mut [0; 8][..words], slots, done),
            9..=64 => self.pass_on_by(&mut [0; 64][..words], slots, done),
            _ => self.pass_on_by(&mut [0; MAX_SLOT_WORDS][..words], slots, done),
        }
    }

    fn pass_on_by(&mut self, value: &mut [u64], slots: &[u32], done: &mut Mirrored) {
        for slot in slots {
            match self.pass_slot_on(*slot, value) {
                Ok(()) => done.published += 1,
                Err(fault) => {
                    done.kept += 1;
                    done.fault = done.fault.or(Some(fault));
                }
            }
        }
    }

    fn pass_slot_on(&mut self, slot: u32, value: &mut [u64]) -> Result<(), MirrorFault> {
        // Before the value, which is then at most as old. A beat that the target has not come to is its last one.
        let beats = match &self.source.ages {
            Some(ages) => ages
                .get(slot)
                .clamp(FIRST_BEAT, self.heartbeat.max(FIRST_BEAT)),
            None => self.heartbeat,
        };
        let generation = match self.source.read(slot, value) {
            // Said once; the value is there.
            Err(ReadError::Slot(SlotError::Restarted { .. })) => self.source.read(slot, value),
            outcome => outcome,
        };
        let generation = generation.map_err(|source| MirrorFault::Unreadable { slot, source })?;
        (self.check)(value).map_err(|source| MirrorFault::Invalid { slot, source })?;
        self.publish(slot, beats, generation, value)
            .map_err(|source| MirrorFault::Target { slot, source })
    }

    fn publish(
        &mut self,
        slot: u32,
        beats: u64,
        generation: Generation,
        value: &[u64],
    ) -> Result<(), TableError> {
        let last = self.target.generation(slot);
        let shown =
            |target: &TableWriter<T, S>| Generation::new(target.epoch(), generation.count());
        // While a writer restarts, slots of its last life are among those of the new one: time goes on with the first of
        // these.
        let is_another_life = self.life.is_some_and(|life| generation.epoch() > life);
        if is_another_life || shown(&self.target) < last {
            self.target.go_on()?;
        }
        self.life = self.life.max(Some(generation.epoch()));
        match shown(&self.target) {
            // It was read before it was reported.
            shown if shown == last => Ok(()),
            Some(shown) => self.target.publish_as(beats, slot, shown, value),
            // A generation's count is one that a generation can have.
            None => Ok(()),
        }
    }

    /// The table's geometry.
    pub fn layout(&self) -> crate::TableLayout {
        self.target.layout()
    }

    /// The target's epoch: it tells how often the source began anew.
    pub fn epoch(&self) -> Epoch {
        self.target.epoch()
    }

    /// The generation last published in a slot of the target.
    pub fn generation(&self, slot: u32) -> Option<Generation> {
        self.target.generation(slot)
    }
}
