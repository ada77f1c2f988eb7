//! How the formats differ, to those who use them.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Entries are told apart modulo this: events come round.
    pub(crate) lap: u64,
    /// A poll knows how many chains there are, and not only whether there is one; a batch ends there.
    pub(crate) counts: bool,
    /// With `EVENT_IDX` too, notifications can be switched off.
    pub(crate) disables: bool,
    /// Available positions are those of descriptors, so that a chain may take up several.
    pub(crate) by_descriptor: bool,
    /// Before any wish everything is told, with `EVENT_IDX` too.
    pub(crate) starts_enabled: bool,
    /// Chains come back in the order in which they were made available, whatever the order they are completed in.
    pub(crate) in_order: bool,
}

impl Rules {
    pub(crate) const SPLIT: Self = Self {
        lap: 65536,
        counts: true,
        disables: false,
        by_descriptor: false,
        starts_enabled: false,
        in_order: false,
    };

    pub(crate) fn packed(size: u16) -> Self {
        Self {
            lap: 2 * u64::from(size),
            counts: false,
            disables: true,
            by_descriptor: true,
            starts_enabled: true,
            in_order: false,
        }
    }

    /// As in a packed ring, but positions run freely.
    pub(crate) const TAGGED: Self = Self {
        lap: 65536,
        counts: false,
        disables: true,
        by_descriptor: true,
        starts_enabled: true,
        in_order: false,
    };

    pub(crate) fn in_order(self) -> Self {
        Self {
            in_order: true,
            ..self
        }
    }

    /// How many positions a chain of so many descriptors takes up.
    pub(crate) fn entries(self, descriptors: u16) -> u64 {
        if self.by_descriptor {
            u64::from(descriptors)
        } else {
            1
        }
    }
}
