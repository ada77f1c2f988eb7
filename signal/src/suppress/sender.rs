//! The side that raises channels.

use shmbus_shm::{Notify, TreeWriter, Window};

use super::alarm::Answers;
use super::{DoorbellLayout, SignalError};

/// The sending side of a doorbell: `T` is the window on its own section, `A` on the receiver's.
#[derive(Debug)]
pub struct Sender<T, A> {
    tree: TreeWriter<T>,
    answers: Answers<A>,
    counts: SenderCounts,
}

/// What a sender has decided so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounts {
    /// Raised channels that called for a signal.
    pub sent: u64,
    /// Raised channels that called for none: the receiver was awake, or had been signalled already.
    pub suppressed: u64,
}

impl<T: Window, A: Window> Sender<T, A> {
    /// Formats the start of `tree`, in this side's section; reads the word at the start of `armed`, in the peer's.
    ///
    /// # Errors
    ///
    /// [`SignalError::Tree`], [`SignalError::Armed`].
    pub fn new(tree: &T, armed: &A, layout: DoorbellLayout) -> Result<Self, SignalError> {
        Ok(Self {
            tree: TreeWriter::create(tree, layout.tree())?,
            answers: Answers::new(armed)?,
            counts: SenderCounts::default(),
        })
    }

    /// Goes on where a former sender on this memory stopped. Nobody knows whether its last kick was sent: the caller
    /// sends one.
    ///
    /// # Errors
    ///
    /// [`SignalError::Tree`], also if the memory holds no tree; [`SignalError::Armed`].
    pub fn resume(
        tree: &T,
        armed: &A,
        layout: DoorbellLayout,
    ) -> Result<(Self, Notify), SignalError> {
        let mut sender = Self {
            tree: TreeWriter::resume(tree, layout.tree())?,
            answers: Answers::new(armed)?,
            counts: SenderCounts::default(),
        };
        // The kick that follows answers what is armed by now, if it is due: a stamp yet to come is answered when it does.
        sender.answers.fence();
        let _ = sender.answers.is_due(sender.tree.stamp());
        Ok((sender, Notify::Yes))
    }

    /// Looks at the armed word in the new memory of a receiver that restarted. A new receiver begins awake.
    ///
    /// # Errors
    ///
    /// [`SignalError::Armed`]; the sender then stays with the old memory.
    pub fn rebind(&mut self, armed: &A) -> Result<(), SignalError> {
        self.answers = Answers::new(armed)?;
        Ok(())
    }

    /// The doorbell's number of channels.
    pub fn channels(&self) -> u32 {
        self.tree.layout().leaves()
    }

    /// Raises channel `channel`: what was written before is announced on it. Returns whether the doorbell must be rung.
    ///
    /// # Errors
    ///
    /// [`SignalError::NoSuchChannel`]; nothing was raised.
    #[inline]
    pub fn raise(&mut self, channel: u32) -> Result<Notify, SignalError> {
        let channels = self.channels();
        if channel >= channels {
            return Err(SignalError::NoSuchChannel { channel, channels });
        }
        let stamp = self.tree.mark(channel, self.tree.stamp() + 1);
        self.answers.fence();
        if !self.answers.is_due(stamp) {
            self.counts.suppressed += 1;
            return Ok(Notify::No);
        }
        self.counts.sent += 1;
        Ok(Notify::Yes)
    }

    /// How many signals were called for and how many suppressed.
    pub fn counts(&self) -> SenderCounts {
        self.counts
    }
}
