//! How long to look for news before sleeping.

use std::time::Duration;

/// An adaptive budget: it grows while spinning would have spared a sleep, and shrinks while it did not.
#[derive(Debug)]
pub(super) struct SpinBudget {
    most: Duration,
    now: Duration,
}

impl SpinBudget {
    /// About what a sleep and a wake-up cost: then spinning at worst doubles the cost of a sleep.
    pub(super) const DEFAULT: Duration = Duration::from_micros(16);

    pub(super) fn new(most: Duration) -> Self {
        Self { most, now: most }
    }

    /// How long to spin.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// News came while spinning.
    pub(super) fn paid(&mut self) {
        self.grow();
    }

    /// Spinning was in vain; with the sleep that followed, news took so long. Only where the largest budget would have
    /// spared the sleep is it worth a larger one: not on a machine where the sender waits for our processor.
    pub(super) fn slept(&mut self, waited: Duration) {
        if waited < self.most {
            self.grow();
        } else {
            self.now /= 2;
        }
    }

    fn grow(&mut self) {
        self.now = (self.now * 2).clamp(self.most / 8, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_how_long_sleeps_take() {
        let most = Duration::from_micros(16);
        let mut budget = SpinBudget::new(most);
        for _ in 0..20 {
            budget.slept(Duration::from_millis(1));
        }
        assert_eq!(budget.now(), Duration::ZERO);
        budget.slept(Duration::from_micros(3));
        assert_eq!(budget.now(), most / 8);
        for _ in 0..5 {
            budget.paid();
        }
        assert_eq!(budget.now(), most);

        let mut never = SpinBudget::new(Duration::ZERO);
        never.paid();
        never.slept(Duration::ZERO);
        assert_eq!(never.now(), Duration::ZERO);
    }
}
