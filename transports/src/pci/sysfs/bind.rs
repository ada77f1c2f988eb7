//! Giving functions to vfio-pci and back.
//!
//! A function's `driver_override` names the only driver that may have it; `drivers_probe` has the kernel look for one.
//! Without an override that is the function's usual driver again.

use std::path::PathBuf;

use super::{Listed, Sysfs, SysfsError};
use crate::pci::address::Address;

const VFIO: &str = "vfio-pci";

/// Drivers that do not keep the rest of their group from being passed on (Linux's `vfio_main.c` and `iommu.c`).
pub(crate) const HARMLESS: [&str; 3] = [VFIO, "pci-stub", "pcieport"];

/// A function that vfio-pci has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The function.
    pub address: Address,
    /// Its IOMMU group.
    pub group: u32,
    /// Who had it before.
    pub former: Option<String>,
}

impl Bound {
    /// What a program opens to use the group.
    pub fn node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/vfio/{}", self.group))
    }
}

impl Sysfs {
    /// Gives functions to vfio-pci: those that are there already stay. Everything is checked before the first one is
    /// touched.
    ///
    /// # Errors
    ///
    /// [`SysfsError`]. A function that vfio-pci does not take goes back to its driver.
    pub fn bind(&self, addresses: &[Address]) -> Result<Vec<Bound>, SysfsError> {
        let checked: Vec<_> = addresses
            .iter()
            .map(|address| self.check(*address, addresses))
            .collect::<Result<_, _>>()?;
        checked
            .into_iter()
            .map(|(function, group)| {
                let address = function.address;
                if function.driver.as_deref() != Some(VFIO) {
                    self.hand_over(&function)?;
                }
                Ok(Bound {
                    address,
                    group,
                    former: function.driver,
                })
            })
            .collect()
    }

    /// Takes a function from vfio-pci and lets the kernel look for its usual driver; says which one has it now.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NotBound`], [`SysfsError::NoFunction`], [`SysfsError::Permission`], [`SysfsError::System`].
    pub fn unbind(&self, address: Address) -> Result<Option<String>, SysfsError> {
        let function = self.function(address)?;
        if function.driver.as_deref() != Some(VFIO) {
            return Err(SysfsError::NotBound {
                address,
                driver: function.driver,
            });
        }
        self.set_override(address, "")?;
        self.take(address)?;
        self.probe(address)?;
        Ok(self.function(address)?.driver)
    }

    /// Whether a function can be bound together with `others`.
    fn check(&self, address: Address, others: &[Address]) -> Result<(Listed, u32), SysfsError> {
        let function = self.function(address)?;
        let group = function.group.ok_or(SysfsError::NoIommu { address })?;
        if !self.root.join("bus/pci/drivers").join(VFIO).exists() {
            return Err(SysfsError::NotLoaded);
        }
        let in_the_way: Vec<_> = self
            .group(group)?
            .into_iter()
            .filter(|member| !others.contains(&member.address))
            .filter_map(|member| {
                let driver = member.driver?;
                let harmful = !HARMLESS.contains(&driver.as_str());
                harmful.then(|| format!("{} ({driver})", member.address))
            })
            .collect();
        if !in_the_way.is_empty() {
            return Err(SysfsError::NotViable {
                address,
                group,
                others: in_the_way.join(", "),
            });
        }
        let mut interfaces = self.interfaces(address).into_iter();
        match interfaces.find(|(_, is_up)| *is_up) {
            Some((interface, _)) => Err(SysfsError::InUse { address, interface }),
            None => Ok((function, group)),
        }
    }

    fn hand_over(&self, function: &Listed) -> Result<(), SysfsError> {
        let address = function.address;
        self.set_override(address, VFIO)?;
        let bound = (|| {
            if function.driver.is_some() {
                self.take(address)?;
            }
            self.probe(address)?;
            match self.function(address)?.driver.as_deref() {
                Some(VFIO) => Ok(()),
                _ => Err(SysfsError::Refused { address }),
            }
        })();
        if bound.is_err() {
            // As it was, as far as that can still be had.
            let _ = self.set_override(address, "");
            let _ = self.probe(address);
        }
        bound
    }

    fn set_override(&self, address: Address, driver: &str) -> Result<(), SysfsError> {
        // An empty write is none: the line's end clears it.
        self.tell(
            self.directory(address).join("driver_override"),
            &format!("{driver}\n"),
        )
    }

    fn take(&self, address: Address) -> Result<(), SysfsError> {
        let unbind = self.directory(address).join("driver/unbind");
        self.tell(unbind, &address.to_string())
    }

    fn probe(&self, address: Address) -> Result<(), SysfsError> {
        let probe = self.root.join("bus/pci/drivers_probe");
        self.tell(probe, &address.to_string())
    }

    fn tell(&self, path: PathBuf, text: &str) -> Result<(), SysfsError> {
        (self.write)(&path, text).map_err(SysfsError::writing(&path))
    }
}
