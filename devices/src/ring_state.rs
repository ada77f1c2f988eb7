//! A ring's positions as a value: what each side publishes of its rings for third parties.

use shmbus_ring::{Lag, Positions, RingKind};
use shmbus_shm::slot::Epoch;
use shmbus_shm::{RegionKind, Window};
use shmbus_table::{InvalidValue, TableError, TypedWriter, Value};

/// How far one side of a ring has come. For observers: whoever acts on it checks it like anything that comes from a
/// peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingState {
    /// The ring's type, which says how the positions count.
    pub kind: RingKind,
    /// The ring's number of entries.
    pub size: u16,
    /// The positions.
    pub positions: Positions,
}

impl RingState {
    /// By how many entries the two sides of a ring are behind each other; `None` if they do not speak of the same ring.
    pub fn lag(driver: &Self, device: &Self) -> Option<Lag> {
        let RingState { kind, size, .. } = *driver;
        let same = (kind, size) == (device.kind, device.size);
        same.then(|| Positions::lag(&driver.positions, &device.positions, kind, size))
    }
}

const KIND_SHIFT: u32 = 16;

impl Value for RingState {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"RING");
    const WORDS: usize = 2;

    fn encode(&self, words: &mut [u64]) {
        let Positions {
            available,
            used,
            in_flight,
        } = self.positions;
        words[0] = u64::from(self.size) | u64::from(self.kind.number()) << KIND_SHIFT;
        words[1] = u64::from(available) | u64::from(used) << 16 | u64::from(in_flight) << 32;
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let invalid = |word: usize, expected| InvalidValue {
            word,
            found: words[word],
            expected,
        };
        let size = words[0] as u16;
        let kind = RingKind::from_number((words[0] >> KIND_SHIFT) as u8)
            .ok_or_else(|| invalid(0, "a type of ring"))?;
        let format = kind.format;
        let geometry = RegionKind::Ring { format, size };
        if geometry.validate(0).is_err() {
            return Err(invalid(0, "a number of entries that the format allows"));
        }
        let positions = Positions {
            available: words[1] as u16,
            used: (words[1] >> 16) as u16,
            in_flight: (words[1] >> 32) as u16,
        };
        let exists = |position| kind.has_position(position, size);
        if !exists(positions.available) || !exists(positions.used) {
            return Err(invalid(1, "positions that the ring has"));
        }
        if positions.in_flight > size {
            return Err(invalid(1, "no more in flight than the ring has entries"));
        }
        Ok(Self {
            kind,
            size,
            positions,
        })
    }
}

/// The table in which one side of a device tells how far it has come, a slot for each ring.
///
/// It is for observers, who poll: nobody is told, and nothing depends on it.
pub(crate) struct RingStates<W> {
    table: TypedWriter<RingState, W, Vec<u64>>,
    /// What the slots say.
    published: Vec<Option<RingState>>,
}

impl<W: Window> RingStates<W> {
    /// A table of so many rings at the start of `window`.
    pub(crate) fn create(window: W, rings: u32) -> Result<Self, TableError> {
        let cursors = vec![0; rings as usize];
        Ok(Self {
            table: TypedWriter::create(window, rings, Epoch::FIRST, cursors)?,
            published: vec![None; rings as usize],
        })
    }

    /// Publishes where a ring is, unless the table says so already.
    #[inline]
    pub(crate) fn publish(&mut self, ring: u32, state: RingState) {
        if let Some(published) = self.published.get_mut(ring as usize)
            && *published != Some(state)
        {
            *published = Some(state);
            // The slot is there, and there is nothing to do for a device whose observers see less.
            let _ = self.table.publish(ring, &state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shmbus_shm::RingFormat;

    fn state(kind: RingKind, size: u16, available: u16, used: u16) -> RingState {
        RingState {
            kind,
            size,
            positions: Positions {
                available,
                used,
                in_flight: size.min(35),
            },
        }
    }

    fn words(state: RingState) -> [u64; RingState::WORDS] {
        let mut words = [0; RingState::WORDS];
        state.encode(&mut words);
        words
    }

    #[test]
    fn states_survive_being_words() {
        for state in [
            state(RingKind::plain(RingFormat::Split), 256, 65_535, 65_500),
            state(RingKind::in_order(RingFormat::Split), 1, 0, 0xffff),
            state(RingKind::plain(RingFormat::Packed), 3, 0x8002, 2),
            state(
                RingKind::in_order(RingFormat::Packed),
                32_768,
                0x7fff,
                0xffff,
            ),
        ] {
            let words = words(state);
            assert_eq!(RingState::decode(&words), Ok(state));
            let reserved = [words[0] | !0 << 24, words[1] | !0 << 48];
            assert_eq!(RingState::decode(&reserved), Ok(state), "not looked at");
        }
    }

    #[test]
    fn what_no_ring_can_be_in_is_refused() {
        let good = words(state(RingKind::plain(RingFormat::Packed), 3, 0x8002, 2));
        let refused = |word: usize, change: u64| {
            let mut words = good;
            words[word] ^= change;
            RingState::decode(&words).unwrap_err().word
        };
        assert_eq!(refused(0, 3), 0, "no entries");
        assert_eq!(refused(0, 0x8000), 0, "more entries than a ring has");
        assert_eq!(refused(0, 1 << KIND_SHIFT), 0, "3 entries, split");
        assert_eq!(refused(0, 0xfe << KIND_SHIFT), 0, "a format");
        assert_eq!(refused(1, 1), 1, "the available position");
        assert_eq!(refused(1, 1 << 16), 1, "the used position");
        assert_eq!(refused(1, 7 << 32), 1, "in flight");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Words that a guest wrote: what is taken for a state is one, and two of them have a lag or none.
        #[test]
        fn any_words_are_a_state_or_are_refused(
            sizes in [prop_oneof![1..5_u64, any::<u64>()], prop_oneof![1..5_u64, any::<u64>()]],
            kinds in [0..4_u64, 0..4_u64],
            positions in any::<[u64; 2]>(),
            small: bool,
        ) {
            let mut states = Vec::new();
            for ((size, kind), mut places) in sizes.into_iter().zip(kinds).zip(positions) {
                if small {
                    places &= 0x0003_8003_8003;
                }
                let Ok(state) = RingState::decode(&[size | kind << KIND_SHIFT, places]) else {
                    continue;
                };
                prop_assert_eq!(RingState::decode(&words(state)), Ok(state));
                prop_assert!(state.positions.in_flight <= state.size && state.size > 0);
                states.push(state);
            }
            if let [driver, device] = states[..] {
                let Lag { available, used } = RingState::lag(&driver, &device).unwrap_or_default();
                let most = driver.size;
                prop_assert!(available.is_none_or(|lag| lag <= most));
                prop_assert!(used.is_none_or(|lag| lag <= most));
            }
        }
    }

    #[test]
    fn two_sides_that_speak_of_other_rings_have_no_lag() {
        let driver = state(RingKind::plain(RingFormat::Packed), 256, 0x8005, 0x8001);
        let device = state(RingKind::plain(RingFormat::Packed), 256, 0x8003, 0x8002);
        let lag = RingState::lag(&driver, &device).unwrap();
        assert_eq!((lag.available, lag.used), (Some(2), Some(1)));
        let other = state(RingKind::plain(RingFormat::Packed), 255, 0x8003, 0x8002);
        assert_eq!(RingState::lag(&driver, &other), None);
        let other = state(RingKind::in_order(RingFormat::Packed), 256, 0x8003, 0x8002);
        assert_eq!(RingState::lag(&driver, &other), None);
    }
}
