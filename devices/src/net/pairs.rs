//! Several queue pairs of one device, as one port.

use core::fmt;

use shmbus_ring::DriverFormat;
use shmbus_shm::{Notify, Window};

use super::driver::NetDriver;
use super::flow;
use super::port::{Checksum, Notifications, Port, PortError, Received, Sent};
use super::queues::QueueName;

/// Frames that one pair may hand in before the next one gets its turn.
const TURN: u32 = 16;

/// What went through one pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounters {
    /// Frames that the device delivered in it.
    pub received_frames: u64,
    /// Of these, how many came in more than one receive buffer.
    pub merged_frames: u64,
    /// Frames that the device was given.
    pub sent_frames: u64,
}

struct Pair<F, W> {
    driver: NetDriver<F, W>,
    counters: PairCounters,
    /// What was decided and not taken yet.
    notifications: Notifications,
}

/// The queue pairs of one device, under one stack. Frames of one flow are sent through one pair, while it has room; pairs
/// are received from in turn.
pub struct QueuePairs<F, W> {
    pairs: Vec<Pair<F, W>>,
    /// Whose turn it is.
    turn: usize,
    /// How many frames it has left.
    left: u32,
}

impl<F: DriverFormat, W: Window> QueuePairs<F, W> {
    /// The drivers of the pairs, from the first on.
    pub fn new(drivers: impl IntoIterator<Item = NetDriver<F, W>>) -> Self {
        let pairs = drivers.into_iter().map(|driver| Pair {
            driver,
            counters: PairCounters::default(),
            notifications: Notifications::NONE,
        });
        Self {
            pairs: pairs.collect(),
            turn: 0,
            left: TURN,
        }
    }

    /// What went through each pair so far.
    pub fn counters(&self) -> impl Iterator<Item = PairCounters> + '_ {
        self.pairs.iter().map(|pair| PairCounters {
            merged_frames: pair.driver.merged_frames(),
            ..pair.counters
        })
    }

    /// Takes what [`Port::flush`] decided: `notify` is called with each queue whose device must be told.
    pub fn take_notifications(&mut self, mut notify: impl FnMut(QueueName)) {
        for (number, pair) in (0..).zip(&mut self.pairs) {
            let taken = core::mem::replace(&mut pair.notifications, Notifications::NONE);
            let mut take = |decision: Notify, queue| {
                if decision.is_needed() {
                    notify(queue);
                }
            };
            take(taken.receiveq, QueueName::Receiveq(number));
            take(taken.transmitq, QueueName::Transmitq(number));
        }
    }

    fn pass_turn(&mut self) {
        self.turn = (self.turn + 1) % self.pairs.len().max(1);
        self.left = TURN;
    }
}

impl<F: DriverFormat, W: Window> Port for QueuePairs<F, W> {
    fn receive(&mut self, frame: &mut [u8]) -> Result<Received, PortError> {
        if self.left == 0 {
            self.pass_turn();
        }
        // There is nothing only if nobody has anything: then each has asked to be told of the next one.
        for _ in 0..self.pairs.len() {
            let pair = &mut self.pairs[self.turn];
            match pair.driver.receive(frame)? {
                Received::Empty => self.pass_turn(),
                received => {
                    pair.counters.received_frames += 1;
                    self.left -= 1;
                    return Ok(received);
                }
            }
        }
        Ok(Received::Empty)
    }

    /// A frame whose own pair has no room goes through the next that has: rather out of order than lost.
    fn send(&mut self, frame: &[u8], checksum: Checksum) -> Result<Sent, PortError> {
        let count = self.pairs.len();
        let own = match count {
            0 | 1 => 0,
            _ => flow::number(frame) as usize % count,
        };
        for place in 0..count {
            let pair = &mut self.pairs[(own + place) % count];
            match pair.driver.send(frame, checksum)? {
                Sent::Full => {}
                sent => {
                    pair.counters.sent_frames += u64::from(sent == Sent::Taken);
                    return Ok(sent);
                }
            }
        }
        Ok(Sent::Full)
    }

    fn can_send(&mut self) -> bool {
        // One that has no room asks to be told of it: all of them, if none has.
        self.pairs.iter_mut().any(|pair| pair.driver.can_send())
    }

    fn takes_partial_checksums(&self) -> bool {
        self.pairs
            .iter()
            .all(|pair| pair.driver.takes_partial_checksums())
    }

    fn flush(&mut self) -> Notifications {
        self.pairs
            .iter_mut()
            .fold(Notifications::NONE, |all, pair| {
                let decided = pair.driver.flush();
                pair.notifications = pair.notifications.or(decided);
                all.or(decided)
            })
    }
}

impl<F, W> fmt::Debug for QueuePairs<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePairs")
            .field("pairs", &self.pairs.len())
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
