//! What a switch and a network stack are built on: something that frames come out of and go into.

use shmbus_shm::Notify;

/// Bytes of an Ethernet header: destination, source, type.
pub const ETHERNET_HEADER_BYTES: usize = 14;

/// What is known of a frame's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The frame is as it would be on a wire; its checksum has not been looked at.
    InFrame,
    /// Somebody on this bus made or checked it: it need not be checked again.
    Verified,
    /// The checksum's place holds the sum of the pseudo-header only. Whoever puts the frame on a wire sums from byte
    /// `start` to the end and stores the result `offset` bytes behind `start`. Both lie inside the frame,
    /// behind the Ethernet header.
    Partial {
        /// Where the summed bytes begin, in bytes from the frame's start.
        start: u16,
        /// Where the checksum lies, in bytes from `start`.
        offset: u16,
    },
}

/// The outcome of [`Port::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame lies in the buffer.
    Frame {
        /// Its bytes, at least [`ETHERNET_HEADER_BYTES`] and at most the buffer's.
        bytes: usize,
        /// What is known of its checksum.
        checksum: Checksum,
    },
    /// A frame came that is no Ethernet frame or does not fit into the buffer; it is gone.
    Discarded,
    /// There is nothing now.
    Empty,
}

/// The outcome of [`Port::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The port has the frame.
    Taken,
    /// There is no room now; the frame was not taken.
    Full,
    /// The port can never take this frame: it is too long.
    TooLong,
}

/// Which queues' other sides must be told, after [`Port::flush`].
#[must_use = "a notification that is decided but not sent is a lost wake-up"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notifications {
    /// The queue that carries frames to the guest (virtio's receiveq1).
    pub receiveq: Notify,
    /// The queue that carries frames from the guest (virtio's transmitq1).
    pub transmitq: Notify,
}

impl Notifications {
    /// Nobody need be told.
    pub const NONE: Self = Self {
        receiveq: Notify::No,
        transmitq: Notify::No,
    };

    /// The decisions of two operations that are signalled together.
    pub fn or(self, other: Self) -> Self {
        Self {
            receiveq: self.receiveq.or(other.receiveq),
            transmitq: self.transmitq.or(other.transmitq),
        }
    }

    /// Whether anybody must be told.
    pub fn any(self) -> bool {
        self.receiveq.or(self.transmitq).is_needed()
    }
}

/// Frames come out of a port and go into it. Nothing blocks.
pub trait Port {
    /// Moves the next frame into `frame`.
    ///
    /// # Errors
    ///
    /// [`PortError`], which is latched: the port gives and takes no frame until it is reset or replaced.
    fn receive(&mut self, frame: &mut [u8]) -> Result<Received, PortError>;

    /// Hands over one frame. `checksum` is partial only if [`Port::takes_partial_checksums`].
    ///
    /// # Errors
    ///
    /// As for [`Port::receive`].
    fn send(&mut self, frame: &[u8], checksum: Checksum) -> Result<Sent, PortError>;

    /// Whether there is room for a frame now.
    fn can_send(&mut self) -> bool {
        true
    }

    /// Whether frames may be sent whose checksum is partial.
    fn takes_partial_checksums(&self) -> bool {
        false
    }

    /// Publishes what was received and sent since the last call, and says who must be told.
    fn flush(&mut self) -> Notifications {
        Notifications::NONE
    }
}

impl<P: Port + ?Sized> Port for Box<P> {
    fn receive(&mut self, frame: &mut [u8]) -> Result<Received, PortError> {
        (**self).receive(frame)
    }

    fn send(&mut self, frame: &[u8], checksum: Checksum) -> Result<Sent, PortError> {
        (**self).send(frame, checksum)
    }

    fn can_send(&mut self) -> bool {
        (**self).can_send()
    }

    fn takes_partial_checksums(&self) -> bool {
        (**self).takes_partial_checksums()
    }

    fn flush(&mut self) -> Notifications {
        (**self).flush()
    }
}

/// Why a port stopped.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The TAP interface failed.
    #[error("the TAP interface {name} failed: {source}")]
    Tap {
        /// The interface.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The capture file is bad.
    #[error(transparent)]
    Capture(#[from] super::pcap::CaptureError),
    /// A guest broke the rules: what the host sees.
    #[error("the guest's driver broke the rules: {0}")]
    Guest(super::host::GuestError),
    /// The device broke the rules: what a guest sees.
    #[error("the device broke the rules: {0}")]
    Device(super::driver::DeviceError),
}
