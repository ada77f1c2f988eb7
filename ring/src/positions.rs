//! How far a side of a queue has come.

/// One side's progress, or what an observer sees of both.
///
/// A position in a split ring is an index that runs freely and wraps at 65536. In a packed ring it is what available
/// buffer notifications carry (virtio 1.4, section 2.9): an offset in descriptors in bits 0 to 14, and the wrap
/// counter, which starts as 1, in bit 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Driver: up to where it last published available chains. Device: where it takes the next one.
    /// Observer: the available index.
    pub available: u16,
    /// Driver: where it takes the next used chain. Device: up to where it last published used chains.
    /// Observer: the used index.
    pub used: u16,
    /// Driver: chains that were added and not taken back. Device: chains that were taken and not completed.
    /// Observer: chains that are available and not yet used.
    pub in_flight: u16,
}
