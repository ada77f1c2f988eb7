//! The table of counters: what the bus and its devices publish about themselves, for all to read.

use serde::Serialize;
use shmbus_devices::{COUNTERS, counter_names};
use shmbus_table::{InvalidValue, Value};
use shmbus_virtio::DeviceId;

/// Slot 0 of the counters table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Guests on the bus.
    pub guests: u64,
    /// Guests that were ever on it.
    pub guests_ever: u64,
    /// Signals that the host sent.
    pub signals_sent: u64,
    /// Signals that no guest was waiting for, and that were not sent.
    pub signals_suppressed: u64,
}

/// A slot of the table: slot 0 holds [`Totals`], slot *n* + 1 the counters of device *n*, in the order that
/// [`counter_names`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Whose they are; type 0 for the bus itself.
    pub device: DeviceId,
    /// The counters.
    pub values: [u64; COUNTERS],
}

impl Counters {
    /// Counters at zero.
    pub fn of(device: DeviceId) -> Self {
        Self {
            device,
            values: [0; COUNTERS],
        }
    }

    /// The counter of a name.
    pub fn get(&self, name: &str) -> Option<u64> {
        let index = counter_names(self.device)
            .iter()
            .position(|known| *known == name)?;
        self.values.get(index).copied()
    }
}

impl Value for Counters {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"CNTR");
    const WORDS: usize = 1 + COUNTERS;

    fn encode(&self, words: &mut [u64]) {
        words[0] = u64::from(self.device.0);
        words[1..=COUNTERS].copy_from_slice(&self.values);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let device = u32::try_from(words[0]).map_err(|_| InvalidValue {
            word: 0,
            found: words[0],
            expected: "a device type",
        })?;
        let mut values = [0; COUNTERS];
        values.copy_from_slice(&words[1..=COUNTERS]);
        Ok(Self {
            device: DeviceId(device),
            values,
        })
    }
}

impl From<Totals> for Counters {
    fn from(totals: Totals) -> Self {
        let mut counters = Self::of(DeviceId(0));
        counters.values[..4].copy_from_slice(&[
            totals.guests,
            totals.guests_ever,
            totals.signals_sent,
            totals.signals_suppressed,
        ]);
        counters
    }
}

impl From<Counters> for Totals {
    fn from(Counters { values, .. }: Counters) -> Self {
        Self {
            guests: values[0],
            guests_ever: values[1],
            signals_sent: values[2],
            signals_suppressed: values[3],
        }
    }
}
