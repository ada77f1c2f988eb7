//! What a table has besides slots: bits of a word in its header.

use core::fmt;

/// What a table has besides its slots, or does otherwise. Who does not know a flag cannot read the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableFlags(u32);

impl TableFlags {
    /// A table of slots that are each written and read by themselves.
    pub const NONE: Self = Self(0);

    /// Each copy carries the number of the transaction that wrote it, and a word of the table names the last committed
    /// one.
    pub const TRANSACTIONS: Self = Self(1 << 0);

    /// For each slot there is a word that says at which of its writer's heartbeats it was last published.
    pub const AGES: Self = Self(1 << 1);

    /// Slots of 16 bytes that are loaded and stored at once, without copies.
    pub const PAIRS: Self = Self(1 << 2);

    /// Subscribed readers can pin values where they lie; each copy is there twice for that.
    pub const PINNED: Self = Self(1 << 3);

    const NAMES: [(Self, &'static str); 4] = [
        (Self::TRANSACTIONS, "TRANSACTIONS"),
        (Self::AGES, "AGES"),
        (Self::PAIRS, "PAIRS"),
        (Self::PINNED, "PINNED"),
    ];

    const KNOWN: u32 = Self::TRANSACTIONS.0 | Self::AGES.0 | Self::PAIRS.0 | Self::PINNED.0;

    /// The flags that the bits of a header's word stand for; `None` if some stand for nothing.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !Self::KNOWN != 0 {
            return None;
        }
        Some(Self(bits))
    }

    /// The header's word.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// These flags and `others`.
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These flags but `others`.
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether all of `others` are among these.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

impl fmt::Display for TableFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::NAMES
            .iter()
            .filter(|(flag, _)| self.contains(*flag))
            .map(|(_, name)| name);
        let Some(first) = names.next() else {
            return f.write_str("none");
        };
        f.write_str(first)?;
        names.try_for_each(|name| write!(f, " and {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_bit_has_a_name_and_no_other_bit_is_accepted() {
        let both = TableFlags::TRANSACTIONS.with(TableFlags::AGES);
        assert_eq!(both.to_string(), "TRANSACTIONS and AGES");
        assert_eq!(both.without(TableFlags::AGES).to_string(), "TRANSACTIONS");
        assert_eq!(TableFlags::NONE.to_string(), "none");
        let named = TableFlags::NAMES
            .iter()
            .fold(0, |bits, (flag, _)| bits | flag.bits());
        for bit in (0..32).map(|bit| 1 << bit) {
            let known = TableFlags::from_bits(bit).map(TableFlags::bits);
            assert_eq!(known, (named & bit != 0).then_some(bit));
        }
    }
}
