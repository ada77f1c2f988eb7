//! Several receivers of what one side publishes.

use shmbus_shm::{Notify, TreeWriter, Window};

use super::alarm::Answers;
use super::{DoorbellLayout, SenderCounts, SignalError};

/// Names one of a sender's subscribers, until it is removed. Its place may be given to another then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(u8);

impl Subscriber {
    /// Its place, below the bound: an index into the subscribers' notifiers, say.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Which subscribers' doorbells must be rung.
#[must_use = "who sleeps and is not rung sleeps on"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due(u64);

impl Due {
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `subscriber` is among them.
    pub fn contains(self, subscriber: Subscriber) -> bool {
        self.0 >> subscriber.0 & 1 == 1
    }
}

impl Iterator for Due {
    type Item = Subscriber;

    fn next(&mut self) -> Option<Subscriber> {
        let place = self.0.trailing_zeros();
        // The lowest bit goes; of zero, none.
        self.0 &= self.0.wrapping_sub(1);
        (place < u64::BITS).then_some(Subscriber(place as u8))
    }
}

/// The armed words of up to `N` subscribers, each in the section of its own: `A` is the window on it. `N` is 1 to
/// [`MAX_SUBSCRIBERS`](Self::MAX_SUBSCRIBERS).
///
/// It serves whatever has a rising generation: publish it, with release ordering or more, and ask who is
/// [due](Self::due). That costs a fence and one load for each subscriber; nobody's word is written. What a subscriber
/// puts into its word decides about kicks to itself alone, at most one for each generation published.
///
/// ```
/// use std::sync::atomic::Ordering::{Relaxed, Release};
///
/// use shmbus_shm::{Field, heap};
/// use shmbus_signal::suppress::{Alarm, Arm, DoorbellLayout, Subscribers};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let generation = Field::<u64, _>::new(&heap(64), 0)?;
/// let (one, two) = (heap(DoorbellLayout::ARMED_BYTES), heap(DoorbellLayout::ARMED_BYTES));
/// let (alarm_of_one, alarm_of_two) = (Alarm::new(&one)?, Alarm::new(&two)?);
/// let mut subscribers = Subscribers::<_, 8>::new();
/// let (_one, _) = subscribers.subscribe(&one, 0)?;
/// let (two, _) = subscribers.subscribe(&two, 0)?;
///
/// // One wants to be woken at generation 3, two at the next.
/// assert_eq!(alarm_of_one.arm_at(3, || generation.load(Relaxed)), Arm::Armed);
/// assert_eq!(alarm_of_two.arm_at(1, || generation.load(Relaxed)), Arm::Armed);
/// generation.store(1, Release);
/// assert!(subscribers.due(1).eq([two]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Subscribers<A, const N: usize> {
    places: [Option<Answers<A>>; N],
    counts: SenderCounts,
}

impl<A: Window, const N: usize> Subscribers<A, N> {
    /// The largest bound there can be.
    pub const MAX_SUBSCRIBERS: usize = u64::BITS as usize;

    /// Nobody yet.
    pub fn new() -> Self {
        const { assert!(N > 0 && N <= Self::MAX_SUBSCRIBERS) };
        Self {
            places: [const { None }; N],
            counts: SenderCounts::default(),
        }
    }

    /// Adds who writes the word at the start of `armed`. `generation` is what is published by now: who armed for that, or
    /// less, before we looked must be kicked now.
    ///
    /// # Errors
    ///
    /// [`SignalError::Subscribers`] if there are `N` already, [`SignalError::Armed`].
    pub fn subscribe(
        &mut self,
        armed: &A,
        generation: u64,
    ) -> Result<(Subscriber, Notify), SignalError> {
        let free = (0..)
            .zip(&mut self.places)
            .find(|(_, place)| place.is_none());
        let (index, place) = free.ok_or(SignalError::Subscribers { bound: N })?;
        let answers = place.insert(Answers::new(armed)?);
        answers.fence();
        let notify = if answers.is_due(generation) {
            self.counts.sent += 1;
            Notify::Yes
        } else {
            Notify::No
        };
        Ok((Subscriber(index), notify))
    }

    /// Looks at a subscriber's word no more. Its place is free then.
    pub fn unsubscribe(&mut self, subscriber: Subscriber) {
        if let Some(place) = self.places.get_mut(subscriber.index()) {
            *place = None;
        }
    }

