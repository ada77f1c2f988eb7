//! What can go wrong for a guest's driver.

use shmbus_table::Epoch;

use super::driver::MOST_ROUNDS;
use crate::lane::{InletError, LaneError, OutletError};

/// The device broke the rules. The driver reports it until it is moved to other lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntcFault {
    /// What is on the lines could not be read.
    #[error("the lines: {0}")]
    Wires(#[from] InletError),
    /// What was kept back for room could not be sent.
    #[error("what the host is told: {0}")]
    Unsent(#[from] OutletError),
    /// The host goes on and on about lines of which nothing is to be delivered.
    #[error("the host keeps on telling of lines: {MOST_ROUNDS} rounds did not take it all in")]
    Flood,
    /// The host has set up its table anew, and the driver was not moved.
    #[error("line {line} is of life {found} of the host's, after life {expected}")]
    BegunAnew {
        /// Which line.
        line: u32,
        /// The epoch of what was read before.
        expected: Epoch,
        /// That of what was read now.
        found: Epoch,
    },
    /// The number of a line's last edge went back.
    #[error("line {line} had {expected} edges, and now has {found}")]
    EdgesTakenBack {
        /// Which line.
        line: u32,
        /// The number of the last edge seen, at least.
        expected: u64,
        /// The number found.
        found: u64,
    },
}

/// A call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntcError {
    /// The device broke the rules.
    #[error(transparent)]
    Fault(#[from] IntcFault),
    /// There is no such line, or the host cannot be told of it. After [`OutletError::Full`], which only a ring of which
    /// every element counts gives, [`poll`](super::IntcDriver::poll), signal what that says, wait for the host, and try again.
    #[error(transparent)]
    Outlet(#[from] OutletError),
    /// A line was ended that is not in service, or not the one that was delivered last.
    #[error(
        "line {line} is not the one in service that was delivered last, which is {innermost:?}"
    )]
    NotInnermost {
        /// The line that should have been ended.
        line: u32,
        /// The one that is to be ended first, if there is any.
        innermost: Option<u32>,
    },
}

/// A driver cannot go on elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntcMoveError {
    /// The lanes are not what they must be.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The host cannot be told of a line.
    #[error(transparent)]
    Tell(#[from] OutletError),
}
