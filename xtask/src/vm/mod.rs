//! What virtual machines for tests are made of: QEMU, kernels and busybox, out of Debian's packages, below `target/vm`.
//! Nothing is installed, and root is not needed.
//!
//! A part is a directory that appears whole: it is put together beside its place and then renamed. What a part consists
//! of is described where it is used, in `tests/vm/src/parts.rs`.

mod apt;
mod kernel;
mod qemu;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::command::Command;
use crate::packages::is_installed;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;
use apt::{Archive, BOOKWORM, Package, Suites, TRIXIE};

/// Goes up when a part that is there is no longer what this program would make of the same packages.
const RECIPE: &str = "2";

/// Another place for the parts than `target/vm`.
const PLACE: &str = "SHMBUS_VM_PARTS";

/// Something that virtual machines are made of.
struct Part {
    /// Its directory.
    name: &'static str,
    suites: &'static Suites,
    /// The package to start from, as regular expressions: of the first one that matches, the newest match counts.
    packages: &'static [&'static str],
    /// Whether a package that it depends on is of use.
    wants: fn(&Package) -> bool,
    /// Puts together the part from the unpacked packages.
    assemble: fn(&Project, &Path, &Path, &mut Tally) -> Result<(), Stop>,
}

const PARTS: [Part; 5] = [
    Part {
        name: "busybox",
        suites: &BOOKWORM,
        packages: &["^busybox-static$"],
        wants: |package| package.name == "busybox-static",
        assemble: busybox,
    },
    Part {
        name: "qemu-7.2",
        suites: &BOOKWORM,
        packages: &["^qemu-system-x86$"],
        wants: qemu::wants,
        assemble: qemu::assemble,
    },
    Part {
        name: "qemu-11.1",
        suites: &TRIXIE,
        packages: &["^qemu-system-x86$"],
        wants: qemu::wants,
        assemble: qemu::assemble,
    },
    Part {
        name: "linux-6.1",
        suites: &BOOKWORM,
        packages: &["^linux-image-6\\.1\\.[0-9]+-[0-9]+-amd64$"],
        wants: kernel::wants,
        assemble: kernel::assemble,
    },
    Part {
        name: "linux-7.2",
        suites: &TRIXIE,
        // Backports go on; a newer one is better than none.
        packages: &[
            "^linux-image-7\\.2\\.[0-9]+[+]deb13-amd64$",
            "^linux-image-[0-9.]+[+]deb13-amd64$",
        ],
        wants: kernel::wants,
        assemble: kernel::assemble,
    },
];

/// Fetches and puts together what is not there yet.
///
/// # Errors
///
/// [`Stop::Skipped`] when something stays missing, for example because there is no way to Debian's packages.
pub(crate) fn set_up(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let directory = directory(project);
    let missing = missing(&directory);
    if missing.is_empty() {
        return Ok(());
    }
    for program in ["apt-get", "dpkg-deb", "xz", "zstd"] {
        if !is_installed(program) {
            return Err(Stop::Skipped(format!(
                "virtual machines are made of Debian packages by {program}, which is missing"
            )));
        }
    }
    // Lists of an earlier run may name packages that are no longer there.
    let _ = fs::remove_dir_all(directory.join("apt"));
    let mut lacking = Vec::new();
    for (index, part) in missing.iter().enumerate() {
        println!(
            "virtual machines: {} ({} of {})",
            part.name,
            index + 1,
            missing.len()
        );
        match make(project, &directory, part, tally) {
            Ok(()) => {}
            Err(Stop::Failed(why) | Stop::Skipped(why)) => {
                lacking.push(format!("{}: {why}", part.name));
            }
        }
    }
    if lacking.is_empty() {
        // Packages and their lists; the parts are made.
        let _ = fs::remove_dir_all(directory.join("apt"));
        Ok(())
    } else {
        Err(Stop::Skipped(format!(
            "parts of virtual machines are missing: {}",
            lacking.join("; ")
        )))
    }
}

/// Where the parts are; tests look there too.
fn directory(project: &Project) -> PathBuf {
    env::var_os(PLACE).map_or_else(|| project.target.join("vm"), PathBuf::from)
}

fn missing(directory: &Path) -> Vec<&'static Part> {
    PARTS
        .iter()
        .filter(|part| !is_current(&directory.join(part.name)))
        .collect()
}

/// The command of tests in guests, which are told where the parts are if they would not look there by themselves.
pub(crate) fn with_parts(project: &Project, tests: Command) -> Command {
    let directory = directory(project);
    if directory == project.root.join("target/vm") {
        tests
    } else {
        tests.env(PLACE, directory)
    }
}

/// Builds what runs in guests, before tests want it, if guests can be made.
///
/// # Errors
///
/// [`Stop::Failed`] if it does not build.
pub(crate) fn build_programs(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    if !missing(&directory(project)).is_empty() {
        return Ok(());
    }
    Command::cargo(project)
        .args(["run", "--quiet", "--profile", "checked"])
        .args(["--package", "shmbus-vm", "--bin", "build-guest-programs"])
        .run(tally)
}

fn is_current(part: &Path) -> bool {
    fs::read_to_string(part.join("recipe")).is_ok_and(|recipe| recipe == RECIPE)
}

fn make(project: &Project, directory: &Path, part: &Part, tally: &mut Tally) -> Result<(), Stop> {
    let archive = Archive::open(project, directory, part.suites, tally)?;
    let (chosen, packages) = archive.choose(part.packages)?;
    let wanted: Vec<_> = packages
        .into_iter()
        .filter(|package| (part.wants)(package))
        .collect();
    println!(
        "  {} {}, {} packages",
        chosen.name,
        chosen.version,
        wanted.len()
    );
    let unpacked = Scratch::new(directory.join(format!("{}.unpacked", part.name)))?;
    archive.unpack(&wanted, &unpacked.path)?;

    let made = Scratch::new(directory.join(format!("{}.new", part.name)))?;
    (part.assemble)(project, &unpacked.path, &made.path, tally)?;
    write(&made.path.join("version"), &chosen.version)?;
    write(&made.path.join("recipe"), RECIPE)?;
    let place = directory.join(part.name);
    let _ = fs::remove_dir_all(&place); // of another recipe
    fs::rename(&made.path, &place).map_err(|error| failed("rename", &made.path, &error))
}

fn busybox(_: &Project, from: &Path, to: &Path, _: &mut Tally) -> Result<(), Stop> {
    let program = from.join("bin/busybox");
    fs::rename(&program, to.join("busybox")).map_err(|error| failed("move", &program, &error))
}

/// A directory that goes with this value, unless it was renamed.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, Stop> {
        let _ = fs::remove_dir_all(&path); // of a run that was cut short
        create(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn create(directory: &Path) -> Result<(), Stop> {
    fs::create_dir_all(directory).map_err(|error| failed("create", directory, &error))
}

fn write(path: &Path, text: &str) -> Result<(), Stop> {
    fs::write(path, text).map_err(|error| failed("write", path, &error))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Stop {
    Stop::Failed(format!("cannot {what} {}: {error}", path.display()))
}

/// All files below a directory, links among them.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Stop> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let list = || -> io::Result<Vec<fs::DirEntry>> { fs::read_dir(&directory)?.collect() };
        for entry in list().map_err(|error| failed("list", &directory, &error))? {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}
