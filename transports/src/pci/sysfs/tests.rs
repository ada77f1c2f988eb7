//! A made-up `/sys`, whose kernel is a closure.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::pci::Registers;

/// A function of the tree: its address, its group, its usual driver, which has it.
type Made<'a> = (&'a str, Option<u32>, Option<&'a str>);

struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    fn new(functions: &[Made<'_>]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        fs::create_dir_all(path.join("bus/pci/devices")).unwrap();
        fs::create_dir_all(path.join("bus/pci/drivers/vfio-pci")).unwrap();
        for (address, group, driver) in functions {
            let device = path.join("bus/pci/devices").join(address);
            fs::create_dir_all(&device).unwrap();
            for (name, text) in [
                ("vendor", "0x1af4"),
                ("device", "0x1041"),
                ("class", "0x020000"),
            ] {
                fs::write(device.join(name), format!("{text}\n")).unwrap();
            }
            if let Some(driver) = driver {
                fs::write(device.join("usual"), driver).unwrap();
                let driver = path.join("bus/pci/drivers").join(driver);
                fs::create_dir_all(&driver).unwrap();
                symlink(driver, device.join("driver")).unwrap();
            }
            if let Some(group) = group {
                let group = path.join("kernel/iommu_groups").join(group.to_string());
                fs::create_dir_all(&group).unwrap();
                symlink(group, device.join("iommu_group")).unwrap();
            }
        }
        Self { root }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn device(&self, address: &str) -> PathBuf {
        self.path().join("bus/pci/devices").join(address)
    }

    /// With a kernel in which vfio-pci takes all functions but `hates`.
    fn sysfs(&self, hates: &'static str) -> Sysfs {
        let root = self.path().to_owned();
        Sysfs {
            root: root.clone(),
            write: Box::new(move |path, text| kernel(&root, path, text, hates)),
        }
    }
}

fn kernel(root: &Path, path: &Path, text: &str, hates: &str) -> io::Result<()> {
    let device = root.join("bus/pci/devices").join(text);
    match path.file_name().and_then(|name| name.to_str()) {
        Some("driver_override") => fs::write(path, text.trim()),
        Some("unbind") => fs::remove_file(device.join("driver")),
        Some("drivers_probe") => {
            let chosen = fs::read_to_string(device.join("driver_override")).unwrap_or_default();
            let usual = fs::read_to_string(device.join("usual")).unwrap_or_default();
            let driver = match chosen.as_str() {
                "" => usual,
                _ if text == hates => return Ok(()),
                chosen => chosen.to_owned(),
            };
            if driver.is_empty() || device.join("driver").exists() {
                return Ok(());
            }
            symlink(
                root.join("bus/pci/drivers").join(driver),
                device.join("driver"),
            )
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn at(address: &str) -> Address {
    address.parse().unwrap()
}

const A: &str = "0000:00:03.0";
const B: &str = "0000:00:03.1";

#[test]
fn functions_are_listed_by_address_with_driver_and_group() {
    let tree = Tree::new(&[(B, Some(12), None), (A, Some(7), Some("virtio-pci"))]);
    let functions = Sysfs::at(tree.path()).functions().unwrap();
    let lines: Vec<_> = functions
        .iter()
        .map(|function| {
            let Listed {
                address,
                identity,
                class,
                driver,
                group,
            } = function;
            format!("{address} {identity} {class} {driver:?} {group:?}")
        })
        .collect();
    assert_eq!(
        lines,
        [
            r#"0000:00:03.0 1af4:1041 020000 Some("virtio-pci") Some(7)"#,
            r#"0000:00:03.1 1af4:1041 020000 None Some(12)"#,
        ]
    );
}

#[test]
fn functions_go_to_vfio_and_back() {
    let tree = Tree::new(&[
        (A, Some(7), Some("virtio-pci")),
        (B, Some(7), Some("e1000e")),
    ]);
    let sysfs = tree.sysfs("");
    let driver = |address| sysfs.function(at(address)).unwrap().driver;

    let bound = sysfs.bind(&[at(A), at(B)]).unwrap();
    assert_eq!(
        (bound[0].group, bound[0].former.as_deref()),
        (7, Some("virtio-pci"))
    );
    assert_eq!(bound[1].node(), Path::new("/dev/vfio/7"));
    assert_eq!(
        (driver(A).as_deref(), driver(B).as_deref()),
        (Some("vfio-pci"), Some("vfio-pci"))
    );
    // Again: nothing is to be done.
    assert_eq!(
        sysfs.bind(&[at(A)]).unwrap()[0].former.as_deref(),
        Some("vfio-pci")
    );

    assert_eq!(sysfs.unbind(at(A)).unwrap().as_deref(), Some("virtio-pci"));
    assert_eq!(sysfs.unbind(at(B)).unwrap().as_deref(), Some("e1000e"));
    let error = sysfs.unbind(at(B)).unwrap_err().to_string();
    assert_eq!(error, "0000:00:03.1 is bound to e1000e, not to vfio-pci");
}

#[test]
fn a_group_that_others_share_is_not_viable_and_nothing_is_touched() {
    let tree = Tree::new(&[
        (A, Some(7), Some("virtio-pci")),
        (B, Some(7), Some("e1000e")),
        ("0000:00:02.0", Some(7), Some("pcieport")),
        ("0000:00:04.0", Some(8), Some("ahci")),
    ]);
    let error = tree.sysfs("").bind(&[at(A)]).unwrap_err();
    assert!(
        matches!(&error, SysfsError::NotViable { group: 7, others, .. } if others == "0000:00:03.1 (e1000e)"),
        "{error}"
    );
    assert!(!tree.device(A).join("driver_override").exists());
}

#[test]
fn what_vfio_does_not_take_goes_back_to_its_driver() {
    let tree = Tree::new(&[(A, Some(7), Some("virtio-pci"))]);
    let sysfs = tree.sysfs(A);
    let error = sysfs.bind(&[at(A)]).unwrap_err();
    assert!(matches!(error, SysfsError::Refused { .. }), "{error}");
    assert_eq!(
        sysfs.function(at(A)).unwrap().driver.as_deref(),
        Some("virtio-pci")
    );
}

#[test]
fn an_interface_that_is_up_is_not_taken_away() {
    for (level, address) in [("net/eth0", A), ("virtio3/net/eth0", B)] {
        let tree = Tree::new(&[(address, Some(7), Some("virtio-pci"))]);
        let interface = tree.device(address).join(level);
        fs::create_dir_all(&interface).unwrap();
        fs::write(interface.join("flags"), "0x1003\n").unwrap();
        let error = tree.sysfs("").bind(&[at(address)]).unwrap_err();
        assert!(
            matches!(&error, SysfsError::InUse { interface, .. } if interface == "eth0"),
            "{error}"
        );
        fs::write(interface.join("flags"), "0x1002\n").unwrap();
        tree.sysfs("").bind(&[at(address)]).unwrap();
    }
}

#[test]
fn what_is_missing_is_told_with_what_to_do() {
    let refusal = |tree: &Tree| tree.sysfs("").bind(&[at(A)]).unwrap_err().to_string();
    let absent = Tree::new(&[]);
    assert!(
        refusal(&absent).starts_with("there is no PCI function 0000:00:03.0"),
        "{}",
        refusal(&absent)
    );
    let exposed = Tree::new(&[(A, None, None)]);
    assert!(
        refusal(&exposed).contains("intel_iommu=on"),
        "{}",
        refusal(&exposed)
    );
    let plain = Tree::new(&[(A, Some(1), None)]);
    fs::remove_dir(plain.path().join("bus/pci/drivers/vfio-pci")).unwrap();
    assert!(
        refusal(&plain).contains("modprobe vfio-pci"),
        "{}",
        refusal(&plain)
    );
    let error = Sysfs::at("/nowhere").functions().unwrap_err();
    assert!(matches!(error, SysfsError::NoPci { .. }), "{error}");

    let denied = Tree::new(&[(A, Some(1), None)]);
    let sysfs = Sysfs {
        root: denied.path().to_owned(),
        write: Box::new(|_, _| Err(io::ErrorKind::PermissionDenied.into())),
    };
    let error = sysfs.bind(&[at(A)]).unwrap_err().to_string();
    assert!(
        error.ends_with("only root may give functions to other drivers"),
        "{error}"
    );
}

#[test]
fn configuration_space_and_bars_are_read_without_a_driver() {
    let tree = Tree::new(&[(A, Some(1), None)]);
    let mut config = [0; 64];
    config[..4].copy_from_slice(&[0xf4, 0x1a, 0x41, 0x10]);
    fs::write(tree.device(A).join("config"), config).unwrap();
    fs::write(
        tree.device(A).join("resource"),
        "0x00000000febd5000 0x00000000febd5fff 0x0000000000040200\n\
         0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
         0x0000008000000000 0x0000008000003fff 0x000000000014220c\n",
    )
    .unwrap();
    let sysfs = Sysfs::at(tree.path());
    let config = sysfs.config(at(A)).unwrap();
    assert_eq!(
        (config.len(), config.read_u32(0).unwrap()),
        (64, 0x1041_1af4)
    );
    assert!(config.read_u32(64).is_err());
    assert!(config.read_u16(1).is_err());
    assert!(config.write_u8(4, 0).is_err());
    let lengths = sysfs.bar_lengths(at(A)).unwrap();
    let lengths: Vec<_> = lengths.iter().map(|(bar, len)| (bar.get(), *len)).collect();
    assert_eq!(lengths, [(0, 4096), (2, 16384)]);

    fs::write(tree.device(A).join("resource"), "0x10 0x0 0x0\n").unwrap();
    let error = sysfs.bar_lengths(at(A)).unwrap_err();
    assert!(matches!(error, SysfsError::Malformed { .. }), "{error}");
    fs::write(tree.device(A).join("class"), "network\n").unwrap();
    let error = sysfs.functions().unwrap_err();
    assert!(matches!(error, SysfsError::Malformed { .. }), "{error}");
}
