//! A ring's positions as a value: what a device publishes of its rings for third parties.

use shmbus_ring::Positions;
use shmbus_table::{InvalidValue, Value};

/// How far the device's side of a ring has come. For observers: whoever acts on it checks it like anything that comes
/// from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingState {
    /// The ring's number of entries.
    pub size: u16,
    /// The positions.
    pub positions: Positions,
}

impl Value for RingState {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"RING");
    const WORDS: usize = 2;

    fn encode(&self, words: &mut [u64]) {
        let Positions {
            available,
            used,
            in_flight,
        } = self.positions;
        words[0] = u64::from(self.size);
        words[1] = u64::from(available) | u64::from(used) << 16 | u64::from(in_flight) << 32;
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let size = words[0] as u16;
        let positions = Positions {
            available: words[1] as u16,
            used: (words[1] >> 16) as u16,
            in_flight: (words[1] >> 32) as u16,
        };
        if positions.in_flight > size {
            return Err(InvalidValue {
                word: 1,
                found: words[1],
                expected: "positions with no more in flight than the ring has entries",
            });
        }
        Ok(Self { size, positions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_being_words_and_impossible_ones_are_refused() {
        let state = RingState {
            size: 256,
            positions: Positions {
                available: 65_535,
                used: 65_500,
                in_flight: 35,
            },
        };
        let mut words = [0; RingState::WORDS];
        state.encode(&mut words);
        assert_eq!(RingState::decode(&words), Ok(state));
        assert!(RingState::decode(&[34, words[1]]).is_err());
        let reserved = [words[0] | !0 << 16, words[1] | !0 << 48];
        assert_eq!(RingState::decode(&reserved), Ok(state), "not looked at");
    }
}
