//! `shmbus pci show`: one function, decoded.

use shmbus::transports::pci::virtio::device_id;
use shmbus::transports::pci::{
    Address, Bar, BarSpace, Capability, ConfigError, ConfigSnapshot, Function, Header, Identity,
    Listed, Registers, ResourceFunction, Sysfs,
};
use shmbus::transports::vfio::Container;

use super::{capabilities, ivshmem, line, virtio, what};
use crate::cli::CliError;

/// What everybody may read of a configuration space.
const HEADER_BYTES: u64 = 64;

pub(super) fn text(sysfs: &Sysfs, address: Address) -> Result<String, CliError> {
    let function = sysfs.function(address)?;
    let config = sysfs.config(address)?;
    let lengths = sysfs.bar_lengths(address)?;
    let length = |bar: &Bar| {
        let found = lengths.iter().find(|(index, _)| *index == bar.index);
        found.map_or(0, |(_, length)| *length)
    };
    let mut text = String::new();
    head(&mut text, sysfs, &function, &config)?;
    // A function may say what it likes: the rest is shown all the same.
    match Bar::read_all(&config) {
        Ok(bars) => {
            for bar in &bars {
                line(&mut text, format_args!("  {}", describe(bar, length(bar))));
            }
        }
        Err(ConfigError::HeaderType { found: 1 }) => {
            line(&mut text, format_args!("  a bridge to other functions"));
        }
        Err(error) => line(&mut text, format_args!("  BARs: {error}")),
    }
    let is_virtio = device_id(function.identity).is_ok();
    if config.len() <= HEADER_BYTES {
        line(
            &mut text,
            format_args!("  capabilities are shown to root only"),
        );
        return Ok(text);
    }
    match Capability::read_all(&config) {
        Ok(capabilities) => {
            for capability in capabilities {
                let at = capability.at;
                let described = capabilities::describe(&config, capability, is_virtio)
                    .unwrap_or_else(|error| error.to_string());
                line(
                    &mut text,
                    format_args!("  capability {at:#04x}: {described}"),
                );
            }
        }
        Err(error) => line(&mut text, format_args!("  capabilities: {error}")),
    }
    if is_virtio || function.identity == Identity::IVSHMEM {
        device(&mut text, &function);
    }
    Ok(text)
}

fn head(
    text: &mut String,
    sysfs: &Sysfs,
    function: &Listed,
    config: &ConfigSnapshot,
) -> Result<(), CliError> {
    let Listed {
        address, identity, ..
    } = function;
    let what = what(*identity).unwrap_or_else(|| "a function".to_owned());
    line(text, format_args!("{address}: {what}, {identity}"));
    match Header::read(config) {
        Ok(header) => line(
            text,
            format_args!(
                "  class {}, revision {}, subsystem {:04x}:{:04x}",
                header.class, header.revision, header.subsystem_vendor, header.subsystem
            ),
        ),
        Err(error) => line(text, format_args!("  header: {error}")),
    }
    let driver = function.driver.as_deref().unwrap_or("none");
    line(text, format_args!("  driver: {driver}"));
    let Some(group) = function.group else {
        line(text, format_args!("  IOMMU group: none"));
        return Ok(());
    };
    let mut others = sysfs.group(group)?;
    others.retain(|other| other.address != *address);
    let others: Vec<_> = others
        .iter()
        .map(|other| {
            let driver = other.driver.as_deref().unwrap_or("no driver");
            format!("{} ({driver})", other.address)
        })
        .collect();
    if others.is_empty() {
        line(text, format_args!("  IOMMU group: {group}, alone"));
    } else {
        let others = others.join(", ");
        line(text, format_args!("  IOMMU group: {group}, with {others}"));
    }
    Ok(())
}

fn describe(bar: &Bar, length: u64) -> String {
    let Bar { index, address, .. } = bar;
    match bar.space {
        BarSpace::Io => format!("{index}: {length:#x} bytes of I/O ports at {address:#x}"),
        BarSpace::Memory {
            is_64_bit,
            is_prefetchable,
        } => {
            let bits = if is_64_bit { 64 } else { 32 };
            let prefetchable = if is_prefetchable {
                ", prefetchable"
            } else {
                ""
            };
            format!(
                "{index}: {length:#x} bytes of memory at {address:#x} ({bits} bits{prefetchable})"
            )
        }
    }
}

/// Asks the device, by whatever way is open.
fn device(text: &mut String, function: &Listed) {
    let (address, identity) = (function.address, function.identity);
    let asked = match function.driver.as_deref() {
        None => ResourceFunction::open(address)
            .map_err(|error| error.to_string())
            .and_then(|function| ask(function, identity)),
        Some("vfio-pci") => Container::new()
            .and_then(|container| container.open(address))
            .map_err(|error| error.to_string())
            .and_then(|function| ask(function, identity)),
        Some(driver) => Err(format!("{driver} has it")),
    };
    match asked {
        Ok(description) => text.push_str(&description),
        Err(why) => line(text, format_args!("  the device is not asked: {why}")),
    }
}

fn ask<F: Function>(function: F, identity: Identity) -> Result<String, String> {
    if identity == Identity::IVSHMEM {
        ivshmem::describe(&function).map_err(|error| error.to_string())
    } else {
        virtio::describe(function).map_err(|error| error.to_string())
    }
}
