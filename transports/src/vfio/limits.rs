//! How much memory can still be mapped.

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// How much more memory a function can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many more mappings the IOMMU's driver takes; `None` if it does not say.
    pub mappings: Option<u32>,
    /// How many more bytes may be locked in memory, as all that is mapped is; `None` if any number.
    pub bytes: Option<u64>,
}

/// How many more bytes this process may lock; `None` if any number.
pub(super) fn lockable() -> Option<u64> {
    let limit = getrlimit(Resource::Memlock).current?;
    let privileged =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if privileged {
        return None;
    }
    // Without /proc nothing is foretold, and the IOMMU's driver refuses what is too much.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(limit.saturating_sub(locked(&status)?))
}

/// How many bytes are locked, by a `/proc/PID/status`.
fn locked(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmLck:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_locked_is_found_or_not_told() {
        let status = "Name:\tdriver\nVmPin:\t       8 kB\nVmLck:\t      64 kB\nVmHWM:\t    4 kB\n";
        assert_eq!(locked(status), Some(64 << 10));
        assert_eq!(locked("Name:\tkthreadd\n"), None);
        assert_eq!(locked("VmLck:\t18446744073709551615 kB\n"), None);
    }

    #[test]
    #[cfg(not(miri))] // it has no /proc
    fn this_process_has_something_locked_or_nothing() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(locked(&status).is_some(), "{status}");
    }
}
