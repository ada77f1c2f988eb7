//! Warnings about peers, at a bounded rate: ten thousand bad peers make a few lines, which say how many there were.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::bucket::Bucket;

/// How often a line about the same thing is written in the long run.
const PAUSE: Duration = Duration::from_secs(1);
/// How many lines about the same thing are written at once, after some quiet.
const BURST: u32 = 8;

/// What the lines are filed under.
const TARGET: &str = "shmbus_transports";

/// What there is to complain about; each has a rate of its own, so that noise of one sort hides no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Complaint {
    /// A peer that never got as far as a valid HELLO.
    NoGuest,
    /// A silent connection that had to make room.
    PushedOut,
    /// A valid HELLO that was refused.
    Refused,
    /// A session that ended badly.
    SessionLost,
    /// No descriptors, no memory: ours, not the peer's fault.
    OutOfResources,
    /// Words in a shared memory that say nothing.
    Nonsense,
}

const COMPLAINTS: [(Complaint, &str); 6] = [
    (
        Complaint::NoGuest,
        "a connection was closed before it became a guest",
    ),
    (
        Complaint::PushedOut,
        "a silent connection was closed to make room",
    ),
    (Complaint::Refused, "a guest was refused"),
    (Complaint::SessionLost, "a session ended"),
    (
        Complaint::OutOfResources,
        "connections have to wait: the host is out of resources",
    ),
    (Complaint::Nonsense, "a guest's words make no sense"),
];

/// What is written about one thing, and what is not.
#[derive(Clone, Copy, Debug)]
struct Record {
    lines: Bucket,
    suppressed: u64,
}

impl Record {
    const FULL: Self = Self {
        lines: Bucket::new(BURST, PAUSE),
        suppressed: 0,
    };
}

/// Who may complain when.
#[derive(Debug)]
pub(crate) struct Complaints {
    records: [Record; COMPLAINTS.len()],
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            records: [Record::FULL; COMPLAINTS.len()],
        }
    }
}

impl Complaints {
    /// Writes a line, or counts it.
    pub(crate) fn about(&mut self, complaint: Complaint, now: Instant, why: impl Display) {
        let record = &mut self.records[complaint as usize];
        if !record.lines.take(now) {
            record.suppressed += 1;
            return;
        }
        let (_, what) = COMPLAINTS[complaint as usize];
        match std::mem::take(&mut record.suppressed) {
            0 => tracing::warn!(target: TARGET, "{what}: {why}"),
            more => {
                tracing::warn!(target: TARGET, "{what}: {why} (and {more} more since the last such line)")
            }
        }
    }

    /// Tells the counts of what was suppressed and is due.
    pub(crate) fn settle(&mut self, now: Instant) {
        for (complaint, what) in COMPLAINTS {
            let record = &mut self.records[complaint as usize];
            if record.suppressed > 0 && record.lines.take(now) {
                let more = std::mem::take(&mut record.suppressed);
                tracing::warn!(target: TARGET, "{what} ({more} more since the last such line)");
            }
        }
    }

    /// When [`settle`](Self::settle) has something to tell.
    pub(crate) fn next_settlement(&self) -> Option<Instant> {
        let suppressing = self.records.iter().filter(|record| record.suppressed > 0);
        suppressing
            .filter_map(|record| record.lines.next_token())
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_numbers() {
        for (index, (complaint, _)) in COMPLAINTS.iter().enumerate() {
            assert_eq!(*complaint as usize, index);
        }
    }

    #[test]
    fn ten_thousand_complaints_are_a_few_lines_and_a_count() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        for _ in 0..10_000 {
            complaints.about(Complaint::NoGuest, start, "silence");
        }
        let suppressed = u64::from(10_000 - BURST);
        assert_eq!(complaints.records[0].suppressed, suppressed);
        assert_eq!(complaints.next_settlement(), Some(start + PAUSE));
        complaints.settle(start + PAUSE / 2); // too early
        assert_eq!(complaints.records[0].suppressed, suppressed);
        complaints.settle(start + PAUSE);
        assert_eq!(complaints.records[0].suppressed, 0);
        assert_eq!(complaints.next_settlement(), None);
        // Another sort of trouble has lines of its own.
        complaints.about(Complaint::Refused, start, "busy");
        assert_eq!(
            complaints.records[Complaint::Refused as usize].suppressed,
            0
        );
    }
}
