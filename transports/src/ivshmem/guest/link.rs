//! A running session.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use shmbus_shm::Mapped;
use shmbus_signal::os::{Waiter, Wake};

use super::super::layout::{
    Answer, AnswerState, Attachment, GuestWords, HANDSHAKE_VECTOR, LayoutError, Request,
    RequestState,
};
use super::device::Device;
use crate::local::{GoodbyeReason, Refusal};

/// How often a link without interrupts looks whether its session is over.
pub const NEWS_PERIOD: Duration = Duration::from_millis(100);

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkClosed {
    /// The host said so.
    #[error("the host left: {0}")]
    Goodbye(GoodbyeReason),
    /// The host takes this guest no further.
    #[error("the host refused: {0}")]
    Refused(Refusal),
    /// Another program attached through the same function.
    #[error("the host serves attachment {by} in this guest's area, instead of {own}")]
    Superseded {
        /// This session's.
        own: Attachment,
        /// The one that is served.
        by: Attachment,
    },
    /// The host's answer is one that cannot follow READY.
    #[error("the host answered {found:?} in a session that runs")]
    OutOfPlace {
        /// The answer.
        found: AnswerState,
    },
    /// The host's word is none.
    #[error(transparent)]
    Word(LayoutError),
}

/// A running session, as the guest holds it. Dropping it says goodbye; only of a program that is killed does the host learn nothing
/// until another attaches.
#[derive(Debug)]
pub struct GuestLink {
    /// What rings the host, by priority class: they can be taken out.
    pub wakers: Vec<Box<dyn Wake>>,
    /// What the host rings, by priority class; none where the function has no interrupts, and the host's trees are to be
    /// polled. They can be taken out.
    pub waiters: Vec<Waiter>,
    news: News,
    words: GuestWords<Mapped>,
    attachment: Attachment,
    handshake: Box<dyn Wake>,
    reason: GoodbyeReason,
    over: bool,
    _function: Box<dyn Any + Send>,
}

/// What tells that the host's answer may have changed.
#[derive(Debug)]
enum News {
    /// The host rings after each answer.
    Rung(Waiter),
    /// A timer, from time to time.
    Timer(OwnedFd),
}

impl GuestLink {
    pub(super) fn new(
        device: Device,
        words: GuestWords<Mapped>,
        attachment: Attachment,
    ) -> io::Result<Self> {
        let news = match device.waiters.get(usize::from(HANDSHAKE_VECTOR)) {
            Some(waiter) => News::Rung(waiter.beside()?),
            None => News::Timer(periodic(NEWS_PERIOD)?),
        };
        Ok(Self {
            wakers: device.wakers,
            waiters: device.waiters,
            news,
            words,
            attachment,
            handshake: device.handshake,
            reason: GoodbyeReason::Finished,
            over: false,
            _function: device.function,
        })
    }

    /// Whether the session is over, and why, without waiting: wait until [`AsFd`] is readable, then call it. It says so once.
    pub fn next_event(&mut self) -> Option<LinkClosed> {
        if self.over {
            return None;
        }
        // Silenced first: what is answered after this look makes it readable again.
        match &self.news {
            // What cannot be silenced is looked at again, which is as good.
            News::Rung(waiter) => drop(waiter.drain()),
            News::Timer(timer) => match read(timer, &mut [0_u8; 8]) {
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(error) => tracing::warn!(%error, "a timer cannot be read"),
            },
        }
        let closed = self.look().err()?;
        self.over = true;
        Some(closed)
    }

    fn look(&self) -> Result<(), LinkClosed> {
        let Answer { attachment, state } = self.words.answer().map_err(LinkClosed::Word)?;
        if attachment != self.attachment {
            return Err(LinkClosed::Superseded {
                own: self.attachment,
                by: attachment,
            });
        }
        match state {
            AnswerState::Ready => Ok(()),
            AnswerState::Closed => Err(LinkClosed::Goodbye(self.words.goodbye())),
            AnswerState::Refused => {
                let refusal = self.words.refusal().map_err(LinkClosed::Word)?;
                Err(LinkClosed::Refused(refusal))
            }
            found => Err(LinkClosed::OutOfPlace { found }),
        }
    }

    /// Tells the host why the guest leaves, and leaves.
    pub fn goodbye(mut self, reason: GoodbyeReason) {
        self.reason = reason;
    }
}

impl Drop for GuestLink {
    fn drop(&mut self) {
        // The area may be another attachment's by now, whose words these are then.
        if self.look().is_ok() {
            self.words.say_goodbye(self.reason);
            self.words.request(Request {
                attachment: self.attachment,
                state: RequestState::Goodbye,
            });
            // A host that does not hear of it learns it from the next guest.
            let _ = self.handshake.wake();
        }
    }
}

impl AsFd for GuestLink {
    /// Readable when [`next_event`](Self::next_event) has something to look at.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.news {
            News::Rung(waiter) => waiter.as_fd(),
            News::Timer(timer) => timer.as_fd(),
        }
    }
}

/// A timer that becomes readable once in each period.
fn periodic(period: Duration) -> io::Result<OwnedFd> {
    let timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )?;
    let period = Timespec {
        tv_sec: 0,
        tv_nsec: period.subsec_nanos().into(),
    };
    let times = Itimerspec {
        it_interval: period,
        it_value: period,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
    Ok(timer)
}
