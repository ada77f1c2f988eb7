//! Warnings about peers, at a bounded rate: ten thousand bad peers make a few lines, which say how many there were.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// The shortest time between two lines about the same thing.
const PAUSE: Duration = Duration::from_secs(1);

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
}

const COMPLAINTS: [(Complaint, &str); 5] = [
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
];

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    last_line: Option<Instant>,
    suppressed: u64,
}

/// Who may complain when.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    records: [Record; COMPLAINTS.len()],
}

impl Complaints {
    /// Writes a line, or counts it.
    pub(crate) fn about(&mut self, complaint: Complaint, now: Instant, why: impl Display) {
        let record = &mut self.records[complaint as usize];
        if record
            .last_line
            .is_some_and(|last| now.saturating_duration_since(last) < PAUSE)
        {
            record.suppressed += 1;
            return;
        }
        let suppressed = std::mem::take(&mut record.suppressed);
        record.last_line = Some(now);
        let (_, what) = COMPLAINTS[complaint as usize];
        if suppressed == 0 {
            tracing::warn!(%why, "{what}");
        } else {
            tracing::warn!(%why, suppressed, "{what} (and {suppressed} more since the last such line)");
        }
    }

    /// Tells the counts of what was suppressed and is due.
    pub(crate) fn settle(&mut self, now: Instant) {
        for (complaint, what) in COMPLAINTS {
            let record = &mut self.records[complaint as usize];
            let due = record.last_line.is_none_or(|last| now >= last + PAUSE);
            if record.suppressed > 0 && due {
                let suppressed = std::mem::take(&mut record.suppressed);
                record.last_line = Some(now);
                tracing::warn!(
                    suppressed,
                    "{what} ({suppressed} more since the last such line)"
                );
            }
        }
    }

    /// When [`settle`](Self::settle) has something to tell.
    pub(crate) fn next_settlement(&self) -> Option<Instant> {
        self.records
            .iter()
            .filter(|record| record.suppressed > 0)
            .filter_map(|record| Some(record.last_line? + PAUSE))
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
    fn ten_thousand_complaints_are_one_line_and_a_count() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        for _ in 0..10_000 {
            complaints.about(Complaint::NoGuest, start, "silence");
        }
        assert_eq!(complaints.records[0].suppressed, 9_999);
        assert_eq!(complaints.next_settlement(), Some(start + PAUSE));
        complaints.settle(start + PAUSE / 2); // too early
        assert_eq!(complaints.records[0].suppressed, 9_999);
        complaints.settle(start + PAUSE);
        assert_eq!(complaints.records[0].suppressed, 0);
        assert_eq!(complaints.next_settlement(), None);
    }
}
