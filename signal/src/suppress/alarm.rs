//! An armed word, as the two sides hold it.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use shmbus_shm::{Field, Window};

use super::SignalError;

/// Whether a receiver may sleep.
#[must_use = "a receiver that was raised while it armed must not sleep"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The sender will kick: sleep.
    Armed,
    /// It was raised meanwhile: poll instead.
    Moved,
}

/// "Wake me at generation G", for whatever has a generation that rises: a doorbell's channels taken together
/// ([`Receiver`](super::Receiver) has one of these), a slot of a table, a counter. `A` is the window on the section of who is
/// to be woken, who alone writes it.
///
/// The other side publishes, and asks its [`Subscribers`](super::Subscribers) who is to be woken.
#[derive(Debug)]
pub struct Alarm<A> {
    armed: Field<u64, A>,
}

impl<A: Window> Alarm<A> {
    /// Writes the word at the start of `armed`, which is [`ARMED_BYTES`](super::DoorbellLayout::ARMED_BYTES) of a line of
    /// its own. It begins disarmed.
    ///
    /// # Errors
    ///
    /// [`SignalError::Armed`].
    pub fn new(armed: &A) -> Result<Self, SignalError> {
        let alarm = Self {
            armed: Field::new(armed, 0)?,
        };
        alarm.disarm();
        Ok(alarm)
    }

    /// Asks to be woken once the generation is `generation` or more. `current` loads it, at any ordering, and is called
    /// once, when it can no longer be missed: if the generation was reached by then, the alarm is off again.
    pub fn arm_at(&self, generation: u64, current: impl FnOnce() -> u64) -> Arm {
        self.arm_unless(generation, || current() >= generation)
    }

    /// Arms, looks whether there is no need to, and disarms then.
    #[inline]
    pub(super) fn arm_unless(&self, generation: u64, is_over: impl FnOnce() -> bool) -> Arm {
        self.armed.store(generation, Relaxed);
        // Against the fence of who publishes: either it finds the armed word, or we find what it published.
        self.armed.fence(SeqCst);
        if is_over() {
            self.disarm();
            return Arm::Moved;
        }
        Arm::Armed
    }

    /// Asks not to be woken. A kick that was decided before may still come.
    pub fn disarm(&self) {
        self.armed.store(0, Relaxed);
    }
}

/// The other side of an [`Alarm`].
#[derive(Debug)]
pub(super) struct Answers<A> {
    armed: Field<u64, A>,
    /// The armed word that was last answered with a kick. Private: the receiver cannot make us answer it twice.
    answered: u64,
}

impl<A: Window> Answers<A> {
    pub(super) fn new(armed: &A) -> Result<Self, SignalError> {
        Ok(Self {
            armed: Field::new(armed, 0)?,
            answered: 0,
        })
    }

    /// Orders what was published before what is armed. Needed once before [`Answers::is_due`], for all of them.
    #[inline]
    pub(super) fn fence(&self) {
        // Against the fence in `Alarm::arm_unless`: either it finds what was published, or we find what it armed.
        self.armed.fence(SeqCst);
    }

    /// Whether `generation`, which was published, calls for a kick; it is answered by that.
    #[inline]
    pub(super) fn is_due(&mut self, generation: u64) -> bool {
        let armed = self.armed.load(Relaxed);
        if armed == 0 || armed == self.answered || generation < armed {
            return false;
        }
        self.answered = armed;
        true
    }
}
