//! A queue's state as a value: saved, carried elsewhere, restored.
//!
//! [`DeviceState`] and [`DriverState`] are bytes in a versioned layout (docs/abi.md) that were checked: they may come from
//! anybody, and each wrong field is refused by its name. What a state says of chains is checked once more against the
//! queue that is restored from it.

mod device;
mod driver;
mod layout;

pub use device::{ChainsInFlight, DeviceState, SavedChain};
pub(crate) use device::{DeviceStateWriter, SavedDevice, copies_descriptors};
pub use driver::{DriverState, LentChain, LentChains};
pub(crate) use driver::{DriverStateWriter, SavedDriver};
pub use layout::STATE_VERSION;

use crate::fault::SetupError;

/// Why a queue's state cannot be saved, or a queue not be restored from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The state is longer than the memory for it, or shorter than it says.
    #[error("{found} bytes for a state of {needed}")]
    Length {
        /// How many bytes there are.
        found: usize,
        /// How many bytes the state has.
        needed: usize,
    },
    /// A field of the state says what cannot be.
    #[error("{field} is {found:#x}; expected {expected}")]
    Field {
        /// The field's name, as in docs/abi.md.
        field: &'static str,
        /// What it says.
        found: u64,
        /// What it should say.
        expected: &'static str,
    },
    /// A field of one of the state's chains says what cannot be.
    #[error("chain {chain}: {field} is {found:#x}; expected {expected}")]
    Chain {
        /// Which chain, counted from 0 in the state's order.
        chain: u16,
        /// The field's name, as in docs/abi.md.
        field: &'static str,
        /// What it says.
        found: u64,
        /// What it should say.
        expected: &'static str,
    },
    /// There are chains that were placed or completed and not published: publish them first.
    #[error("chains were placed or completed and are not published")]
    Unpublished,
    /// Of a batch that the device returned in order, some chains were taken: take all of them first.
    #[error("a batch came back in order, and is not taken whole")]
    Untaken,
    /// The descriptors of a chain in flight were overwritten by used ones, and there is no record of them: complete the
    /// chain first, or keep a record.
    #[error("the descriptors of chain {id} are overwritten, and no record was kept")]
    Overwritten {
        /// The chain's id.
        id: u16,
    },
    /// What the caller has of a chain is missing.
    #[error("there is no cookie for chain {id}")]
    NoCookie {
        /// The chain's id.
        id: u16,
    },
    /// The queue itself cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
}
