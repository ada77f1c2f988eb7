//! The device side over a guest's memory as vm-memory has it: regions and their borders, an IOMMU, mappings that are
//! taken away, what is marked dirty, and memory that is plugged in while chains are in flight.
#![cfg(not(miri))] // vm-memory maps its regions
#![allow(unreachable_pub, reason = "modules of a test program")]

mod formats;
mod guest;
mod run;

use std::fs::File;
use std::sync::Arc;

use proptest::prelude::*;
use shmbus_ring::{Buffer, ChainError, DeviceFault};
use shmbus_shm::{Access, AddressError, GuestSpace};
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::{
    FileOffset, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryAtomic,
    GuestMemoryBackend, GuestMemoryRegion, MmapRegion, Permissions,
};

use formats::{Format, Packed, PackedInOrder, SIZE, Split, SplitInOrder, Tagged, areas};
use guest::{Behind, Guest, Memory, PAGE, REGIONS, RING_BYTES};
use run::{Run, Shape, shapes, use_chain};

fn crosses_regions<F: Format, M>(
    guest: &Guest,
    space: &GuestSpace<M>,
    shapes: &[Shape],
    order: usize,
) where
    M: GuestMemory + Send + Sync + 'static,
{
    let mut run = Run::<F>::new(guest, space);
    for shape in shapes {
        while !run.add(shape) {
            run.device.poll().unwrap();
            while run.take(space).unwrap() {}
            run.complete(order);
            run.take_back();
        }
    }
    run.drain(space);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn chains_cross_the_borders_of_regions(shapes in shapes(), order: usize) {
        let check = |run: fn(&Guest, &GuestSpace<Memory>, &[Shape], usize)| {
            let guest = Guest::new();
            run(&guest, &guest.space(), &shapes, order);
        };
        check(crosses_regions::<Split, _>);
        check(crosses_regions::<SplitInOrder, _>);
        check(crosses_regions::<Packed, _>);
        check(crosses_regions::<PackedInOrder, _>);
        check(crosses_regions::<Tagged, _>);
    }

    #[test]
    fn chains_behind_an_iommu_cross_its_pages(shapes in shapes(), order: usize) {
        let check = |run: fn(&Guest, &GuestSpace<Behind>, &[Shape], usize)| {
            let (guest, _, space) = Guest::behind_iommu();
            run(&guest, &space, &shapes, order);
        };
        check(crosses_regions::<Split, _>);
        check(crosses_regions::<SplitInOrder, _>);
        check(crosses_regions::<Packed, _>);
        check(crosses_regions::<PackedInOrder, _>);
        check(crosses_regions::<Tagged, _>);
    }
}

/// A chain that is read and written, without and with a table.
fn shape(indirect: bool) -> Shape {
    Shape {
        readable: vec![100, 200],
        writable: vec![300],
        indirect,
        skip: 0,
    }
}

/// The page of the next chain that is lent.
fn next_page<F: Format>(run: &Run<F>) -> u64 {
    run.pieces[run.pieces.len() - 1] / PAGE * PAGE
}

/// It is an error with a type and a place; the queue stops, and a reset recovers it, with nothing lost.
fn loses_mappings<F: Format>() {
    let (guest, mappings, space) = Guest::behind_iommu();
    let mut run = Run::<F>::new(&guest, &space);
    let cycle = |run: &mut Run<F>, indirect, revoke: Option<Permissions>, after_take: bool| {
        let page = next_page(run);
        let physical = guest.physical_of(page);
        let before = run.returned.len();
        let take_away = || match revoke {
            None => mappings.unmap(page, 2 * PAGE),
            Some(rights) => mappings.map(page, physical, PAGE, rights),
        };
        assert!(run.add(&shape(indirect)));
        if !after_take {
            take_away();
        }
        run.device.poll().unwrap();
        let mut segments = [Buffer::default(); SIZE as usize];
        let fault = match run.device.take(&space, &mut segments) {
            Err(fault) => fault,
            Ok(chain) => {
                let chain = chain.unwrap();
                if after_take {
                    take_away();
                }
                let reason = use_chain(&space, run.taken, &chain).unwrap_err();
                run.device.fail(chain, reason)
            }
        };
        assert_eq!(run.device.fault(), Some(fault));
        assert_eq!(run.device.poll(), Err(fault));
        assert!(run.device.take(&space, &mut segments).is_err());

        for page in [page, page + PAGE] {
            mappings.map(page, guest.physical_of(page), PAGE, Permissions::ReadWrite);
        }
        run.reset();
        assert_eq!(run.returned.len(), before + 1);
        for _ in 0..3 {
            assert!(run.add(&shape(indirect)));
        }
        run.drain(&space);
        match fault {
            DeviceFault::Chain {
                reason: ChainError::Address(reason),
                ..
            } => reason,
            other => panic!("{other}"),
        }
    };
    for (indirect, after_take) in [(false, false), (false, true), (true, false), (true, true)] {
        let reason = cycle(&mut run, indirect, None, after_take);
        assert!(matches!(reason, AddressError::Unmapped { .. }), "{reason}");
        let reason = cycle(&mut run, indirect, Some(Permissions::Read), after_take);
        let expected = Access::Write;
        assert!(
            matches!(reason, AddressError::Denied { access, .. } if access == expected),
            "{reason}"
        );
    }
}

