//! Where a function is, and what it is.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

/// A function's place: domain, bus, device and function, as `lspci -D` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    domain: u32,
    bus: u8,
    /// Device in the upper five bits, function in the lower three.
    devfn: u8,
}

/// No function can be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the address of a PCI function, such as 0000:00:03.0 or 00:03.0, found {found:?}")]
pub struct AddressError {
    found: String,
}

impl Address {
    /// Its directory in sysfs.
    pub fn directory(self) -> PathBuf {
        PathBuf::from(format!("/sys/bus/pci/devices/{self}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, function) = (self.devfn >> 3, self.devfn & 7);
        let Self { domain, bus, .. } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).ok_or_else(|| AddressError {
            found: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<Address> {
    let (place, function) = text.rsplit_once('.')?;
    let (place, device) = place.rsplit_once(':')?;
    // Domains other than 0 have up to eight digits, and are mostly left out.
    let (domain, bus) = place.split_once(':').unwrap_or(("0", place));
    let device = digits(device, 2).filter(|device| *device < 32)?;
    let function = digits(function, 1).filter(|function| *function < 8)?;
    Some(Address {
        domain: digits(domain, 8)?,
        bus: digits(bus, 2)? as u8,
        devfn: (device << 3 | function) as u8,
    })
}

/// A number of one to `most` hexadecimal digits, and nothing else: no sign.
fn digits(text: &str, most: usize) -> Option<u32> {
    let is_number = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_number.then(|| u32::from_str_radix(text, 16).ok())?
}

/// What a function says it is: the first four bytes of its configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Who made it.
    pub vendor: u16,
    /// Which of that vendor's.
    pub device: u16,
}

impl Identity {
    /// QEMU's shared memory with doorbells.
    pub const IVSHMEM: Self = Self {
        vendor: 0x1af4,
        device: 0x1110,
    };

    /// virtio's network card, without a legacy interface.
    pub const VIRTIO_NET: Self = Self {
        vendor: 0x1af4,
        device: 0x1041,
    };

    /// What Linux read of the function at `address`. No driver is needed for that.
    ///
    /// # Errors
    ///
    /// Of `read(2)`: above all [`io::ErrorKind::NotFound`] where no function is.
    pub fn read(address: Address) -> io::Result<Self> {
        let number = |name| -> io::Result<u16> {
            let text = std::fs::read_to_string(address.directory().join(name))?;
            let digits = text.trim().trim_start_matches("0x");
            u16::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData.into())
        };
        Ok(Self {
            vendor: number("vendor")?,
            device: number("device")?,
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written_and_nothing_else_is_one() {
        for (text, whole) in [
            ("0000:00:03.0", "0000:00:03.0"),
            ("00:1f.7", "0000:00:1f.7"),
            ("10000:E1:00.1", "10000:e1:00.1"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), whole);
            assert!(address.directory().ends_with(whole));
        }
        for text in [
            "",
            "03.0",
            "00:03",
            "00:20.0",
            "00:03.8",
            "00:+3.0",
            "100:03.0",
            "0:0:0:0.0",
            "../../00:03.0",
            "00:03.0 ",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
