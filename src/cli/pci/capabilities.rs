//! Capabilities in words.

use shmbus::transports::pci::virtio::VirtioCapability;
use shmbus::transports::pci::{Capability, ConfigError, Msix, Registers};

/// What a kind is called (PCI code and ID assignment specification 1.11, section 2).
fn name(id: u8) -> Option<&'static str> {
    Some(match id {
        0x01 => "power management",
        0x03 => "vital product data",
        0x04 => "slot identification",
        0x05 => "MSI",
        0x07 => "PCI-X",
        0x08 => "HyperTransport",
        Capability::VENDOR => "vendor-specific",
        0x0a => "debug port",
        0x0d => "bridge subsystem",
        0x10 => "PCI Express",
        Capability::MSIX => "MSI-X",
        0x12 => "SATA configuration",
        0x13 => "advanced features",
        0x14 => "enhanced allocation",
        _ => return None,
    })
}

/// A capability, and what it says as far as it is of interest to drivers from user space.
pub(super) fn describe<R: Registers>(
    config: &R,
    capability: Capability,
    is_virtio: bool,
) -> Result<String, ConfigError> {
    let one = [capability];
    Ok(match capability.id {
        Capability::MSIX => match Msix::read(config, &one)? {
            Some(msix) => format!(
                "MSI-X: {} vectors; table in {}; pending bits in {}",
                msix.vectors, msix.table, msix.pending
            ),
            None => "MSI-X".to_owned(),
        },
        Capability::VENDOR if is_virtio => {
            match VirtioCapability::read_all(config, &one)?.first() {
                Some(capability) => virtio(capability),
                None => "virtio: of a reserved type, or in no BAR".to_owned(),
            }
        }
        id => name(id).map_or_else(|| format!("of kind {id:#04x}"), str::to_owned),
    })
}

fn virtio(capability: &VirtioCapability) -> String {
    match capability {
        VirtioCapability::Structure {
            kind,
            place,
            multiplier: 0,
        } => format!("virtio {kind} in {place}"),
        VirtioCapability::Structure {
            kind,
            place,
            multiplier,
        } => format!("virtio {kind} in {place}, {multiplier:#x} bytes for each"),
        VirtioCapability::SharedMemory { id, place } => {
            format!("virtio shared memory {id} in {place}")
        }
        VirtioCapability::ConfigAccess => "virtio access to BARs".to_owned(),
        VirtioCapability::Vendor { vendor, data } => {
            format!("virtio data of vendor {vendor:04x}: {} bytes", data.len())
        }
    }
}
