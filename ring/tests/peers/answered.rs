//! What a device has answered and not yet returned.

use super::traffic::Dice;

/// Chains that are answered. Some are kept for longer than others.
pub struct Answered<T> {
    chains: Vec<T>,
    in_order: bool,
    dice: Dice,
}

impl<T> Answered<T> {
    /// They are returned in the order in which they came, or in any.
    pub fn new(in_order: bool) -> Self {
        Self {
            chains: Vec::new(),
            in_order,
            dice: Dice::new(0),
        }
    }

    pub fn push(&mut self, chain: T) {
        self.chains.push(chain);
    }

    /// The chains to return now, when `taken` were added: all of them if none were, so that none is kept while the
    /// device sleeps.
    pub fn returned(&mut self, taken: usize) -> impl Iterator<Item = T> {
        let count = self.chains.len();
        let kept = match taken {
            0 => 0,
            _ => self.dice.below(count) / 2,
        };
        if !self.in_order {
            self.dice.shuffle(&mut self.chains);
        }
        self.chains.drain(..count - kept)
    }
}
