//! What a function that is told a wrong address cannot do.

use std::thread::sleep;

use shmbus_transports::pci::{Address, DmaMemory, DmaRegion};

use super::edu::{DMA_TIME, Edu};
use super::{Checked, Passed, ensure, ensure_full_of, fill};

const BYTES: u32 = 2048;

/// What lies in memory that the function has no business with.
const OURS: u8 = 0x5a;
/// What the function writes.
const ITS: u8 = 0xa5;

pub(super) fn run<F: Passed>(address: Address) -> Checked {
    let edu = Edu::<F>::open(address)?;
    let memory = edu.function.memory();
    let before = memory.limits()?.mappings;
    let source = memory.allocate(4096)?;
    fill(&source.window, ITS)?;
    edu.read_memory(source.address, BYTES)?;
    let regions = [
        memory.allocate(4096)?,
        memory.allocate(8192)?,
        memory.allocate(4096)?,
    ];
    for region in &regions {
        fill(&region.window, OURS)?;
    }
    let untouched = |regions: &[DmaRegion], when: &str| {
        regions
            .iter()
            .try_for_each(|region| ensure_full_of(&region.window, OURS, when))
    };

    // Right behind a region: nothing is mapped there.
    let wrong = regions[0].address + 4096;
    println!("fault at {wrong:#x}");
    edu.write_memory(wrong, BYTES)?;
    untouched(&regions, "behind a region")?;

    // Across its end: what lies before it is the function's.
    let across = regions[2].address + 4096 - u64::from(BYTES) / 2;
    println!("fault at {:#x}", regions[2].address + 4096);
    edu.write_memory(across, BYTES)?;
    untouched(&regions[..2], "across an end")?;

    // Where a region was.
    let [first, rest @ ..] = regions;
    let gone = first.address;
    drop(first);
    println!("fault at {gone:#x}");
    edu.write_memory(gone, BYTES)?;
    untouched(&rest[..1], "where a region was")?;

    drop((source, rest));
    let after = memory.limits()?.mappings;
    ensure(
        before == after,
        format!("{before:?} mappings were left at first, {after:?} now"),
    )?;
    println!("mappings: {before:?} left before and after");

    // Its place is free: the kernel would refuse what overlaps.
    let again = memory.allocate(4096)?;
    fill(&again.window, OURS)?;
    // A transfer that is under way when the function is dropped, to memory that is still there.
    edu.start_to_write_memory(again.address, BYTES)?;
    drop(edu.function);
    sleep(DMA_TIME);
    ensure_full_of(&again.window, OURS, "a function that was dropped")
}
