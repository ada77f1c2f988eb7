//! The MSI-X capability (PCI local bus specification 3.0, section 6.8.2).

use super::bars::Place;
use super::capability::Capability;
use super::config_error::ConfigError;
use super::function::{BarIndex, Registers};

/// Where a function's vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// How many vectors there are: 1 to 2,048.
    pub vectors: u16,
    /// The table of them.
    pub table: Place,
    /// The bits that say which are pending.
    pub pending: Place,
}

const CONTROL: u8 = 2;
const TABLE: u8 = 4;
const PENDING: u8 = 8;
const BYTES: u8 = 12;
/// Of the control word: how many vectors there are, less one.
const LAST_VECTOR: u16 = 0x7ff;
const ENTRY_BYTES: u64 = 16;

impl Msix {
    /// The function's capability; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`ConfigError::CapabilityEnd`], [`ConfigError::CapabilityBar`], [`ConfigError::Access`].
    pub fn read<R: Registers>(
        config: &R,
        capabilities: &[Capability],
    ) -> Result<Option<Self>, ConfigError> {
        let Some(&Capability { at, .. }) = capabilities
            .iter()
            .find(|capability| capability.id == Capability::MSIX)
        else {
            return Ok(None);
        };
        if u16::from(at) + u16::from(BYTES) > 0x100 {
            return Err(ConfigError::CapabilityEnd { at, found: BYTES });
        }
        let vectors = (config.read_u16(u64::from(at + CONTROL))? & LAST_VECTOR) + 1;
        let place = |register: u8, len: u64| {
            let word = config.read_u32(u64::from(at + register))?;
            let found = (word & 0b111) as u8;
            Ok::<_, ConfigError>(Place {
                bar: BarIndex::new(found).ok_or(ConfigError::CapabilityBar { at, found })?,
                offset: u64::from(word & !0b111),
                len,
            })
        };
        let table = place(TABLE, u64::from(vectors) * ENTRY_BYTES)?;
        let pending = place(PENDING, u64::from(vectors).div_ceil(64) * 8)?;
        Ok(Some(Self {
            vectors,
            table,
            pending,
        }))
    }

    /// Checks that table and pending bits lie inside their BARs; `bar_len` tells how long a BAR is, in bytes, and
    /// `None` for one that is not there.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoBar`], [`ConfigError::OutsideBar`].
    pub fn check(
        &self,
        mut bar_len: impl FnMut(BarIndex) -> Option<u64>,
    ) -> Result<(), ConfigError> {
        self.table.check("MSI-X table", bar_len(self.table.bar))?;
        self.pending
            .check("MSI-X pending bits", bar_len(self.pending.bar))
    }
}
