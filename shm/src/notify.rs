//! The decision whether the other side must be told.

/// Whether an operation on shared memory calls for a signal. Rings and tables decide; whoever owns the channel sends.
#[must_use = "a notification that is decided but not sent is a lost wake-up"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// The other side is looking anyway, or asked not to be told.
    No,
    /// The other side may be asleep: send the signal.
    Yes,
}

impl Notify {
    /// Whether a signal is called for.
    pub fn is_needed(self) -> bool {
        self == Notify::Yes
    }

    /// The decision for two operations that are signalled together.
    pub fn or(self, other: Notify) -> Notify {
        if self.is_needed() { self } else { other }
    }
}
