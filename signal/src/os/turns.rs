//! Whose turn it is among the priority classes.

use crate::channel::CLASSES;

/// How many events of other classes go first before a pending class is overdue. As several may be overdue at a time, a
/// class waits for at most `STARVATION_BOUND + CLASSES - 2` events of other classes.
pub const STARVATION_BOUND: u32 = 16;

/// Chooses the highest pending class, unless another is overdue.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How many events have gone before each class while it was pending.
    passed_over: [u32; CLASSES],
}

impl Turns {
    /// The class to serve next, if any is pending.
    pub(super) fn choose(&self, pending: [bool; CLASSES]) -> Option<usize> {
        let classes = || (0..CLASSES).filter(|class| pending[*class]);
        classes()
            .filter(|class| self.passed_over[*class] >= STARVATION_BOUND)
            .max_by_key(|class| self.passed_over[*class])
            .or_else(|| classes().next())
    }

    /// An event of `served` was handed out.
    pub(super) fn serve(&mut self, served: usize, pending: [bool; CLASSES]) {
        for (class, passed_over) in self.passed_over.iter_mut().enumerate() {
            *passed_over = if class != served && pending[class] {
                *passed_over + 1
            } else {
                0
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_classes_go_first_and_the_lowest_waits_no_longer_than_stated() {
        let mut turns = Turns::default();
        assert_eq!(turns.choose([false, false, true, true]), Some(2));
        let pending = [true; CLASSES];
        let mut last = [0; CLASSES];
        let mut served = [0; CLASSES];
        let mut longest = [0; CLASSES];
        for turn in 1..=1_000_u32 {
            let class = turns.choose(pending).unwrap();
            turns.serve(class, pending);
            longest[class] = longest[class].max(turn - last[class] - 1);
            last[class] = turn;
            served[class] += 1;
        }
        let bound = STARVATION_BOUND + CLASSES as u32 - 2;
        assert_eq!(longest.iter().max(), Some(&bound), "{longest:?}");
        assert!(served[0] > 800, "{served:?}");
    }
}
