//! What an available buffer notification says.

/// An available buffer notification with `VIRTIO_F_NOTIFICATION_DATA` (virtio 1.4, section 2.9): which queue, and how
/// far its driver has come.
///
/// To the device it is a hint. The driver may write anything, notifications overtake one another, and the ring may
/// have gone on since: what is there, only a look at the ring tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotificationData {
    /// The queue's index; with `VIRTIO_F_NOTIF_CONFIG_DATA`, what the device supplied in its place.
    pub queue: u16,
    /// Where the driver makes the next entry available, as [`Positions`](crate::Positions) counts: in a split ring the
    /// available index, in a packed one an offset and a wrap counter.
    pub available: u16,
}

impl NotificationData {
    /// The word that the driver writes: the queue in bits 0 to 15, `next_off` and `next_wrap` above.
    pub const fn to_word(self) -> u32 {
        self.queue as u32 | (self.available as u32) << 16
    }

    /// The word that a device was written, which may be any.
    pub const fn from_word(word: u32) -> Self {
        Self {
            queue: word as u16,
            available: (word >> 16) as u16,
        }
    }
}
