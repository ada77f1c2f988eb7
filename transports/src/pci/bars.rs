//! Base address registers (PCI local bus specification 3.0, section 6.2.5.1).

use core::fmt;

use super::config_error::ConfigError;
use super::function::{BarIndex, Registers};
use super::header::header_type;

/// Where a BAR's registers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarSpace {
    /// Among the I/O ports.
    Io,
    /// In memory.
    Memory {
        /// Its address has 64 bits, and the BAR takes two registers.
        is_64_bit: bool,
        /// Reads there change nothing.
        is_prefetchable: bool,
    },
}

/// A BAR as configuration space describes it. Its size is not there: [`Function::bar`](super::Function::bar) knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which one; a 64-bit BAR's lower half.
    pub index: BarIndex,
    /// Where its registers lie.
    pub space: BarSpace,
    /// Its address; 0 as long as nobody has given it one.
    pub address: u64,
}

const FIRST_BAR: u64 = 0x10;
const IO: u32 = 1;
const PREFETCHABLE: u32 = 1 << 3;

impl Bar {
    /// The BARs of an endpoint. A register that is zero is taken for one that is not there.
    ///
    /// # Errors
    ///
    /// [`ConfigError::HeaderType`], [`ConfigError::BarType`], [`ConfigError::NoUpperHalf`], [`ConfigError::Access`].
    pub fn read_all<R: Registers>(config: &R) -> Result<Vec<Self>, ConfigError> {
        let found = header_type(config)?;
        if found != 0 {
            return Err(ConfigError::HeaderType { found });
        }
        let register = |index: BarIndex| config.read_u32(FIRST_BAR + 4 * u64::from(index.get()));
        let mut bars = Vec::new();
        let mut next = BarIndex::new(0);
        while let Some(bar) = next {
            next = BarIndex::new(bar.get() + 1);
            let low = register(bar)?;
            if low == 0 {
                continue;
            }
            if low & IO != 0 {
                bars.push(Self {
                    index: bar,
                    space: BarSpace::Io,
                    address: u64::from(low & !0b11),
                });
                continue;
            }
            let mut address = u64::from(low & !0xf);
            let is_64_bit = match (low >> 1) & 0b11 {
                0b00 => false,
                0b10 => true,
                found => {
                    let found = found as u8;
                    return Err(ConfigError::BarType { bar, found });
                }
            };
            if is_64_bit {
                let upper = next.ok_or(ConfigError::NoUpperHalf { bar })?;
                address |= u64::from(register(upper)?) << 32;
                next = BarIndex::new(upper.get() + 1);
            }
            bars.push(Self {
                index: bar,
                space: BarSpace::Memory {
                    is_64_bit,
                    is_prefetchable: low & PREFETCHABLE != 0,
                },
                address,
            });
        }
        Ok(bars)
    }
}

/// A piece of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The BAR.
    pub bar: BarIndex,
    /// Where the piece starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bar, offset, len } = self;
        write!(f, "{bar}, offset {offset:#x}, {len:#x} bytes")
    }
}

impl Place {
    /// Checks that it lies inside its BAR; `bar_len` tells how long that is, in bytes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoBar`], [`ConfigError::OutsideBar`].
    pub fn check(&self, what: &'static str, bar_len: Option<u64>) -> Result<(), ConfigError> {
        let Self { bar, offset, len } = *self;
        let bar_len = bar_len.ok_or(ConfigError::NoBar { what, bar })?;
        if offset.checked_add(len).is_none_or(|end| end > bar_len) {
            return Err(ConfigError::OutsideBar {
                what,
                bar,
                offset,
                len,
                bar_len,
            });
        }
        Ok(())
    }

    /// Whether some byte belongs to both; both have been checked to lie inside their BARs.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.bar == other.bar
            && self.offset < other.offset.saturating_add(other.len)
            && other.offset < self.offset.saturating_add(self.len)
    }
}
