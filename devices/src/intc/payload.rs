//! What the slots of the tables say.

use shmbus_table::{InvalidValue, Value};

use super::LinePriority;

/// What somebody drives onto a line: a level, and edges. The host tells it each guest in the guest's table of lines; a
/// guest tells the host in its table of requests.
///
/// Both parts supersede what was written before, and nothing is queued: of a thousand edges that nobody has looked at
/// the last one is told, and its number says how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Whether the level is asserted.
    pub asserted: bool,
    /// The number of the last edge: how many there were since the table was set up, modulo 2^64.
    pub edges: u64,
    /// When it last gave cause for an interrupt, in nanoseconds of the host's monotonic clock; 0 in a request, whose
    /// time is when the host sees it.
    pub raised_ns: u64,
}

impl Value for Wire {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"WIRE");
    const WORDS: usize = 3;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&[self.asserted.into(), self.edges, self.raised_ns]);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let &[asserted, edges, raised_ns] = words else {
            return Err(wrong_length(words, "three words"));
        };
        if asserted > 1 {
            return Err(InvalidValue {
                word: 0,
                found: asserted,
                expected: "a level of 0 or 1",
            });
        }
        Ok(Self {
            asserted: asserted == 1,
            edges,
            raised_ns,
        })
    }
}

/// What a guest says of a line: how it wants it, and how far it has come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Whether it may be delivered. A line of which nothing was said is masked.
    pub enabled: bool,
    /// Whether it is in service: delivered, and not ended.
    pub in_service: bool,
    /// How urgent it is.
    pub priority: LinePriority,
    /// The number of the last edge that was delivered.
    pub claimed: u64,
    /// The number of the last edge whose service has ended.
    pub ended: u64,
    /// How often the line was delivered, for whoever looks on.
    pub deliveries: u64,
}

const ENABLED: u64 = 1 << 0;
const IN_SERVICE: u64 = 1 << 1;
const PRIORITY_SHIFT: u32 = 8;
/// The flags' byte. Those after the priority are reserved: written as zeros, and not looked at.
const FLAGS: u64 = 0xff;

impl Value for Control {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"CTRL");
    const WORDS: usize = 4;

    fn encode(&self, words: &mut [u64]) {
        let mut state = u64::from(self.priority.number()) << PRIORITY_SHIFT;
        if self.enabled {
            state |= ENABLED;
        }
        if self.in_service {
            state |= IN_SERVICE;
        }
        words.copy_from_slice(&[state, self.claimed, self.ended, self.deliveries]);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let &[state, claimed, ended, deliveries] = words else {
            return Err(wrong_length(words, "four words"));
        };
        let priority = LinePriority::new((state >> PRIORITY_SHIFT) as u8);
        match priority {
            Some(priority) if state & FLAGS & !(ENABLED | IN_SERVICE) == 0 => Ok(Self {
                enabled: state & ENABLED != 0,
                in_service: state & IN_SERVICE != 0,
                priority,
                claimed,
                ended,
                deliveries,
            }),
            _ => Err(InvalidValue {
                word: 0,
                found: state,
                expected: "flags in bits 0 and 1, and a priority of 0 to 31 in bits 8 to 15",
            }),
        }
    }
}

/// A table gives every value its words, so this is for other callers only.
fn wrong_length(words: &[u64], expected: &'static str) -> InvalidValue {
    InvalidValue {
        word: words.len(),
        found: 0,
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_side_writes_is_refused() {
        for state in [2, u64::MAX, 1 << 63] {
            assert!(Wire::decode(&[state, 0, 0]).is_err(), "{state:#x}");
        }
        for state in [4, 0x80, 0x20 << 8, u64::MAX] {
            assert!(Control::decode(&[state, 0, 0, 0]).is_err(), "{state:#x}");
        }
        assert!(Control::decode(&[0x1f03, 0, 0, 0]).is_ok());
        let reserved = Control::decode(&[1 << 63 | 1 << 16, 0, 0, 0]);
        assert_eq!(reserved, Control::decode(&[0; 4]));
        assert!(Wire::decode(&[0; 2]).is_err() && Control::decode(&[0; 3]).is_err());
    }
}
