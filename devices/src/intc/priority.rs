//! How urgent a line is.

use std::fmt;

/// How urgent a line is: 0 is the most urgent, as in Arm's GIC, and 31 the least.
///
/// There are 32, as in a GICv3 (Arm IHI 0069, "Interrupt prioritization"), where an implementation has 16 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinePriority(u8);

impl LinePriority {
    /// How many priorities there are.
    pub const COUNT: usize = 32;
    /// Before all others.
    pub const HIGHEST: Self = Self(0);
    /// After all others. A line has it until it is given another.
    pub const LOWEST: Self = Self(Self::COUNT as u8 - 1);

    /// Priority `number`, unless that is more than 31.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number, 0 to 31.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl Default for LinePriority {
    fn default() -> Self {
        Self::LOWEST
    }
}

impl fmt::Display for LinePriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
