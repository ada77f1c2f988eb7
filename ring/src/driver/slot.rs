//! The driver's private record of what it lent.

/// The driver side's private record for one descriptor: storage that the caller passes in, one for each entry of the
/// queue. Only this side ever sees it, and it lies on lines that the device does not touch.
#[derive(Clone, Copy, Debug)]
pub struct DriverSlot<T> {
    /// The cookie of the chain whose id this slot's index is, while the device has the chain.
    pub(crate) cookie: Option<T>,
    /// The chain's number, counted over all chains since the queue was set up.
    pub(crate) number: u64,
    /// How many bytes of that chain the device may write.
    pub(crate) writable: u32,
    /// How many descriptors that chain takes up.
    pub(crate) descriptors: u16,
    /// The last descriptor of that chain.
    pub(crate) last: u16,
    /// The descriptor that follows: in the chain, or in the list of free ones.
    pub(crate) next: u16,
    /// What this slot's entry of the available ring says.
    pub(crate) available: u16,
}

impl<T> DriverSlot<T> {
    /// An unused slot.
    pub const fn new() -> Self {
        Self {
            cookie: None,
            number: 0,
            writable: 0,
            descriptors: 0,
            last: 0,
            next: 0,
            available: 0,
        }
    }
}

impl<T> Default for DriverSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}
