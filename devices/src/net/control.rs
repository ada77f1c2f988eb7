//! The control queue: commands that a driver gives its device (virtio 1.4, section 5.1.6.5).

use core::fmt;

use shmbus_ring::any::{Areas, DriverRing};
use shmbus_ring::{Buffer, DriverFault, DriverQueue, DriverSlot, RingFeatures, SetupError};
use shmbus_shm::{Bytes, Notify, Window, WindowError};

/// Entries of the queue: a command takes two.
pub const CONTROL_ENTRIES: u16 = 8;

/// Bytes of the queue's one buffer: a line for the command, and one for the answer.
pub const CONTROL_BUFFER_BYTES: usize = 2 * ANSWER_OFFSET;

const ANSWER_OFFSET: usize = 64;

/// `VIRTIO_NET_OK`.
const OK: u8 = 0;
/// `VIRTIO_NET_ERR`.
const ERROR: u8 = 1;
/// What no device answers: found where none has.
const NO_ANSWER: u8 = 0xff;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`: use so many queue pairs, from the first on.
    UsePairs(u16),
}

impl Command {
    const BYTES: usize = 4;

    /// `class`, `command`, and the command's data.
    fn encode(self) -> [u8; Self::BYTES] {
        match self {
            Self::UsePairs(pairs) => {
                let [low, high] = pairs.to_le_bytes();
                [4, 0, low, high]
            }
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UsePairs(pairs) => write!(f, "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET({pairs})"),
        }
    }
}

/// A command was not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The queue is not what it must be.
    #[error("the control queue: {0}")]
    Queue(#[from] DriverFault),
    /// There is no command that could be answered, or another one is not answered yet.
    #[error("one command at a time was expected")]
    OutOfTurn,
    /// The device says that it cannot.
    #[error("the device refuses {0}")]
    Refused(Command),
    /// The device's answer is none.
    #[error("the device answers {found:#x} to {command}, 0 or 1 were expected")]
    Answer {
        /// The command.
        command: Command,
        /// What it wrote.
        found: u8,
    },
}

/// The control queue cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlSetupError {
    /// Its ring.
    #[error("the control queue: {0}")]
    Ring(#[from] SetupError),
    /// Its buffer.
    #[error("the control queue's buffer: {0}")]
    Buffer(#[from] WindowError),
}

/// The driver's side of the control queue: one command at a time. It neither waits nor signals: whoever owns it tells
/// the device, and bounds how long an answer may take.
pub struct ControlQueue<W> {
    queue: DriverQueue<DriverRing<W>, (), Vec<DriverSlot<()>>>,
    buffer: W,
    /// Where the device finds the buffer.
    address: u64,
    asked: Option<Command>,
}

impl<W: Window> ControlQueue<W> {
    /// Sets up the queue. `buffer` is memory for [`CONTROL_BUFFER_BYTES`], which the device finds at `address`.
    ///
    /// # Errors
    ///
    /// [`ControlSetupError`].
    pub fn new(
        areas: Areas<W>,
        features: impl Into<RingFeatures>,
        buffer: &W,
        address: u64,
    ) -> Result<Self, ControlSetupError> {
        let entries = usize::from(areas.size());
        let slots = core::iter::repeat_with(DriverSlot::new).take(entries);
        let ring = DriverRing::new(areas, features)?;
        Ok(Self {
            queue: DriverQueue::new(ring, slots.collect())?,
            buffer: buffer.narrow(0, CONTROL_BUFFER_BYTES)?,
            address,
            asked: None,
        })
    }

    /// Gives a command, and says whether the device must be told.
    ///
    /// # Errors
    ///
    /// [`ControlError::OutOfTurn`], [`ControlError::Queue`].
    pub fn ask(&mut self, command: Command) -> Result<Notify, ControlError> {
        if self.asked.is_some() {
            return Err(ControlError::OutOfTurn);
        }
        if let Some(fault) = self.queue.fault() {
            return Err(fault.into());
        }
        let readable = [Buffer::new(self.address, Command::BYTES as u32)];
        let answer = self.address.wrapping_add(ANSWER_OFFSET as u64);
        let writable = [Buffer::new(answer, 1)];
        if let Some(bytes) = self.bytes() {
            bytes.copy_from(0, &command.encode());
            bytes.copy_from(ANSWER_OFFSET, &[NO_ANSWER]);
        }
        // Nothing else is lent, and there is room for more than one command.
        if self.queue.add(&readable, &writable, ()).is_err() {
            return Err(ControlError::OutOfTurn);
        }
        self.asked = Some(command);
        // Nothing is lent yet, so nothing can have come before the wish.
        let _ = self.queue.enable_notifications();
        Ok(self.queue.publish())
    }

    /// Whether the device has obeyed; false if it has not answered yet.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub fn is_obeyed(&mut self) -> Result<bool, ControlError> {
        let Some(command) = self.asked else {
            return Err(ControlError::OutOfTurn);
        };
        if self.queue.poll()? == 0 {
            return Ok(false);
        }
        let Some(used) = self.queue.take()? else {
            return Ok(false);
        };
        self.asked = None;
        let mut answer = [NO_ANSWER];
        if let Some(bytes) = self.bytes().filter(|_| used.written > 0) {
            bytes.copy_to(ANSWER_OFFSET, &mut answer);
        }
        match answer {
            [OK] => Ok(true),
            [ERROR] => Err(ControlError::Refused(command)),
            [found] => Err(ControlError::Answer { command, found }),
        }
    }

    fn bytes(&self) -> Option<Bytes<'_, W>> {
        // `new` proved room for them.
        Bytes::new(&self.buffer, 0, CONTROL_BUFFER_BYTES).ok()
    }
}

impl<W> fmt::Debug for ControlQueue<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlQueue")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
