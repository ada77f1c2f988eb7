//! The vectors of a card: what each signals, and waiting for them by priority.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use shmbus_signal::Priority;
use shmbus_signal::os::{Interest, SetError, SignalSet, Token, Waiter};

/// What a vector signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    Configuration,
    Receive,
    Transmit,
    Control,
    /// All queues.
    Queues,
    /// The configuration and all queues.
    Anything,
}

impl Cause {
    /// That the card has changed is told first; a command is waited for when there is nothing else to do.
    fn priority(self) -> Priority {
        let class = match self {
            Self::Configuration | Self::Anything => 0,
            Self::Receive | Self::Queues => 1,
            Self::Transmit => 2,
            Self::Control => 3,
        };
        Priority::new(class).unwrap_or(Priority::LOWEST)
    }
}

/// Which vector is for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What each vector signals.
    pub(super) causes: Vec<Cause>,
    /// The vector of each queue: the pairs' in their order, then the control queue's.
    pub(super) queues: Vec<u16>,
}

impl Plan {
    /// Shares out `available` vectors: one for the configuration and one for each queue if there are so many, otherwise one
    /// for all queues, or one for everything. None if there are none.
    pub(super) fn new(available: u16, pairs: u16, has_control: bool) -> Option<Self> {
        let queues = 2 * u32::from(pairs) + u32::from(has_control);
        let share = |vector: u16| (0..queues).map(|_| vector).collect();
        match available {
            0 => None,
            1 => Some(Self {
                causes: vec![Cause::Anything],
                queues: share(0),
            }),
            _ if u32::from(available) <= queues => Some(Self {
                causes: vec![Cause::Configuration, Cause::Queues],
                queues: share(1),
            }),
            _ => {
                let pair = [Cause::Receive, Cause::Transmit];
                let mut causes = vec![Cause::Configuration];
                causes.extend((0..pairs).flat_map(|_| pair));
                causes.extend(has_control.then_some(Cause::Control));
                Some(Self {
                    queues: (1..=queues as u16).collect(),
                    causes,
                })
            }
        }
    }
}

/// How often the card has signalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// Its configuration changed.
    pub configuration: u64,
    /// Frames have come.
    pub receive: u64,
    /// Frames have gone.
    pub transmit: u64,
    /// A command was answered.
    pub control: u64,
    /// By a vector that several of these share.
    pub shared: u64,
}

struct Vector {
    cause: Cause,
    waiter: Arc<Waiter>,
}

/// The vectors' eventfds, in one set with what else is waited for. What a vector signalled several times is one event.
pub(super) struct Vectors {
    set: SignalSet,
    vectors: HashMap<Token, Vector>,
    pub(super) interrupts: Interrupts,
}

impl Vectors {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            set: SignalSet::new()?,
            vectors: HashMap::new(),
            interrupts: Interrupts::default(),
        })
    }

    /// Makes an eventfd for each cause, and has `enable` connect them to the card's vectors, in order.
    pub(super) fn connect<E: From<io::Error> + From<SetError>>(
        &mut self,
        causes: &[Cause],
        enable: impl FnOnce(&[BorrowedFd<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let waiters = causes
            .iter()
            .map(|_| Waiter::new().map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let eventfds: Vec<_> = waiters.iter().map(|waiter| waiter.as_fd()).collect();
        enable(&eventfds)?;
        for (cause, waiter) in causes.iter().copied().zip(waiters) {
            let token =
                self.set
                    .add_fd(Arc::clone(&waiter), Interest::READABLE, cause.priority())?;
            self.vectors.insert(token, Vector { cause, waiter });
        }
        Ok(())
    }

    pub(super) fn add_fd(&mut self, fd: impl AsFd, priority: Priority) -> Result<Token, SetError> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        self.set.add_fd(fd, Interest::READABLE, priority)
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.set.wait(timeout)?;
        Ok(())
    }

    /// The next thing that happened: a vector's cause, or the token of what was added besides.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Cause, Token>>> {
        let Some(event) = self.set.next_event() else {
            return Ok(None);
        };
        let Some(Vector { cause, waiter }) = self.vectors.get(&event.token()) else {
            return Ok(Some(Err(event.token())));
        };
        waiter.drain()?;
        let interrupts = &mut self.interrupts;
        *match cause {
            Cause::Configuration => &mut interrupts.configuration,
            Cause::Receive => &mut interrupts.receive,
            Cause::Transmit => &mut interrupts.transmit,
            Cause::Control => &mut interrupts.control,
            Cause::Queues | Cause::Anything => &mut interrupts.shared,
        } += 1;
        Ok(Some(Ok(*cause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_a_vector_of_its_own_if_there_are_enough() {
        use Cause::{Anything, Configuration, Control, Queues, Receive, Transmit};
        assert_eq!(Plan::new(0, 1, false), None);
        let plan = |available| Plan::new(available, 2, true).unwrap();
        assert_eq!(plan(1).causes, [Anything]);
        assert_eq!(plan(1).queues, [0; 5]);
        for few in 2..6 {
            assert_eq!(plan(few).causes, [Configuration, Queues]);
            assert_eq!(plan(few).queues, [1; 5]);
        }
        let own = [Configuration, Receive, Transmit, Receive, Transmit, Control];
        for enough in [6, 7, 2048] {
            assert_eq!(plan(enough).causes, own);
            assert_eq!(plan(enough).queues, [1, 2, 3, 4, 5]);
        }
        let one = Plan::new(3, 1, false).unwrap();
        assert_eq!(one.causes, [Configuration, Receive, Transmit]);
    }

    #[test]
    fn what_is_urgent_comes_first_and_many_signals_are_one() {
        let mut vectors = Vectors::new().unwrap();
        let causes = Plan::new(8, 1, true).unwrap().causes;
        let mut notifiers = Vec::new();
        vectors
            .connect(&causes, |eventfds| -> Result<(), SetError> {
                for eventfd in eventfds {
                    let eventfd = eventfd.try_clone_to_owned()?;
                    notifiers.push(shmbus_signal::os::Notifier::try_from(eventfd).unwrap());
                }
                Ok(())
            })
            .unwrap();
        for _ in 0..3 {
            for notifier in notifiers.iter().rev() {
                notifier.notify().unwrap();
            }
        }
        vectors.wait(Some(Duration::from_secs(10))).unwrap();
        let mut came = Vec::new();
        while let Some(Ok(cause)) = vectors.next().unwrap() {
            came.push(cause);
        }
        assert_eq!(came, causes);
        vectors.wait(Some(Duration::ZERO)).unwrap();
        assert!(vectors.next().unwrap().is_none());
        let once = Interrupts {
            configuration: 1,
            receive: 1,
            transmit: 1,
            control: 1,
            shared: 0,
        };
        assert_eq!(vectors.interrupts, once);
    }
}
