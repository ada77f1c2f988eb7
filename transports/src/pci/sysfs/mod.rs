//! What Linux tells of PCI functions, and how it is told who drives them: its files below `/sys/bus/pci`.

mod bind;
mod config;
mod error;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::address::{Address, Identity};
use super::function::BarIndex;
use super::header::Class;

pub use bind::Bound;
#[cfg(feature = "vfio")]
pub(crate) use bind::HARMLESS;
pub use config::ConfigSnapshot;
pub use error::SysfsError;

/// Writes one of the kernel's files.
type Write = dyn Fn(&Path, &str) -> io::Result<()> + Send + Sync;

/// A Linux system's PCI functions.
pub struct Sysfs {
    root: PathBuf,
    write: Box<Write>,
}

/// A function, by what Linux tells of it to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub identity: Identity,
    /// What kind of device it is.
    pub class: Class,
    /// Who drives it.
    pub driver: Option<String>,
    /// Its IOMMU group; `None` where no IOMMU is in use.
    pub group: Option<u32>,
}

impl Listed {
    /// Whether it leads to other functions.
    pub fn is_bridge(&self) -> bool {
        self.class.base == 6
    }
}

impl Default for Sysfs {
    /// This machine's.
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// Another one than `/sys`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            write: Box::new(|path, text| fs::write(path, text)),
        }
    }

    /// All functions, by address.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoPci`], [`SysfsError::System`], [`SysfsError::Malformed`].
    pub fn functions(&self) -> Result<Vec<Listed>, SysfsError> {
        let directory = self.root.join("bus/pci/devices");
        let mut functions = Vec::new();
        for name in names(&directory).map_err(|source| SysfsError::NoPci { directory, source })? {
            // Nothing else is there.
            if let Ok(address) = name.parse() {
                functions.push(self.function(address)?);
            }
        }
        functions.sort_by_key(|function| function.address);
        Ok(functions)
    }

    /// One function.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoFunction`], [`SysfsError::System`], [`SysfsError::Malformed`].
    pub fn function(&self, address: Address) -> Result<Listed, SysfsError> {
        let directory = self.directory(address);
        if !directory.exists() {
            return Err(SysfsError::NoFunction { address });
        }
        let class = number(&directory.join("class"))?;
        let [_, base, sub, interface] = class.to_be_bytes();
        Ok(Listed {
            address,
            identity: Identity {
                vendor: number(&directory.join("vendor"))? as u16,
                device: number(&directory.join("device"))? as u16,
            },
            class: Class {
                base,
                sub,
                interface,
            },
            driver: link_name(&directory.join("driver")),
            group: link_name(&directory.join("iommu_group")).and_then(|name| name.parse().ok()),
        })
    }

    /// The functions of an IOMMU group, which can be passed on only together.
    ///
    /// # Errors
    ///
    /// As for [`Sysfs::functions`].
    pub fn group(&self, group: u32) -> Result<Vec<Listed>, SysfsError> {
        let mut functions = self.functions()?;
        functions.retain(|function| function.group == Some(group));
        Ok(functions)
    }

    /// The configuration space as it is now: all of it to root, to others only the header's 64 bytes.
    ///
    /// # Errors
    ///
    /// [`SysfsError::System`].
    pub fn config(&self, address: Address) -> Result<ConfigSnapshot, SysfsError> {
        let path = self.directory(address).join("config");
        let bytes = fs::read(&path).map_err(SysfsError::reading(&path))?;
        Ok(ConfigSnapshot::new(bytes))
    }

    /// How long each BAR is, in bytes, as far as the function has it.
    ///
    /// # Errors
    ///
    /// [`SysfsError::System`], [`SysfsError::Malformed`].
    pub fn bar_lengths(&self, address: Address) -> Result<Vec<(BarIndex, u64)>, SysfsError> {
        let path = self.directory(address).join("resource");
        let text = fs::read_to_string(&path).map_err(SysfsError::reading(&path))?;
        let mut lengths = Vec::new();
        for (index, line) in (0..BarIndex::COUNT).zip(text.lines()) {
            let malformed = || SysfsError::Malformed {
                path: path.clone(),
                found: line.to_owned(),
            };
            let mut numbers = line.split_ascii_whitespace().map(hexadecimal);
            let (Some(Some(first)), Some(Some(last))) = (numbers.next(), numbers.next()) else {
                return Err(malformed());
            };
            if (first, last) == (0, 0) {
                continue; // no such BAR, or the upper half of one
            }
            let length = last
                .checked_sub(first)
                .and_then(|length| length.checked_add(1));
            if let Some(bar) = BarIndex::new(index) {
                lengths.push((bar, length.ok_or_else(malformed)?));
            }
        }
        Ok(lengths)
    }

    /// The network interfaces that the function's driver has made of it, and whether each is up.
    fn interfaces(&self, address: Address) -> Vec<(String, bool)> {
        const UP: u64 = 1;
        let directory = self.directory(address);
        // A virtio driver's are one level further down.
        let virtio = names(&directory).unwrap_or_default().into_iter();
        let virtio = virtio.filter(|name| name.starts_with("virtio"));
        virtio
            .map(|name| directory.join(name))
            .chain([directory.clone()])
            .map(|directory| directory.join("net"))
            .flat_map(|net| {
                let names = names(&net).unwrap_or_default().into_iter();
                names.map(move |name| {
                    let flags = number_64(&net.join(&name).join("flags")).unwrap_or(0);
                    (name, flags & UP != 0)
                })
            })
            .collect()
    }

    fn directory(&self, address: Address) -> PathBuf {
        self.root.join("bus/pci/devices").join(address.to_string())
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn number_64(path: &Path) -> Result<u64, SysfsError> {
    let text = fs::read_to_string(path).map_err(SysfsError::reading(path))?;
    hexadecimal(text.trim()).ok_or_else(|| SysfsError::Malformed {
        path: path.to_owned(),
        found: text.trim().to_owned(),
    })
}

fn number(path: &Path) -> Result<u32, SysfsError> {
    let number = number_64(path)?;
    u32::try_from(number).map_err(|_| SysfsError::Malformed {
        path: path.to_owned(),
        found: format!("{number:#x}"),
    })
}

/// The last part of what a link points to.
pub(crate) fn link_name(link: &Path) -> Option<String> {
    let target = link.read_link().ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
#[cfg(not(miri))] // it has no links
mod tests;
