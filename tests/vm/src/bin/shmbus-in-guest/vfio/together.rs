//! Two functions in one container: what is mapped for one, the other reaches.

use shmbus_shm::Window;
use shmbus_transports::pci::{Address, DmaMemory};
use shmbus_transports::vfio::{Container, VfioFunction};

use super::edu::Edu;
use super::{Checked, ensure, ensure_full_of, fill};

pub(super) fn run(edu: Address, other: Address) -> Checked {
    let container = Container::new()?;
    let second = container.open(other)?;
    let theirs = second.memory().allocate(4096)?;
    let edu = Edu::<VfioFunction>::over(container.open(edu)?)?;
    let own = edu.function.memory().allocate(4096)?;
    ensure(own.address != theirs.address, "one address twice")?;
    fill(&own.window, 0x5a)?;
    edu.read_memory(own.address, 2048)?;
    edu.write_memory(theirs.address, 2048)?;
    ensure_full_of(&theirs.window.narrow(0, 2048)?, 0x5a, "the other's memory")?;

    // The container goes on with the function that is left, and then with others.
    drop((second, theirs));
    edu.write_memory(own.address + 2048, 2048)?;
    ensure_full_of(&own.window, 0x5a, "its own memory")?;
    drop((edu, own));
    container.open(other)?.memory().allocate(4096)?;
    Ok(())
}
