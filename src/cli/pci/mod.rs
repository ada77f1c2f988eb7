//! `shmbus pci`: PCI functions, what they are, and who drives them.

mod capabilities;
mod ivshmem;
mod show;
mod virtio;

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::{Args, Subcommand};
use shmbus::transports::pci::virtio::device_id;
use shmbus::transports::pci::{Address, Identity, Listed, Sysfs};

use super::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct PciArgs {
    #[command(subcommand)]
    action: PciAction,
}

#[derive(Debug, Subcommand)]
enum PciAction {
    /// List all functions: address, ids, class, IOMMU group, driver, and what they are, if the bus has a use for it.
    List,
    /// Give functions to vfio-pci, for programs that drive them from user space.
    Bind {
        /// The functions, such as 0000:00:03.0; all of an IOMMU group at once.
        #[arg(value_name = "ADDRESS", required = true)]
        functions: Vec<Address>,
    },
    /// Take functions from vfio-pci, and have the kernel find their usual drivers.
    Unbind {
        /// The functions.
        #[arg(value_name = "ADDRESS", required = true)]
        functions: Vec<Address>,
    },
    /// Show what a function offers: capabilities, BARs, interrupts. Unless a driver of the kernel's has it, a virtio
    /// device is also asked for its features, queues and configuration, and reset for that; an ivshmem function is
    /// looked through for a bus.
    Show {
        /// The function.
        #[arg(value_name = "ADDRESS")]
        function: Address,
    },
}

pub(super) fn run(args: &PciArgs) -> Result<(), CliError> {
    let sysfs = Sysfs::default();
    let text = match &args.action {
        PciAction::List => list(&sysfs.functions()?),
        PciAction::Bind { functions } => {
            let mut text = String::new();
            for bound in sysfs.bind(functions)? {
                let former = bound.former.as_deref().unwrap_or("no driver");
                line(
                    &mut text,
                    format_args!(
                        "{}: from {former} to vfio-pci, in {}",
                        bound.address,
                        bound.node().display()
                    ),
                );
            }
            text
        }
        PciAction::Unbind { functions } => {
            let mut text = String::new();
            for function in functions {
                let driver = sysfs.unbind(*function)?;
                let driver = driver.as_deref().unwrap_or("no driver");
                line(
                    &mut text,
                    format_args!("{function}: from vfio-pci to {driver}"),
                );
            }
            text
        }
        PciAction::Show { function } => show::text(&sysfs, *function)?,
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

fn list(functions: &[Listed]) -> String {
    let mut text = String::from("address       ids        class   group  driver           what\n");
    for function in functions {
        let group = function
            .group
            .map_or("-".to_owned(), |group| group.to_string());
        let row = format!(
            "{:<12}  {}  {}  {group:>5}  {:<15}  {}",
            function.address.to_string(),
            function.identity,
            function.class,
            function.driver.as_deref().unwrap_or("-"),
            what(function.identity).unwrap_or_default()
        );
        line(&mut text, format_args!("{}", row.trim_end()));
    }
    text
}

/// What a function is, if it is something that a bus may be behind, or that the bus drives.
fn what(identity: Identity) -> Option<String> {
    if identity == Identity::IVSHMEM {
        return Some("shared memory (ivshmem)".to_owned());
    }
    let id = device_id(identity).ok()?;
    Some(match id.virtio_name() {
        Some(name) => format!("virtio {name}"),
        None => format!("virtio device of type {}", id.0),
    })
}

/// Adds a line: a string cannot refuse one.
fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_stand_in_columns() {
        let function = |address: &str, device, driver: Option<&str>, group| Listed {
            address: address.parse().unwrap(),
            identity: Identity {
                vendor: 0x1af4,
                device,
            },
            class: shmbus::transports::pci::Class {
                base: 2,
                sub: 0,
                interface: 0,
            },
            driver: driver.map(str::to_owned),
            group,
        };
        let functions = [
            function("0000:00:03.0", 0x1041, Some("vfio-pci"), Some(7)),
            function("10000:00:04.0", 0x1110, None, None),
            function("0000:00:05.0", 0x107f, None, Some(12)),
            function("0000:00:06.0", 0x2000, Some("e1000e"), None),
        ];
        assert_eq!(
            list(&functions),
            "address       ids        class   group  driver           what\n\
             0000:00:03.0  1af4:1041  020000      7  vfio-pci         virtio network card\n\
             10000:00:04.0  1af4:1110  020000      -  -                shared memory (ivshmem)\n\
             0000:00:05.0  1af4:107f  020000     12  -                virtio device of type 63\n\
             0000:00:06.0  1af4:2000  020000      -  e1000e\n"
        );
    }
}
