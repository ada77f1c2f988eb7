//! A reader, with what it must never fall behind.

use std::thread;
use std::time::Duration;

use shmbus_shm::Mapped;
use shmbus_shm::slot::{Generation, ReadError as SlotError};
use shmbus_table::{Epoch, ReadError, TableLayout, TableReader};

use crate::counts::Counts;
use crate::stamped::{Progress, SLOTS, number_of, storage};

pub(crate) struct Observer {
    reader: TableReader<Mapped, Vec<u64>>,
    progress: Progress,
    value: Vec<u64>,
    /// The publication read last from each slot.
    pub(crate) last: [u64; SLOTS as usize],
    pub(crate) counts: Counts,
    /// Looks since the last news.
    idle: u64,
}

impl Observer {
    /// Of a table that is set up.
    pub(crate) fn attach(window: &Mapped, layout: TableLayout) -> Self {
        let reader = TableReader::attach(window.clone(), storage(), storage()).unwrap();
        assert_eq!(reader.layout(), layout);
        Self {
            reader,
            progress: Progress::new(window, layout),
            value: vec![0; layout.slot_words()],
            last: [0; SLOTS as usize],
            counts: Counts::NONE,
            idle: 0,
        }
    }

    /// Goes over to a new writer's memory.
    pub(crate) fn rebind(&mut self, window: &Mapped) -> Epoch {
        self.progress = Progress::new(window, self.reader.layout());
        self.reader.rebind(window.clone()).unwrap()
    }

    /// The writer's life, as its memory says.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.reader.epoch()
    }

    /// Reads a slot, and counts what it gets and what is wrong with it.
    pub(crate) fn look(&mut self, slot: u32) -> Option<(Generation, u64)> {
        let complete = self.progress.complete(slot);
        let last = &mut self.last[slot as usize];
        match self.reader.read(slot, &mut self.value) {
            Ok(generation) => {
                self.counts.values += 1;
                let Some(number) = number_of(&self.value) else {
                    self.counts.torn += 1;
                    return None;
                };
                self.counts.too_old += u64::from(number < complete);
                self.counts.backwards += u64::from(number < *last);
                self.counts.newer += u64::from(number > *last);
                self.idle = if number > *last { 0 } else { self.idle + 1 };
                *last = number;
                Some((generation, number))
            }
            Err(ReadError::Slot(SlotError::Lapped)) => {
                self.counts.lapped += 1;
                None
            }
            Err(ReadError::Slot(SlotError::Restarted { .. })) => {
                self.counts.restarts += 1;
                None
            }
            Err(ReadError::Slot(SlotError::NeverWritten)) => {
                self.counts.too_old += u64::from(complete > 0 || *last > 0);
                None
            }
            Err(error) => panic!("slot {slot}: {error}"),
        }
    }

    /// Leaves the processor to the writer, which seems to have none: it is interrupted when this returns.
    pub(crate) fn rest_if_idle(&mut self) {
        if self.idle > 300 {
            thread::sleep(Duration::from_micros(20));
            self.idle = 0;
        }
    }

    /// Scans for changes, and reads what is reported: at least that is there. Where the publication's number is its
    /// generation's count, the scan is also not behind what was complete before it.
    pub(crate) fn scan(&mut self, counts_are_numbers: bool) {
        let complete: Vec<_> = (0..SLOTS)
            .map(|slot| self.progress.complete(slot))
            .collect();
        let mut reported = [None; SLOTS as usize];
        self.reader
            .changed(|slot, generation| reported[slot as usize] = Some(generation));
        for ((slot, reported), complete) in (0..SLOTS).zip(reported).zip(complete) {
            let Some(reported) = reported else {
                continue;
            };
            self.counts.reports += 1;
            self.counts.too_old += u64::from(counts_are_numbers && reported.count() < complete);
            if let Some((generation, _)) = self.look(slot) {
                self.counts.misnamed += u64::from(generation < reported);
            }
        }
    }
}
