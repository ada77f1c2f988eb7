//! A kernel that QEMU starts by PVH, decompressed, and the modules that guests load.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::apt::Package;
use super::{create, failed, files, write};
use crate::command::Command;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// The modules that guests may want, with what these need, by the start of their path in the kernel's tree.
const MODULES: [&str; 17] = [
    "drivers/block/virtio_blk.",
    "drivers/char/hw_random/virtio-rng.",
    "drivers/char/virtio_console.",
    "drivers/net/net_failover.",
    "drivers/net/tun.",
    "drivers/net/virtio_net.",
    "drivers/ptp/ptp_vmclock.",
    "drivers/uio/uio.",
    "drivers/uio/uio_pci_generic.",
    "drivers/vdpa/vdpa.",
    "drivers/vdpa/vdpa_user/",
    "drivers/vfio/pci/vfio-pci",
    "drivers/vfio/vfio",
    "drivers/vhost/vhost_iotlb.",
    "drivers/virtio/",
    "net/core/failover.",
    "virt/lib/irqbypass.",
];

/// The kernel and its modules, in one package or in several.
pub(super) fn wants(package: &Package) -> bool {
    ["linux-image-", "linux-binary-", "linux-modules-"]
        .iter()
        .any(|start| package.name.starts_with(start))
}

/// `vmlinux`, `release` with what `uname -r` says, and `modules`, flat.
pub(super) fn assemble(
    project: &Project,
    from: &Path,
    to: &Path,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let files = files(from)?;
    let image = files
        .iter()
        .find(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("vmlinuz")
        })
        .ok_or_else(|| Stop::Failed("the packages have no vmlinuz".to_owned()))?;
    decompress(project, image, &to.join("vmlinux"))?;

    let modules = to.join("modules");
    create(&modules)?;
    let mut packed = Vec::new();
    for file in &files {
        let Some((release, name)) = module(file) else {
            continue;
        };
        if !MODULES.iter().any(|wanted| name.starts_with(wanted)) {
            continue;
        }
        write(&to.join("release"), release)?;
        let place = modules.join(file.file_name().unwrap_or_default());
        fs::rename(file, &place).map_err(|error| failed("move", file, &error))?;
        if place.extension() == Some(OsStr::new("xz")) {
            packed.push(place);
        }
    }
    if packed.is_empty() {
        return Ok(());
    }
    Command::new(project, "xz")
        .args(["--decompress"])
        .args(&packed)
        .run(tally)
}

/// The kernel's release and the path in its tree, for a module below `lib/modules/RELEASE/kernel`.
fn module(file: &Path) -> Option<(&str, &str)> {
    let (_, rest) = file.to_str()?.split_once("/lib/modules/")?;
    let (release, name) = rest.split_once("/kernel/")?;
    name.contains(".ko").then_some((release, name))
}

/// Takes the kernel proper out of a bzImage, whose header says where it is (Linux, `Documentation/arch/x86/boot.rst`).
fn decompress(project: &Project, image: &Path, to: &Path) -> Result<(), Stop> {
    let bytes = fs::read(image).map_err(|error| failed("read", image, &error))?;
    let (program, payload) = payload(&bytes)
        .ok_or_else(|| Stop::Failed(format!("{} is not as expected", image.display())))?;
    let packed: PathBuf = to.with_extension("packed");
    fs::write(&packed, payload).map_err(|error| failed("write", &packed, &error))?;
    let file = File::create(to).map_err(|error| failed("create", to, &error))?;
    let status = Command::new(project, program)
        .args(["--decompress", "--stdout"])
        .args([&packed])
        .hand_over_to(file)
        .map_err(|error| Stop::Failed(format!("{program} cannot run: {error}")))?;
    let _ = fs::remove_file(&packed);
    if status.success() {
        Ok(())
    } else {
        Err(Stop::Failed(format!("{program}: {status}")))
    }
}

/// What unpacks the kernel, and what it unpacks.
fn payload(image: &[u8]) -> Option<(&'static str, &[u8])> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + number(0x248)?;
    let bytes = image.get(start..)?.get(..number(0x24c)?)?;
    // The size when unpacked follows what these programs write.
    let bytes = bytes.get(..bytes.len().checked_sub(4)?)?;
    if bytes.starts_with(b"\xfd7zXZ\0") {
        Some(("xz", bytes))
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Some(("zstd", bytes))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found_in_its_image() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12_u32.to_le_bytes());
        image[1552..1560].copy_from_slice(b"\xfd7zXZ\0ab");
        assert_eq!(payload(&image), Some(("xz", b"\xfd7zXZ\0ab".as_slice())));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
    }
}
