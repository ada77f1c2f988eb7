//! Limits that are told before they are hit.

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use shmbus_transports::pci::{Address, DmaError, DmaMemory};

use super::{Checked, Passed, ensure};

/// How many mappings the test on the host leaves to the IOMMU's driver.
const MAPPINGS: u32 = 3;

/// How much memory may be locked.
const LOCKABLE: u64 = 256 << 10;

pub(super) fn mappings<F: Passed>(address: Address) -> Checked {
    let function = F::open(address)?;
    let memory = function.memory();
    let left = || Ok::<_, std::io::Error>(memory.limits()?.mappings);
    ensure(left()? == Some(MAPPINGS), format!("{:?} mappings", left()?))?;
    let mut regions = Vec::new();
    for _ in 0..MAPPINGS {
        regions.push(memory.allocate(4096)?);
    }
    ensure(left()? == Some(0), "there are more")?;
    let refused = memory.allocate(4096);
    ensure(
        matches!(refused, Err(DmaError::NoMappings { mapped: MAPPINGS })),
        format!("{refused:?}"),
    )?;
    regions.pop();
    regions.push(memory.allocate(4096)?);
    regions.clear();
    ensure(left()? == Some(MAPPINGS), "some are lost")
}

pub(super) fn locked<F: Passed>(address: Address) -> Checked {
    let function = F::open(address)?;
    let memory = function.memory();
    ensure(memory.limits()?.bytes.is_none(), "root is limited")?;
    let mut fewer = capabilities(None)?;
    fewer.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, fewer)?;
    let limit = Some(LOCKABLE);
    setrlimit(
        Resource::Memlock,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )?;

    let left = memory.limits()?.bytes.ok_or("no limit")?;
    ensure(left == LOCKABLE, format!("{left} bytes are left"))?;
    let refused = memory.allocate(left as usize + 4096);
    ensure(
        matches!(refused, Err(DmaError::LockLimit { left: LOCKABLE, .. })),
        format!("{refused:?}"),
    )?;
    // What is told is what there is.
    let region = memory.allocate(left as usize)?;
    let refused = memory.allocate(4096);
    ensure(
        matches!(refused, Err(DmaError::LockLimit { left: 0, .. })),
        format!("{refused:?}"),
    )?;
    drop(region);
    ensure(memory.limits()?.bytes == Some(LOCKABLE), "some is lost")
}
