//! What Linux tells of a function without opening it.

use std::io;
use std::path::{Path, PathBuf};

use crate::pci::Address;
use crate::pci::sysfs::{HARMLESS, link_name};

use super::error::OpenError;

/// A function that is ready to be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its directory in sysfs.
    pub(super) directory: PathBuf,
    /// Its IOMMU group.
    pub(super) group: u32,
}

/// Looks whether a function can be opened; `root` is `/sys`.
pub(super) fn find(root: &Path, address: Address) -> Result<Place, OpenError> {
    let directory = root.join("bus/pci/devices").join(address.to_string());
    if !directory.exists() {
        return Err(OpenError::NoFunction { address });
    }
    let group = link_name(&directory.join("iommu_group"))
        .and_then(|name| name.parse().ok())
        .ok_or(OpenError::NoIommu { address })?;
    let driver = link_name(&directory.join("driver"));
    if driver.as_deref() != Some("vfio-pci") {
        return Err(OpenError::NotBound { address, driver });
    }
    let others =
        in_the_way(&directory.join("iommu_group/devices")).map_err(|source| OpenError::System {
            doing: "list a function's IOMMU group",
            source,
        })?;
    if !others.is_empty() {
        return Err(OpenError::NotViable {
            address,
            group,
            others: others.join(", "),
        });
    }
    Ok(Place { directory, group })
}

/// The devices of a group whose drivers keep it from being used, each with its driver.
fn in_the_way(devices: &Path) -> io::Result<Vec<String>> {
    let mut others = Vec::new();
    for device in devices.read_dir()? {
        let device = device?;
        let driver = link_name(&device.path().join("driver"));
        if let Some(driver) = driver.filter(|driver| !HARMLESS.contains(&driver.as_str())) {
            others.push(format!("{} ({driver})", device.file_name().display()));
        }
    }
    others.sort();
    Ok(others)
}

#[cfg(test)]
#[cfg(not(miri))] // it has no links
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A made-up `/sys`, of functions with their groups and drivers.
    fn sysfs(functions: &[(&str, Option<u32>, Option<&str>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let make = |path: PathBuf| {
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        for (address, group, driver) in functions {
            let device = make(root.path().join("bus/pci/devices").join(address));
            if let Some(driver) = driver {
                symlink(
                    root.path().join("bus/pci/drivers").join(driver),
                    device.join("driver"),
                )
                .unwrap();
            }
            if let Some(group) = group {
                let group = root
                    .path()
                    .join("kernel/iommu_groups")
                    .join(group.to_string());
                let members = make(group.join("devices"));
                symlink(&device, members.join(address)).unwrap();
                symlink(&group, device.join("iommu_group")).unwrap();
            }
        }
        root
    }

    fn refusal(root: &tempfile::TempDir) -> String {
        find(root.path(), "0000:00:03.0".parse().unwrap())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_function_that_is_bound_and_alone_is_found() {
        let root = sysfs(&[
            ("0000:00:03.0", Some(7), Some("vfio-pci")),
            ("0000:00:03.1", Some(7), None),
            ("0000:00:02.0", Some(7), Some("pcieport")),
            ("0000:00:04.0", Some(8), Some("e1000e")),
        ]);
        let place = find(root.path(), "0000:00:03.0".parse().unwrap()).unwrap();
        assert_eq!(place.group, 7);
        assert!(place.directory.ends_with("bus/pci/devices/0000:00:03.0"));
    }

    #[test]
    fn what_keeps_a_function_from_being_opened_is_told() {
        assert_eq!(
            refusal(&sysfs(&[])),
            "there is no PCI function 0000:00:03.0 (`lspci -D` lists them)"
        );
        assert_eq!(
            refusal(&sysfs(&[("0000:00:03.0", Some(1), Some("e1000e"))])),
            "0000:00:03.0 is bound to e1000e, not to vfio-pci (`shmbus pci bind 0000:00:03.0`)"
        );
        assert_eq!(
            refusal(&sysfs(&[("0000:00:03.0", Some(1), None)])),
            "0000:00:03.0 is bound to no driver, not to vfio-pci (`shmbus pci bind 0000:00:03.0`)"
        );
        assert_eq!(
            refusal(&sysfs(&[("0000:00:03.0", None, None)])),
            "0000:00:03.0 is in no IOMMU group: switch the IOMMU on in the firmware and by the kernel's command line \
             (`intel_iommu=on`; in a virtual machine, give it one)"
        );
        let crowded = [
            ("0000:00:03.0", Some(1), Some("vfio-pci")),
            ("0000:00:03.2", Some(1), Some("snd_hda_intel")),
            ("0000:00:03.1", Some(1), Some("e1000e")),
        ];
        assert_eq!(
            refusal(&sysfs(&crowded)),
            "0000:00:03.0 cannot be used alone: in IOMMU group 1, 0000:00:03.1 (e1000e), 0000:00:03.2 (snd_hda_intel) \
             must be unbound from their drivers too"
        );
    }
}
