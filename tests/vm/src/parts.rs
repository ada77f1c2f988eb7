//! What machines are made of, as `cargo xtask setup` leaves it below `target/vm`:
//!
//! - `qemu-VERSION`: `bin`, `lib` with the loader that QEMU was built for, `modules`, `share`
//! - `linux-VERSION`: `vmlinux`, `release` (what `uname -r` says), `modules`
//! - `busybox`: one program
//!
//! Each has its package's version in `version`.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the parts are, if not below this workspace's `target`.
const PLACE: &str = "SHMBUS_VM_PARTS";

/// Set to anything: tests that take [`matrix`] run with everything.
const WIDE: &str = "SHMBUS_VM_MATRIX";

/// The QEMUs that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qemu {
    /// Debian 12's.
    V7_2,
    /// Debian 13's backports'.
    V11_1,
}

impl Qemu {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V7_2, Self::V11_1];

    /// Its directory among the parts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V7_2 => "qemu-7.2",
            Self::V11_1 => "qemu-11.1",
        }
    }
}

impl fmt::Display for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kernels that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// Debian 12's.
    V6_1,
    /// Debian 13's backports'.
    V7_2,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V7_2];

    /// Its directory among the parts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-6.1",
            Self::V7_2 => "linux-7.2",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The machines that a test is to run on: with the oldest and with the newest parts, which `cargo xtask interop` widens
/// to every pair.
#[must_use]
pub fn matrix() -> Vec<(Qemu, Kernel)> {
    if env::var_os(WIDE).is_none() {
        return vec![(Qemu::V7_2, Kernel::V6_1), (Qemu::V11_1, Kernel::V7_2)];
    }
    Qemu::ALL
        .into_iter()
        .flat_map(|qemu| Kernel::ALL.map(|kernel| (qemu, kernel)))
        .collect()
}

/// As [`matrix`], but with the newest parts only until `cargo xtask interop` widens it: for tests that take long, or that
/// the oldest QEMU's emulation upsets now and then.
#[must_use]
pub fn newest_or_all() -> Vec<(Qemu, Kernel)> {
    if env::var_os(WIDE).is_none() {
        return vec![(Qemu::V11_1, Kernel::V7_2)];
    }
    matrix()
}

/// Why a test cannot run on this machine.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skipped(pub String);

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Parts {
    directory: PathBuf,
}

impl Parts {
    /// Looks for them.
    ///
    /// # Errors
    ///
    /// Says what is missing, and how it is made.
    pub fn find() -> Result<Self, Skipped> {
        let directory = match env::var_os(PLACE) {
            Some(directory) => PathBuf::from(directory),
            None => workspace().join("target/vm"),
        };
        Self::below(directory)
    }

    fn below(directory: PathBuf) -> Result<Self, Skipped> {
        let qemus = Qemu::ALL.map(|qemu| format!("{qemu}/bin/qemu-system-x86_64"));
        let kernels = Kernel::ALL.map(|kernel| format!("{kernel}/vmlinux"));
        let busybox = ["busybox/busybox".to_owned()];
        let mut all = busybox.iter().chain(&qemus).chain(&kernels);
        match all.find(|part| !directory.join(part).is_file()) {
            None => Ok(Self { directory }),
            Some(missing) => Err(Skipped(format!(
                "{missing} is not in {}; `cargo xtask setup` puts it there",
                directory.display()
            ))),
        }
    }

    /// For a test: says on standard error that it is skipped, if they are not there.
    #[must_use]
    pub fn or_skip() -> Option<Self> {
        Self::find()
            .inspect_err(|why| eprintln!("SKIPPED: {why}"))
            .ok()
    }

    /// The version of a part, without what its distribution adds: of `1:11.1.3+ds-1~bpo13+1` only `11.1.3`.
    #[must_use]
    pub fn version(&self, part: &str) -> String {
        let version = fs::read_to_string(self.directory.join(part).join("version"));
        version.map_or_else(|_| "unknown".to_owned(), |text| upstream(&text).to_owned())
    }

    pub(crate) fn qemu(&self, qemu: Qemu) -> PathBuf {
        self.directory.join(qemu.name())
    }

    pub(crate) fn kernel(&self, kernel: Kernel) -> PathBuf {
        self.directory.join(kernel.name())
    }

    pub(crate) fn busybox(&self) -> PathBuf {
        self.directory.join("busybox/busybox")
    }
}

fn upstream(version: &str) -> &str {
    let version = version
        .split_once(':')
        .map_or(version, |(_, version)| version);
    let end = version.find(['+', '-', '~']).unwrap_or(version.len());
    version[..end].trim()
}

/// The root of the workspace that this crate was built in.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_the_project_calls_it() {
        assert_eq!(upstream("1:11.1.3+ds-1~bpo13+1"), "11.1.3");
        assert_eq!(upstream("6.1.176-1"), "6.1.176");
        assert_eq!(upstream("7.2.12\n"), "7.2.12");
    }

    #[test]
    fn what_is_missing_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let missing = Parts::below(empty.path().to_owned()).unwrap_err();
        assert!(
            missing.0.starts_with("busybox/busybox is not in"),
            "{missing}"
        );
    }
}
