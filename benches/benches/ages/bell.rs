//! A way to signal the other side, as on a bus: a doorbell that is rung only when the other side waits.

use std::error::Error;
use std::io;

use shmbus_shm::{Mapped, Notify, heap};
use shmbus_signal::Priority;
use shmbus_signal::os::{Notifier, SignalSet, doorbell};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};

/// The set in which a side waits.
pub(crate) type Ear = SignalSet<Mapped>;

/// The sender's end.
pub(crate) struct Bell {
    sender: Sender<Mapped, Mapped>,
    notifier: Notifier,
}

/// A bell, and the set in which its receiver waits.
pub(crate) fn bell() -> Result<(Bell, Ear), Box<dyn Error>> {
    let layout = DoorbellLayout::new(1)?;
    let (tree, armed) = (heap(layout.tree_bytes()), heap(DoorbellLayout::ARMED_BYTES));
    let sender = Sender::new(&tree, &armed, layout)?;
    let receiver = Receiver::new(&tree, &armed, layout, vec![0; 1])?;
    let (notifier, waiter) = doorbell()?;
    let mut ear = SignalSet::new()?;
    ear.add_doorbell(receiver, waiter, Priority::HIGHEST)?;
    Ok((Bell { sender, notifier }, ear))
}

impl Bell {
    /// Rings, if the decision says so and the other side waits.
    pub(crate) fn ring(&mut self, notify: Notify) -> io::Result<()> {
        if notify.is_needed() && matches!(self.sender.raise(0), Ok(Notify::Yes)) {
            self.notifier.notify()?;
        }
        Ok(())
    }

    /// How often it was rung.
    pub(crate) fn rung(&self) -> u64 {
        self.sender.counts().sent
    }
}