    /// How many subscribers there are.
    pub fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who must be woken now that `generation` is published.
    #[inline]
    pub fn due(&mut self, generation: u64) -> Due {
        let mut due = Due::default();
        let mut is_ordered = false;
        for (index, place) in self.places.iter_mut().enumerate() {
            let Some(answers) = place else {
                continue;
            };
            if !is_ordered {
                answers.fence();
                is_ordered = true;
            }
            if answers.is_due(generation) {
                due.0 |= 1 << index;
                self.counts.sent += 1;
            } else {
                self.counts.suppressed += 1;
            }
        }
        due
    }

    /// How many kicks were called for, and how many were not: of each subscriber, for each generation.
    pub fn counts(&self) -> SenderCounts {
        self.counts
    }
}

impl<A: Window, const N: usize> Default for Subscribers<A, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The sending side of a doorbell with several receivers, all of which read one tree: `T` is the window on the sender's
/// section. Each receiver is a [`Receiver`](super::Receiver), with an armed word and a descriptor of its own.
///
/// ```
/// use shmbus_shm::heap;
/// use shmbus_signal::suppress::{Arm, Broadcast, DoorbellLayout, Receiver};
///
/// # fn main() -> Result<(), shmbus_signal::suppress::SignalError> {
/// let layout = DoorbellLayout::new(100)?;
/// let tree = heap(layout.tree_bytes());
/// let mut sender = Broadcast::<_, _, 8>::new(&tree, layout)?;
/// let (armed_by_one, armed_by_two) = (heap(64), heap(64));
/// let (one, _) = sender.subscribe(&armed_by_one)?;
/// let (two, _) = sender.subscribe(&armed_by_two)?;
/// let receiver_one = Receiver::new(&tree, &armed_by_one, layout, vec![0; 100])?;
/// let receiver_two = Receiver::new(&tree, &armed_by_two, layout, vec![0; 100])?;
///
/// assert_eq!(receiver_one.arm(), Arm::Armed);
/// assert_eq!(receiver_two.arm_after(3), Arm::Armed); // sleeps through two
/// assert!(sender.raise(7)?.eq([one]));
/// assert!(sender.raise(8)?.is_empty());
/// assert!(sender.raise(9)?.eq([two]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Broadcast<T, A, const N: usize> {
    tree: TreeWriter<T>,
    subscribers: Subscribers<A, N>,
}

impl<T: Window, A: Window, const N: usize> Broadcast<T, A, N> {
    /// Formats the start of `tree`, in this side's section. Nobody listens yet.
    ///
    /// # Errors
    ///
    /// [`SignalError::Tree`].
    pub fn new(tree: &T, layout: DoorbellLayout) -> Result<Self, SignalError> {
        Ok(Self {
            tree: TreeWriter::create(tree, layout.tree())?,
            subscribers: Subscribers::new(),
        })
    }

    /// Goes on where a former sender on this memory stopped. Its subscribers are added anew; nobody knows whether they were
    /// sent their last kick, so each that is armed for what was raised gets one, as [`Broadcast::subscribe`] says.
    ///
    /// # Errors
    ///
    /// [`SignalError::Tree`], also if the memory holds no tree.
    pub fn resume(tree: &T, layout: DoorbellLayout) -> Result<Self, SignalError> {
        Ok(Self {
            tree: TreeWriter::resume(tree, layout.tree())?,
            subscribers: Subscribers::new(),
        })
    }

    /// Adds a receiver, which writes the word at the start of `armed`. Returns whether its doorbell must be rung at once.
    ///
    /// # Errors
    ///
    /// As for [`Subscribers::subscribe`].
    pub fn subscribe(&mut self, armed: &A) -> Result<(Subscriber, Notify), SignalError> {
        self.subscribers.subscribe(armed, self.tree.stamp())
    }

    /// Looks at a receiver's word no more.
    pub fn unsubscribe(&mut self, subscriber: Subscriber) {
        self.subscribers.unsubscribe(subscriber);
    }

    /// The doorbell's number of channels.
    pub fn channels(&self) -> u32 {
        self.tree.layout().leaves()
    }

    /// Raises channel `channel`, for all. Returns whose doorbells must be rung.
    ///
    /// # Errors
    ///
    /// [`SignalError::NoSuchChannel`]; nothing was raised.
    #[inline]
    pub fn raise(&mut self, channel: u32) -> Result<Due, SignalError> {
        let channels = self.channels();
        if channel >= channels {
            return Err(SignalError::NoSuchChannel { channel, channels });
        }
        let stamp = self.tree.mark(channel, self.tree.stamp() + 1);
        Ok(self.subscribers.due(stamp))
    }

    /// How many kicks were called for, and how many were not.
    pub fn counts(&self) -> SenderCounts {
        self.subscribers.counts()
    }
}

#[cfg(test)]
mod tests;
