//! How far a side of a queue has come.

/// One side's progress, or what an observer sees of both. Indices run freely and wrap at 65536.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Driver: the available index that it last published. Device: the available entry that it takes next.
    /// Observer: the available index.
    pub available: u16,
    /// Driver: the used entry that it takes next. Device: the used index that it last published.
    /// Observer: the used index.
    pub used: u16,
    /// Driver: chains that were added and not taken back. Device: chains that were taken and not completed.
    /// Observer: chains that are available and not yet used.
    pub in_flight: u16,
}
