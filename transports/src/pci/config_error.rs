//! What a configuration space can say wrong.

use super::error::AccessError;
use super::function::BarIndex;

/// A configuration space does not say what one must say.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read, or ends too early. The system shows 64 bytes of it to users without privileges.
    #[error("configuration space: {0}")]
    Access(#[from] AccessError),
    /// There is no function: reads give all ones.
    #[error("there is no function: its vendor reads as 0xffff")]
    NoFunction,
    /// The header is not that of an endpoint.
    #[error("a header of type 0 (an endpoint's) was expected, type {found} found")]
    HeaderType {
        /// The header's type.
        found: u8,
    },
    /// A BAR has a reserved type.
    #[error("{bar}: a memory BAR of 32 or 64 bits was expected, type {found} found")]
    BarType {
        /// The BAR.
        bar: BarIndex,
        /// Bits 1 and 2 of the register.
        found: u8,
    },
    /// The last BAR register says that it is the lower half of a BAR.
    #[error("{bar}: a 64-bit BAR needs a register more, and there is none")]
    NoUpperHalf {
        /// The BAR.
        bar: BarIndex,
    },
    /// The list of capabilities leads into the header.
    #[error(
        "the pointer at {at:#x} leads to {found:#x}: a capability at 0x40 or above was expected"
    )]
    CapabilityPointer {
        /// Where the pointer is, in bytes.
        at: u8,
        /// Where it leads, in bytes.
        found: u8,
    },
    /// The list of capabilities leads back to where it was.
    #[error("the pointer at {at:#x} leads back to the capability at {found:#x}")]
    CapabilityLoop {
        /// Where the pointer is, in bytes.
        at: u8,
        /// Where it leads, in bytes.
        found: u8,
    },
    /// A capability is shorter than its kind needs, or not of whole words where it must be.
    #[error("the capability at {at:#x}: {expected} bytes were expected, {found} found")]
    CapabilityLength {
        /// Where the capability is, in bytes.
        at: u8,
        /// How many bytes it needs at least.
        expected: u8,
        /// How many it says it has.
        found: u8,
    },
    /// A capability ends behind the first 256 bytes, where capabilities are.
    #[error("the capability at {at:#x}, of {found} bytes, does not end before 0x100")]
    CapabilityEnd {
        /// Where the capability is, in bytes.
        at: u8,
        /// How many bytes it says it has.
        found: u8,
    },
    /// A capability names a BAR that cannot be.
    #[error("the capability at {at:#x}: BAR 0 to 5 was expected, {found} found")]
    CapabilityBar {
        /// Where the capability is, in bytes.
        at: u8,
        /// What it names.
        found: u8,
    },
    /// A capability names a BAR that the function does not have.
    #[error("the {what} lies in {bar}, which the function does not have")]
    NoBar {
        /// What lies there.
        what: &'static str,
        /// The BAR.
        bar: BarIndex,
    },
    /// What a capability describes does not lie inside its BAR.
    #[error(
        "the {what}: {len:#x} bytes at offset {offset:#x} do not lie inside {bar}, which has {bar_len:#x}"
    )]
    OutsideBar {
        /// What does not.
        what: &'static str,
        /// The BAR.
        bar: BarIndex,
        /// Where it starts, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
        /// How long the BAR is, in bytes.
        bar_len: u64,
    },
}
