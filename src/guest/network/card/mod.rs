//! TCP/IP over a virtio network card that is a PCI function: without a bus, in the system's own time.

mod options;
mod set_up;
mod vectors;

use std::os::fd::AsFd;
use std::time::Duration;

use shmbus_devices::clock::monotonic_ns;
use shmbus_devices::net::config::NetConfig;
use shmbus_devices::net::pairs::{PairCounters, QueuePairs};
use shmbus_devices::net::port::Notifications;
use shmbus_devices::net::stack::StackCounters;
use shmbus_ring::RingKind;
use shmbus_ring::any::DriverRing;
use shmbus_shm::Mapped;
use shmbus_signal::Priority;
use shmbus_signal::os::Token;
use shmbus_transports::pci::virtio::{QueueNotifier, VirtioPci};
use shmbus_transports::pci::{DmaRegion, Function};
use shmbus_virtio::Features;

pub use self::options::{CardError, CardOptions};
pub use self::vectors::Interrupts;
use self::vectors::{Cause, Vectors};
use super::{Ended, Environment, Network, NetworkError};

/// The drivers under the stack.
pub type CardPort = QueuePairs<DriverRing<Mapped>, Mapped>;

/// What a card's network has done so far.
#[derive(Clone, Debug, Default)]
pub struct CardCounters {
    /// Frames and their bytes.
    pub stack: StackCounters,
    /// Frames, by queue pair.
    pub pairs: Vec<PairCounters>,
    /// Signals of the card.
    pub interrupts: Interrupts,
    /// Notifications to the card.
    pub notifications: u64,
}

/// A virtio network card as what a stack lives in. Its time is the system's; it is woken by the card's vectors, each an
/// eventfd with its priority: configuration, receive queues, transmit queues, control queue.
pub struct Card<F: Function> {
    // It goes first, and is reset by that: nothing accesses the memory any more when that goes.
    device: VirtioPci<F>,
    /// Where its queues lie: the drivers' windows may go before the card.
    _memory: DmaRegion,
    /// By the number of the queue; those of pairs that are not used are missing.
    notifiers: Vec<Option<QueueNotifier<F::Registers>>>,
    vectors: Vectors,
    config: NetConfig,
    rings: RingKind,
    notifications: u64,
}

impl<F: Function> Network<Card<F>> {
    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.environment.device.features()
    }

    /// What the card's rings are.
    pub fn rings(&self) -> RingKind {
        self.environment.rings
    }

    /// The card's configuration, as it was read last.
    pub fn config(&self) -> NetConfig {
        self.environment.config
    }

    /// What was done so far.
    pub fn counters(&self) -> CardCounters {
        let card = &self.environment;
        CardCounters {
            stack: self.stack.counters(),
            pairs: self.stack.port().counters().collect(),
            interrupts: card.vectors.interrupts,
            notifications: card.notifications,
        }
    }

    /// Resets the card: it accesses no memory any more. Dropping the network does the same, and logs what goes wrong.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Card`] if the card could not be brought to rest.
    pub fn finish(self) -> Result<(), NetworkError> {
        let finished = self.environment.device.finish();
        finished.map_err(|error| card_error(error.into()))
    }
}

impl<F: Function> Card<F> {
    /// Tells the card that there is something in a queue.
    fn notify_queue(&mut self, queue: u16) -> Result<(), CardError> {
        if let Some(Some(notifier)) = self.notifiers.get(usize::from(queue)) {
            self.notifications += 1;
            // Positions are for cards with `NOTIFICATION_DATA`, which is not accepted.
            notifier.notify(0)?;
        }
        Ok(())
    }

    /// Looks what has changed: the link, or that the card needs a reset.
    fn look_at_configuration(&mut self) -> Result<(), CardError> {
        self.device.check()?;
        let before = self.config;
        self.config = set_up::read_config(&mut self.device, before.mac)?;
        if self.config.link_up != before.link_up {
            let up = self.config.link_up;
            tracing::warn!(up, "the card's link has changed");
        }
        Ok(())
    }

    /// Acts on what came; says what the caller has to act on.
    fn take(&mut self) -> Result<Option<Token>, CardError> {
        while let Some(what) = self.vectors.next()? {
            match what {
                Err(token) => return Ok(Some(token)),
                Ok(Cause::Configuration | Cause::Anything) => self.look_at_configuration()?,
                // The next turn looks at all queues.
                Ok(Cause::Receive | Cause::Transmit | Cause::Control | Cause::Queues) => {}
            }
        }
        Ok(None)
    }
}

impl<F: Function> Environment for Card<F> {
    type Port = CardPort;

    fn now(&mut self) -> Result<Duration, NetworkError> {
        Ok(Duration::from_nanos(monotonic_ns()))
    }

    fn notify(
        &mut self,
        port: &mut CardPort,
        notifications: Notifications,
    ) -> Result<(), NetworkError> {
        if !notifications.any() {
            return Ok(());
        }
        let mut outcome = Ok(());
        port.take_notifications(|queue| {
            let notified = self.notify_queue(queue.number());
            outcome = std::mem::replace(&mut outcome, Ok(())).and(notified);
        });
        outcome.map_err(card_error)
    }

    fn look(&mut self) -> Result<(), NetworkError> {
        self.vectors
            .wait(Some(Duration::ZERO))
            .map_err(|error| card_error(error.into()))
    }

    fn wait(&mut self, deadline: Option<Duration>) -> Result<(), NetworkError> {
        let timeout = match deadline {
            Some(at) => Some(at.saturating_sub(self.now()?)),
            None => None,
        };
        self.vectors
            .wait(timeout)
            .map_err(|error| card_error(error.into()))
    }

    fn take_events(&mut self) -> Result<Option<Ended>, NetworkError> {
        let token = self.take().map_err(card_error)?;
        Ok(token.map(Ended::Ready))
    }

    fn add_fd(&mut self, fd: impl AsFd, priority: Priority) -> Result<Token, NetworkError> {
        self.vectors
            .add_fd(fd, priority)
            .map_err(|error| card_error(error.into()))
    }
}

fn card_error(error: CardError) -> NetworkError {
    NetworkError::Card(Box::new(error))
}

#[cfg(test)]
mod tests;
