//! How far a side of a queue has come.

/// One side's progress. Indices run freely and wrap at 65536.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Driver: the available index that it last published. Device: the available entry that it takes next.
    pub available: u16,
    /// Driver: the used entry that it takes next. Device: the used index that it last published.
    pub used: u16,
    /// Driver: chains that were added and not taken back. Device: chains that were taken and not completed.
    pub in_flight: u16,
}
