//! Where the project is and what it consists of.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The library crates that work without the standard library and without an allocator.
pub(crate) const NO_STD: [&str; 5] = [
    "shmbus-shm",
    "shmbus-virtio",
    "shmbus-signal",
    "shmbus-ring",
    "shmbus-table",
];

/// The crates with lock-free protocols, whose directories these are: Miri runs all of their tests, ThreadSanitizer
/// those that use two threads, in `tests/threads.rs`. What takes longest comes first.
pub(crate) const LOCK_FREE: [&str; 4] = ["ring", "shm", "table", "signal"];

/// The workspace on disk.
pub(crate) struct Project {
    /// The directory of the root manifest.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Whether standard output is for figures: what commands print then goes to standard error.
    pub(crate) prints_figures: bool,
}

impl Project {
    /// The workspace that this program was built in.
    pub(crate) fn find() -> io::Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.join("..").canonicalize()?;
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => env::current_dir()?.join(dir),
            None => root.join("target"),
        };
        Ok(Self {
            root,
            target,
            prints_figures: false,
        })
    }

    /// The names of the integration tests of all crates.
    pub(crate) fn test_targets(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        collect_targets(&self.root.join("tests"), &mut names)?;
        collect_targets(&self.root.join("tests/vm/tests"), &mut names)?;
        for entry in fs::read_dir(&self.root)? {
            let directory = entry?.path();
            if directory.join("Cargo.toml").is_file() {
                collect_targets(&directory.join("tests"), &mut names)?;
            }
        }
        Ok(names)
    }
}

/// Cargo's rule: `tests/NAME.rs` and `tests/NAME/main.rs` are targets.
fn collect_targets(tests: &Path, names: &mut BTreeSet<String>) -> io::Result<()> {
    if !tests.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(tests)? {
        let path = entry?.path();
        let target = path.extension() == Some(OsStr::new("rs")) || path.join("main.rs").is_file();
        if let Some(name) = path.file_stem().and_then(OsStr::to_str)
            && target
        {
            names.insert(name.to_owned());
        }
    }
    Ok(())
}
