//! A guest's driver and tables as a static library for bare metal: it needs nothing of anybody, and it drives rings and
//! tables against our other side.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::Command;
use crate::packages::is_installed;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;
use crate::toolchain::{BARE_METAL_TARGETS, host, need_target};

/// The guest's functions.
const FUNCTIONS: [&str; 10] = [
    "ring_storage_bytes",
    "ring_open",
    "ring_add",
    "ring_publish",
    "ring_take",
    "ring_disable_notifications",
    "ring_enable_notifications",
    "mirror_storage_bytes",
    "mirror_open",
    "mirror_turn",
];

pub(super) fn drive(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let linker = linker(project)?;
    for target in BARE_METAL_TARGETS {
        need_target(project, target, tally)?;
        let library = library(project, target, tally)?;
        stands_alone(project, &linker, &library, tally)?;
        tally.passed += 1;
        if target.starts_with(ARCH) {
            let guest = object(project, &linker, &library, tally)?;
            cargo(project, "test", "checked")
                .args(["--package", "shmbus-bare"])
                .env("SHMBUS_BARE_GUEST", guest)
                .run(tally)?;
        }
    }
    Ok(())
}

/// The workspace's own `cargo fmt` does not reach them.
pub(super) fn check_format(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    Command::cargo(project)
        .args(["fmt", "--all", "--check", "--manifest-path"])
        .args([manifest(project)])
        .run(tally)
}

fn manifest(project: &Project) -> PathBuf {
    project.root.join("tests").join("bare").join("Cargo.toml")
}

/// Where they are built.
pub(super) fn directory(project: &Project) -> PathBuf {
    project.target.join("bare")
}

/// Cargo in their workspace.
pub(super) fn cargo(project: &Project, command: &str, profile: &str) -> Command {
    Command::cargo(project)
        .args([command, "--profile", profile, "--manifest-path"])
        .args([manifest(project)])
        .env("CARGO_TARGET_DIR", directory(project))
}

fn library(project: &Project, target: &str, tally: &mut Tally) -> Result<PathBuf, Stop> {
    cargo(project, "build", "checked")
        .args(["--package", "shmbus-bare-guest", "--target", target])
        .run(tally)?;
    Ok(directory(project)
        .join(target)
        .join("checked")
        .join("libshmbus_bare_guest.a"))
}

/// Links a program of the guest alone: it fails if a symbol is missing, of std, of libc or of anything. The `alloc` crate
/// needs none that is missing, so its functions are looked for.
fn stands_alone(
    project: &Project,
    linker: &Path,
    library: &Path,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let program = library.with_extension("elf");
    link(project, linker, library)
        .args(["-static", "--entry=ring_open", "-o"])
        .args([&program])
        .run(tally)?;
    let bytes = fs::read(&program)
        .map_err(|error| Stop::Failed(format!("cannot read {}: {error}", program.display())))?;
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    let program = program.display();
    if !has(b"ring_open") {
        return Err(Stop::Failed(format!("{program} has no names to look for")));
    }
    if has(b"rust_alloc") {
        return Err(Stop::Failed(format!("{program} has an allocator")));
    }
    Ok(())
}

/// One object with no other symbols than the guest's functions: what it has of the core library must not get in the way
/// of a host program's.
fn object(
    project: &Project,
    linker: &Path,
    library: &Path,
    tally: &mut Tally,
) -> Result<PathBuf, Stop> {
    if !is_installed("objcopy") {
        return Err(Stop::Skipped("there is no objcopy".to_owned()));
    }
    let object = library.with_extension("o");
    link(project, linker, library)
        .args(["--relocatable", "--strip-debug", "-o"])
        .args([&object])
        .run(tally)?;
    Command::new(project, "objcopy")
        .args(FUNCTIONS.map(|name| format!("--keep-global-symbol={name}")))
        .args([&object])
        .run(tally)?;
    Ok(object)
}

/// What the guest's functions need, and no more.
fn link(project: &Project, linker: &Path, library: &Path) -> Command {
    Command::new(project, &linker.to_string_lossy())
        .args(["-flavor", "gnu", "--gc-sections"])
        .args(FUNCTIONS.map(|name| format!("--undefined={name}")))
        .args([library])
}

/// The one that comes with the toolchain: it links for every machine.
fn linker(project: &Project) -> Result<PathBuf, Stop> {
    let sysroot = Command::new(project, "rustc")
        .args(["--print", "sysroot"])
        .read();
    let linker = PathBuf::from(sysroot.unwrap_or_default().trim())
        .join("lib/rustlib")
        .join(host(project).unwrap_or_default())
        .join("bin/rust-lld");
    if linker.is_file() {
        Ok(linker)
    } else {
        let linker = linker.display();
        Err(Stop::Skipped(format!("there is no {linker}")))
    }
}
