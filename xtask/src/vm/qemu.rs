//! QEMU of another release than this machine's, with the libraries and the loader that it was built for.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::apt::Package;
use super::{create, failed, files};
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// What a machine without a disk, started by PVH, reads from QEMU's data.
const FIRMWARE: [&str; 5] = [
    "bios-256k.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "pvh.bin",
    "vgabios-stdvga.bin",
];

/// Neither programs nor data for the set-up of a system.
pub(super) fn wants(package: &Package) -> bool {
    let name = package.name.as_str();
    name.starts_with("lib")
        || name.starts_with("qemu-system-")
        || name == "seabios"
        || name == "zlib1g"
}

/// `bin`, `lib` with the loader, `modules` and `share`, each flat.
pub(super) fn assemble(_: &Project, from: &Path, to: &Path, _: &mut Tally) -> Result<(), Stop> {
    for directory in ["bin", "lib", "modules", "share"] {
        create(&to.join(directory))?;
    }
    for file in files(from)? {
        let name = file.file_name().unwrap_or_default();
        let text = name.to_string_lossy();
        let parent = file.parent().and_then(Path::file_name);
        let place = if text == "qemu-system-x86_64" {
            "bin"
        } else if parent == Some(OsStr::new("x86_64-linux-gnu")) && text.contains(".so") {
            "lib"
        } else if parent == Some(OsStr::new("qemu")) && text.ends_with(".so") {
            "modules"
        } else if FIRMWARE.contains(&text.as_ref()) {
            "share"
        } else {
            continue;
        };
        // Links among libraries lead to their neighbours, and stay right.
        fs::rename(&file, to.join(place).join(name))
            .map_err(|error| failed("move", &file, &error))?;
    }
    for needed in ["bin/qemu-system-x86_64", "lib/ld-linux-x86-64.so.2"] {
        if !to.join(needed).exists() {
            return Err(Stop::Failed(format!("the packages have no {needed}")));
        }
    }
    Ok(())
}
