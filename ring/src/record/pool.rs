//! The recorder's private bookkeeping: which copies are free, and what each chain has.

/// No copy, or no chain, has this number.
const NONE: u16 = u16::MAX;

/// The recorder's private record for one entry: storage that the caller passes in, one for each entry of the queue.
#[derive(Clone, Copy, Debug)]
pub struct RecordSlot {
    /// The copy that follows this one: in its chain, or among those that are free.
    following: u16,
    /// The first copy of the chain whose id this slot's index is, and how many it has.
    first: u16,
    copies: u16,
    /// The chain's number, counted over all chains.
    pub(super) number: u32,
    /// The chain that was completed before this one, in the batch that is not published.
    completed_before: u16,
}

impl RecordSlot {
    /// An unused slot.
    pub const fn new() -> Self {
        Self {
            following: NONE,
            first: NONE,
            copies: 0,
            number: 0,
            completed_before: NONE,
        }
    }
}

impl Default for RecordSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// Which slots are what.
#[derive(Debug)]
pub(super) struct Pool {
    free: u16,
    completed: u16,
}

impl Pool {
    /// All copies are free.
    pub(super) fn new(slots: &mut [RecordSlot], size: u16) -> Self {
        for (index, slot) in (0..size).zip(slots.iter_mut()) {
            *slot = RecordSlot {
                following: index + 1,
                ..RecordSlot::new()
            };
        }
        Self {
            free: 0,
            completed: NONE,
        }
    }

    /// Takes `count` copies for chain `id`; returns the first. There are as many copies as the ring has entries, and the
    /// queue lets no chains in flight take up more.
    pub(super) fn take(&mut self, slots: &mut [RecordSlot], id: u16, count: u16) -> u16 {
        let first = self.free;
        for _ in 0..count {
            self.free = self.following(slots, self.free);
        }
        if let Some(slot) = slots.get_mut(usize::from(id)) {
            slot.first = first;
            slot.copies = count;
        }
        first
    }

    /// The copy that follows.
    pub(super) fn following(&self, slots: &[RecordSlot], index: u16) -> u16 {
        slots
            .get(usize::from(index))
            .map_or(NONE, |slot| slot.following)
    }

    /// The first copy of chain `id`.
    pub(super) fn first(&self, slots: &[RecordSlot], id: u16) -> u16 {
        slots.get(usize::from(id)).map_or(NONE, |slot| slot.first)
    }

    /// Chain `id` is completed.
    pub(super) fn complete(&mut self, slots: &mut [RecordSlot], id: u16) {
        if let Some(slot) = slots.get_mut(usize::from(id)) {
            slot.completed_before = self.completed;
            self.completed = id;
        }
    }

    /// A chain that was completed, if there is one left: it and its copies are free.
    pub(super) fn next_completed(&mut self, slots: &mut [RecordSlot]) -> Option<u16> {
        let id = self.completed;
        let slot = slots.get(usize::from(id)).copied()?;
        self.completed = slot.completed_before;
        let mut last = slot.first;
        for _ in 1..slot.copies {
            last = self.following(slots, last);
        }
        if slot.copies > 0
            && let Some(end) = slots.get_mut(usize::from(last))
        {
            end.following = self.free;
            self.free = slot.first;
        }
        Some(id)
    }
}
