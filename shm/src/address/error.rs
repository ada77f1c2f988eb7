//! Why an address was refused.

use super::Access;

/// A range of addresses that a peer gave cannot be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The range has no bytes.
    #[error("the range at address {address:#x} has no bytes")]
    Empty {
        /// Where it starts.
        address: u64,
    },
    /// Nothing lies at a part of the range.
    #[error("{len} bytes at address {address:#x} do not lie in the address space")]
    Unmapped {
        /// Where the range starts.
        address: u64,
        /// How long it is, in bytes.
        len: u32,
    },
    /// Something lies there, but it may not be accessed so.
    #[error("{len} bytes at address {address:#x} may not be accessed: {access:?}")]
    Denied {
        /// Where the range starts.
        address: u64,
        /// How long it is, in bytes.
        len: u32,
        /// What was to be done with it.
        access: Access,
    },
    /// The range lies in pieces, and what was asked for needs it in one.
    #[error("of {len} bytes at address {address:#x} only the first {contiguous} are contiguous")]
    Fragmented {
        /// Where the range starts.
        address: u64,
        /// How long it is, in bytes.
        len: u32,
        /// How long its first piece is, in bytes.
        contiguous: u32,
    },
}
