//! What `--socket` or `--pci` leads to.

use std::fs::read_link;
use std::path::Path;
use std::time::{Duration, Instant};

use shmbus::transports::pci::{Address, Identity, ResourceFunction};
use shmbus::transports::vfio::Container;
use shmbus::{Guest, GuestError};

use crate::cli::args;
use crate::cli::error::CliError;

/// Where a guest goes, and over what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// A bus on this machine.
    Socket(&'a Path),
    /// A bus behind an ivshmem function of this virtual machine.
    Ivshmem(Address),
}

/// How long the host behind a function may take to answer. It takes a guest in more often than once a second only so many
/// times.
const ANSWER: Duration = Duration::from_secs(5);

impl<'a> Place<'a> {
    /// Looks at what is there.
    pub(super) fn find(place: &'a args::Place) -> Result<Self, CliError> {
        match (&place.socket, place.pci) {
            (Some(path), _) => Ok(Self::Socket(path)),
            (None, Some(address)) => {
                let found = Identity::read(address)
                    .map_err(|error| CliError::NoFunction { address, error })?;
                match found {
                    Identity::IVSHMEM => Ok(Self::Ivshmem(address)),
                    found => Err(CliError::NoBusBehind { address, found }),
                }
            }
            // The command line has one or the other.
            (None, None) => Err(CliError::NoPlace),
        }
    }
}

/// Attaches to the bus behind the ivshmem function at `address`. A host that is busy is asked again until `until`.
pub(super) fn attach(address: Address, name: &str, until: Instant) -> Result<Guest, CliError> {
    loop {
        match attach_once(address, name) {
            Err(CliError::Guest(GuestError::Attach(error)))
                if error.is_temporary() && Instant::now() < until =>
            {
                tracing::info!(%error, "trying again");
            }
            outcome => return outcome,
        }
    }
}

/// By VFIO where the function is given to it; where no driver has the function, by its files.
fn attach_once(address: Address, name: &str) -> Result<Guest, CliError> {
    let driver = read_link(address.directory().join("driver")).ok();
    match driver.as_deref().and_then(Path::file_name) {
        Some(driver) if driver == "vfio-pci" => {
            let function = Container::new()?.open(address)?;
            Ok(Guest::attach(function, name, ANSWER)?)
        }
        Some(driver) => Err(CliError::OtherDriver {
            address,
            driver: driver.to_string_lossy().into_owned(),
        }),
        None => {
            tracing::info!(
                %address,
                "not given to VFIO, so without interrupts: the host is polled every millisecond"
            );
            let function = ResourceFunction::open(address).map_err(CliError::Function)?;
            Ok(Guest::attach(function, name, ANSWER)?)
        }
    }
}
