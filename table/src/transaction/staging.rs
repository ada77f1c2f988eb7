//! What a transaction is to write, kept in its writer's own memory until it is committed.

/// Entries of a slot's number and a value, in storage that the caller gave.
#[derive(Debug)]
pub(super) struct Staging<S> {
    words: S,
    value_words: usize,
    staged: usize,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Staging<S> {
    pub(super) fn new(words: S, value_words: usize) -> Self {
        Self {
            words,
            value_words,
            staged: 0,
        }
    }

    fn entry_words(&self) -> usize {
        1 + self.value_words
    }

    /// How many slots a transaction can have.
    pub(super) fn capacity(&self) -> usize {
        self.words.as_ref().len() / self.entry_words()
    }

    /// How many slots are staged.
    pub(super) fn len(&self) -> usize {
        self.staged
    }

    pub(super) fn clear(&mut self) {
        self.staged = 0;
    }

    fn entries(&self) -> impl Iterator<Item = &[u64]> {
        let words = self.words.as_ref();
        words.chunks_exact(self.entry_words()).take(self.staged)
    }

    /// The slots, in the order in which they were staged first.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.entries().map(|entry| entry[0] as u32)
    }

    /// The slots with their values.
    pub(super) fn writes(&self) -> impl Iterator<Item = (u32, &[u64])> {
        self.entries().map(|entry| (entry[0] as u32, &entry[1..]))
    }

    /// Adds a slot that is not staged; whether there was room. `value` has as many words as all values.
    pub(super) fn add(&mut self, slot: u32, value: &[u64]) -> bool {
        if self.staged == self.capacity() {
            return false;
        }
        self.write(self.staged, slot, value);
        self.staged += 1;
        true
    }

    /// Puts another value in the place of a staged slot's.
    pub(super) fn replace(&mut self, slot: u32, value: &[u64]) {
        let index = self.slots().position(|staged| staged == slot);
        if let Some(index) = index {
            self.write(index, slot, value);
        }
    }

    fn write(&mut self, index: usize, slot: u32, value: &[u64]) {
        let entry_words = self.entry_words();
        let mut entries = self.words.as_mut().chunks_exact_mut(entry_words);
        if let Some([first, words @ ..]) = entries.nth(index) {
            *first = slot.into();
            words.copy_from_slice(value);
        }
    }
}