#[test]
fn a_mapping_that_is_taken_away_is_a_fault_with_a_type() {
    loses_mappings::<Split>();
    loses_mappings::<SplitInOrder>();
    loses_mappings::<Packed>();
    loses_mappings::<PackedInOrder>();
    loses_mappings::<Tagged>();
}

/// The pages that the bitmaps say were written.
fn dirty_pages(memory: &Memory) -> Vec<u64> {
    let mut pages = Vec::new();
    for region in memory.iter() {
        let start = region.start_addr().0;
        let dirty = |offset: &u64| region.bitmap().dirty_at(*offset as usize);
        let offsets = (0..region.len()).step_by(PAGE as usize);
        pages.extend(offsets.filter(dirty).map(|offset| start + offset));
    }
    pages
}

fn clean(memory: &Memory) {
    for region in memory.iter() {
        let mapped: &MmapRegion<AtomicBitmap> = region;
        mapped.bitmap().reset();
    }
}

/// What a device writes into buffers is marked, and no more. What it writes to the ring, its owner marks.
fn marks<F: Format>() {
    let guest = Guest::new();
    let space = guest.space();
    let mut run = Run::<F>::new(&guest, &space);
    for _ in 0..2 {
        // The last page of the first region, and what follows.
        let piece = REGIONS[1].0.0 - 0x280;
        run.pieces.push(piece);
        assert!(run.add(&shape(true)));
        clean(space.memory());
        run.device.poll().unwrap();
        assert!(run.take(&space).unwrap());
        // A table and 300 bytes, which are read, lie in front of the writable ones: these go from one region to another.
        let pages = [REGIONS[1].0.0 - PAGE, REGIONS[1].0.0];
        assert_eq!(dirty_pages(space.memory()), pages);
        run.complete(0);
        assert_eq!(dirty_pages(space.memory()), pages, "the ring is not marked");
        space.mark_dirty(guest.ring(), RING_BYTES as u32).unwrap();
        let ring = (0..RING_BYTES).step_by(PAGE as usize);
        assert!(
            dirty_pages(space.memory())
                .into_iter()
                .eq(ring.chain(pages))
        );
        run.take_back();
        run.pieces.pop();
    }
    assert_eq!(run.returned, [0, 1]);
}

#[test]
fn what_a_device_writes_is_marked_dirty() {
    marks::<Split>();
    marks::<SplitInOrder>();
    marks::<Packed>();
    marks::<PackedInOrder>();
    marks::<Tagged>();
}

/// Behind an IOMMU the bitmap is one of the device's addresses.
#[test]
fn what_a_device_writes_is_marked_by_its_own_address() {
    let (guest, _, space) = Guest::behind_iommu();
    let mut run = Run::<Packed>::new(&guest, &space);
    let piece = guest.buffers() + PAGE - 0x280;
    run.pieces.push(piece);
    assert!(run.add(&shape(true)));
    run.device.poll().unwrap();
    assert!(run.take(&space).unwrap());
    let first = guest.buffers();
    let dirty = |page: u64| space.memory().bitmap().dirty_at(page as usize);
    let found = [0, 1, 2].map(|page| dirty(first + page * PAGE));
    assert_eq!(found, [true, true, false]);
    assert!(!dirty(guest.ring()));
    space.mark_dirty(guest.ring(), 1).unwrap();
    assert!(dirty(guest.ring()));
}

