//! What `--socket` or `--pci` leads to.

use std::path::Path;

use shmbus::transports::pci::Identity;

use crate::cli::args;
use crate::cli::error::CliError;

/// Where a guest goes, and over what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// A bus on this machine.
    Socket(&'a Path),
}

impl<'a> Place<'a> {
    /// Looks at what is there.
    pub(super) fn find(place: &'a args::Place) -> Result<Self, CliError> {
        match (&place.socket, place.pci) {
            (Some(path), _) => Ok(Self::Socket(path)),
            (None, Some(address)) => {
                let found = Identity::read(address)
                    .map_err(|error| CliError::NoFunction { address, error })?;
                Err(CliError::NoBusBehind { address, found })
            }
            // The command line has one or the other.
            (None, None) => Err(CliError::NoPlace),
        }
    }
}
