//! Which lines can be delivered, the most urgent first.

use super::LinePriority;

/// A set of lines for each priority. Adding, removing and finding the first cost a few words, however many lines there
/// are and however many are in it; nothing is allocated once it is made.
#[derive(Debug)]
pub(super) struct ReadyLines {
    sets: Vec<LineSet>,
    /// A bit for each priority that has lines.
    used: u32,
    count: usize,
}

impl ReadyLines {
    /// For `lines` lines, none of which is ready.
    pub(super) fn new(lines: u32) -> Self {
        Self {
            sets: (0..LinePriority::COUNT)
                .map(|_| LineSet::new(lines))
                .collect(),
            used: 0,
            count: 0,
        }
    }

    /// Adds a line that is not in it.
    pub(super) fn insert(&mut self, priority: LinePriority, line: u32) {
        if let Some(set) = self.sets.get_mut(usize::from(priority.number())) {
            set.insert(line);
            self.used |= 1 << priority.number();
            self.count += 1;
        }
    }

    /// Removes a line that is in it with this priority.
    pub(super) fn remove(&mut self, priority: LinePriority, line: u32) {
        if let Some(set) = self.sets.get_mut(usize::from(priority.number())) {
            set.remove(line);
            self.count -= 1;
            if set.first().is_none() {
                self.used &= !(1 << priority.number());
            }
        }
    }

    /// The most urgent line; of several, that with the lowest number.
    pub(super) fn first(&self) -> Option<(LinePriority, u32)> {
        let priority = LinePriority::new(self.used.trailing_zeros() as u8)?;
        let line = self.sets.get(usize::from(priority.number()))?.first()?;
        Some((priority, line))
    }

    /// How many lines are in it.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

/// A set of lines: a bit for each, and above it a bit for each word of bits that is not zero.
#[derive(Debug)]
struct LineSet {
    /// From the one word at the top down to the lines.
    levels: Vec<Vec<u64>>,
}

const BITS: u32 = u64::BITS;

impl LineSet {
    fn new(lines: u32) -> Self {
        let mut levels = Vec::new();
        let mut words = lines;
        while words > 1 || levels.is_empty() {
            words = words.div_ceil(BITS);
            levels.insert(0, vec![0; words as usize]);
        }
        Self { levels }
    }

    fn insert(&mut self, line: u32) {
        let mut index = line;
        for level in self.levels.iter_mut().rev() {
            if let Some(word) = level.get_mut((index / BITS) as usize) {
                *word |= 1 << (index % BITS);
            }
            index /= BITS;
        }
    }

    fn remove(&mut self, line: u32) {
        let mut index = line;
        for level in self.levels.iter_mut().rev() {
            let Some(word) = level.get_mut((index / BITS) as usize) else {
                return;
            };
            *word &= !(1 << (index % BITS));
            if *word != 0 {
                return;
            }
            index /= BITS;
        }
    }

    fn first(&self) -> Option<u32> {
        let mut index = 0;
        for level in &self.levels {
            let word = *level.get(index as usize)?;
            if word == 0 {
                return None;
            }
            index = index * BITS + word.trailing_zeros();
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_line_and_the_most_there_are() {
        for lines in [1, 64, 65, 4096, 4097, 65_536] {
            let mut ready = ReadyLines::new(lines);
            assert_eq!(ready.first(), None);
            ready.insert(LinePriority::LOWEST, lines - 1);
            assert_eq!(ready.first(), Some((LinePriority::LOWEST, lines - 1)));
            ready.remove(LinePriority::LOWEST, lines - 1);
            assert_eq!((ready.first(), ready.len()), (None, 0));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 64 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_first_is_that_of_an_ordered_set(
            steps in prop::collection::vec((0u8..32, 0u32..5_000), 0..300),
        ) {
            let mut ready = ReadyLines::new(5_000);
            let mut model = BTreeSet::new();
            for (priority, line) in steps {
                let priority = LinePriority::new(priority).unwrap();
                if model.insert((priority, line)) {
                    ready.insert(priority, line);
                } else {
                    model.remove(&(priority, line));
                    ready.remove(priority, line);
                }
                prop_assert_eq!(ready.first(), model.first().copied());
                prop_assert_eq!(ready.len(), model.len());
            }
        }
    }
}