/// Regions of a file, one behind another, mapped anew.
fn map(file: &File, regions: &[(GuestAddress, usize)]) -> Memory {
    let mut start = 0;
    let ranges = regions.iter().map(|(address, bytes)| {
        let at = FileOffset::new(file.try_clone().unwrap(), start);
        start += *bytes as u64;
        (*address, *bytes, Some(at))
    });
    Memory::from_ranges_with_files(ranges).unwrap()
}

fn plug(atomic: &GuestMemoryAtomic<Memory>, memory: Memory) {
    atomic.lock().unwrap().replace(memory);
}

/// A region comes while chains are in flight, and goes while one lies in it.
fn is_plugged<F: Format>() {
    let file = tempfile::tempfile().unwrap();
    let bytes: usize = REGIONS.iter().map(|(_, bytes)| bytes).sum();
    file.set_len(bytes as u64).unwrap();
    let atomic = GuestMemoryAtomic::new(map(&file, &REGIONS[..2]));
    let mut space = GuestSpace::new(atomic.memory().into_inner());
    let guest = Guest::of(atomic.memory().into_inner());
    let mut run = Run::<F>::new(&guest, &space);
    drop(guest);
    let host_address = |space: &GuestSpace<Memory>| {
        let window = space.window(0, 1, Access::Read).unwrap();
        window.as_ptr().as_ptr().addr()
    };
    let before = host_address(&space);

    // One chain is used, one with the device, two are available.
    for _ in 0..4 {
        assert!(run.add(&shape(false)));
    }
    run.device.poll().unwrap();
    assert!(run.take(&space).unwrap());
    assert!(run.take(&space).unwrap());
    run.complete(0);

    plug(&atomic, map(&file, &REGIONS));
    let old = Arc::downgrade(space.memory());
    assert!(space.follow(atomic.memory().into_inner()));
    assert_eq!(space.epoch(), 1);
    assert!(!space.follow(atomic.memory().into_inner()));
    assert_eq!(space.epoch(), 1, "it is the same memory");
    assert_ne!(host_address(&space), before);

    // The queue still has the old mapping, which is there until it lets go of it.
    run.guest = Guest::of(atomic.memory().into_inner());
    assert!(old.upgrade().is_some());
    assert!(run.take(&space).unwrap());
    run.device
        .rebind(areas::<F, _>(&space, run.guest.ring()))
        .unwrap();
    assert!(old.upgrade().is_some(), "the driver side has it");
    run.driver
        .rebind(areas::<F, _>(&run.guest.space(), 0))
        .unwrap();
    assert!(
        old.upgrade().is_none(),
        "somebody still has the old mapping"
    );

    // Chains go on, and may now lie in the new region.
    let piece = REGIONS[2].0.0 + 0x123;
    run.pieces.push(piece);
    assert!(run.add(&shape(true)));
    run.drain(&space);
    run.pieces.retain(|other| *other != piece);

    // The region goes, with a chain in it that the device has.
    run.pieces.push(piece);
    assert!(run.add(&shape(false)));
    run.device.poll().unwrap();
    let mut segments = [Buffer::default(); SIZE as usize];
    let chain = run.device.take(&space, &mut segments).unwrap().unwrap();
    plug(&atomic, map(&file, &REGIONS[..2]));
    assert!(space.follow(atomic.memory().into_inner()));
    run.device
        .rebind(areas::<F, _>(&space, run.guest.ring()))
        .unwrap();
    let reason = use_chain(&space, run.taken, &chain).unwrap_err();
    assert!(matches!(reason, AddressError::Unmapped { .. }), "{reason}");
    let fault = run.device.fail(chain, reason);
    assert_eq!(run.device.poll(), Err(fault));

    run.guest = Guest::of(atomic.memory().into_inner());
    run.driver
        .rebind(areas::<F, _>(&run.guest.space(), 0))
        .unwrap();
    run.reset();
    run.pieces.retain(|other| *other != piece);
    for _ in 0..5 {
        assert!(run.add(&shape(true)));
    }
    run.drain(&space);
}

#[test]
fn memory_is_plugged_in_and_out_while_chains_are_in_flight() {
    is_plugged::<Split>();
    is_plugged::<SplitInOrder>();
    is_plugged::<Packed>();
    is_plugged::<PackedInOrder>();
    is_plugged::<Tagged>();
}
