//! The side that wants to know which channels were raised.

use core::ops::ControlFlow;

use shmbus_shm::{Scan, TreeReader, Window};

use super::{Alarm, Arm, DoorbellLayout, SignalError};

/// The receiving side of a doorbell: `T` is the window on the sender's section, `A` on its own, `S` storage of a word
/// for each channel (a `Vec<u64>` or a `&mut [u64]`).
#[derive(Debug)]
pub struct Receiver<T, A, S> {
    tree: TreeReader<T, S>,
    alarm: Alarm<A>,
}

impl<T: Window, A: Window, S: AsMut<[u64]>> Receiver<T, A, S> {
    /// Reads the tree at the start of `tree`, in the sender's section; writes the word at the start of `armed`, in its
    /// own. It begins disarmed; the first poll reports every channel that was ever raised.
    ///
    /// # Errors
    ///
    /// [`SignalError::Tree`], also if `seen` has fewer words than there are channels; [`SignalError::Armed`].
    pub fn new(tree: &T, armed: &A, layout: DoorbellLayout, seen: S) -> Result<Self, SignalError> {
        Ok(Self {
            tree: TreeReader::new(tree, layout.tree(), seen)?,
            alarm: Alarm::new(armed)?,
        })
    }

    /// Goes over to the new memory of a sender that restarted, and is disarmed. The next poll reports every channel
    /// raised there.
    ///
    /// # Errors
    ///
    /// [`SignalError::Tree`]; the receiver then stays with the old memory.
    pub fn rebind(&mut self, tree: &T) -> Result<(), SignalError> {
        self.tree.rebind(tree)?;
        self.disarm();
        Ok(())
    }

    /// The doorbell's number of channels.
    pub fn channels(&self) -> u32 {
        self.tree.layout().leaves()
    }

    /// Reports every channel that was raised since it was last reported, with its generation. What the sender wrote
    /// before it raised the channel is visible then. Idle, this is one load.
    pub fn poll(&mut self, report: impl FnMut(u32, u64)) -> Scan {
        self.tree.changed(report)
    }

    /// Reports raised channels until `visit` breaks off; the next poll goes on behind the last one reported, and finishes
    /// that pass only: [`Receiver::arm`] sees what was raised behind it.
    pub fn poll_some(&mut self, visit: impl FnMut(u32, u64) -> ControlFlow<()>) -> Scan {
        self.tree.scan(visit)
    }

    /// Whether there is nothing to report. One load.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.tree.is_unchanged()
    }

    /// The stamp up to which everything was reported.
    pub fn stamp(&self) -> u64 {
        self.tree.stamp()
    }

    /// Asks to be woken by whatever is raised next. After [`Arm::Armed`] the receiver may wait for the doorbell: no
    /// wake-up is lost. A kick may come late, after the receiver has found the change by itself.
    pub fn arm(&self) -> Arm {
        self.arm_after(1)
    }

    /// Asks to be woken once so many channels more were raised than this receiver has seen, for who rather sleeps through
    /// a few. One channel raised twice counts twice.
    pub fn arm_after(&self, raises: u64) -> Arm {
        match self.stamp().checked_add(raises) {
            Some(stamp) => self.arm_at(stamp),
            // No honest sender comes so far. What stands there was reported, and must keep nobody awake for ever.
            None => self.alarm.arm_unless(u64::MAX, || !self.is_idle()),
        }
    }

    /// Asks to be woken once the sender has raised `stamp` channels in all: a channel's generation is that count when it
    /// was last raised. [`Receiver::stamp`] says how many were seen.
    pub fn arm_at(&self, stamp: u64) -> Arm {
        self.alarm.arm_unless(stamp, || {
            let root = self.tree.root();
            // A root that fell is no honest sender's, and would never reach the stamp.
            self.tree.is_paused() || root >= stamp || root < self.stamp()
        })
    }

    /// Asks not to be woken. A kick that was decided before may still come.
    pub fn disarm(&self) {
        self.alarm.disarm();
    }
}
