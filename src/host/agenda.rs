//! Which devices want to be called, and when. Nothing here is linear in the number of devices that want nothing.

use std::collections::{BTreeSet, VecDeque};

/// What the loop has to do besides answering signals.
#[derive(Debug)]
pub(super) struct Agenda {
    /// Each device's next tick, the earliest first.
    ticks: BTreeSet<(u64, u32)>,
    devices: Vec<Entry>,
    /// Devices that stopped at their bound on work per call.
    unfinished: VecDeque<u32>,
    /// Devices whose counters may have changed.
    touched: Vec<u32>,
    /// Whether guests came or went since the counters were published.
    guests_changed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    tick: Option<u64>,
    is_unfinished: bool,
    is_touched: bool,
}

impl Agenda {
    pub(super) fn new(devices: usize) -> Self {
        Self {
            ticks: BTreeSet::new(),
            devices: vec![Entry::default(); devices],
            unfinished: VecDeque::with_capacity(devices),
            touched: Vec::with_capacity(devices),
            guests_changed: false,
        }
    }

    /// A device was called: it wants its next tick then, and may have more to do.
    pub(super) fn called(&mut self, device: u32, tick: Option<u64>, more: bool) {
        let Some(entry) = self.devices.get_mut(device as usize) else {
            return;
        };
        if entry.tick != tick {
            if let Some(before) = entry.tick {
                self.ticks.remove(&(before, device));
            }
            self.ticks.extend(tick.map(|due| (due, device)));
            entry.tick = tick;
        }
        if more && !entry.is_unfinished {
            entry.is_unfinished = true;
            self.unfinished.push_back(device);
        }
        if !entry.is_touched {
            entry.is_touched = true;
            self.touched.push(device);
        }
    }

    /// The next device whose tick is due. It stays due until it is called.
    pub(super) fn due(&self, now: u64) -> Option<u32> {
        let (due, device) = self.ticks.first()?;
        (*due <= now).then_some(*device)
    }

    /// When the next tick is due.
    pub(super) fn next_tick(&self) -> Option<u64> {
        self.ticks.first().map(|(due, _)| *due)
    }

    /// How many devices have more to do.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// Takes the next device that has more to do.
    pub(super) fn take_unfinished(&mut self) -> Option<u32> {
        let device = self.unfinished.pop_front()?;
        self.devices[device as usize].is_unfinished = false;
        Some(device)
    }

    /// A guest came or went.
    pub(super) fn guests_changed(&mut self) {
        self.guests_changed = true;
    }

    /// Whether there are counters to publish.
    pub(super) fn is_touched(&self) -> bool {
        self.guests_changed || !self.touched.is_empty()
    }

    /// Takes the next device that was called; that guests came or went is forgotten with it.
    pub(super) fn take_touched(&mut self) -> Option<u32> {
        self.guests_changed = false;
        let device = self.touched.pop()?;
        self.devices[device as usize].is_touched = false;
        Some(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_tick_is_due_first_and_moves_when_its_device_says_so() {
        let mut agenda = Agenda::new(3);
        agenda.called(0, Some(30), false);
        agenda.called(2, Some(10), false);
        assert_eq!((agenda.due(9), agenda.due(10)), (None, Some(2)));
        agenda.called(2, Some(50), false);
        assert_eq!((agenda.next_tick(), agenda.due(40)), (Some(30), Some(0)));
        agenda.called(0, None, false);
        agenda.called(2, None, false);
        assert_eq!(agenda.next_tick(), None);
    }

    #[test]
    fn each_device_is_on_a_list_at_most_once() {
        let mut agenda = Agenda::new(2);
        agenda.called(1, None, true);
        agenda.called(1, None, true);
        agenda.called(0, None, false);
        assert_eq!(agenda.unfinished(), 1);
        assert_eq!(agenda.take_unfinished(), Some(1));
        assert_eq!(agenda.take_unfinished(), None);
        let mut touched: Vec<_> = std::iter::from_fn(|| agenda.take_touched()).collect();
        touched.sort_unstable();
        assert_eq!(touched, [0, 1]);
        assert!(!agenda.is_touched());
        agenda.guests_changed();
        assert!(agenda.is_touched());
        assert_eq!(agenda.take_touched(), None);
        assert!(!agenda.is_touched());
    }
}
