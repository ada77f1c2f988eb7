//! The manager against a model: what is in use never overlaps, and space comes back.
#![cfg(not(miri))] // Miri has no memfds

use core::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;
use crate::{Bytes, Field, SharedMemory, Window, Writers};

const MEMORY_BYTES: u64 = 32 * 1024;
const MAX_REGIONS: u32 = 12;
const RAW: RegionKind = RegionKind::Raw { params: [0; 2] };

fn spec(bytes: u64) -> RegionSpec {
    RegionSpec::new(Section::Common, RAW, bytes)
}

fn memory(bytes: u64) -> SharedMemory {
    SharedMemory::create("regions", bytes, Writers::Everybody).unwrap()
}

fn one_memory() -> OneMemory {
    OneMemory::created(MemoryId::COMMON, 0, memory(MEMORY_BYTES)).unwrap()
}

fn manager(backing: impl Backing + 'static) -> RegionManager {
    let manager = RegionManager::new(MAX_REGIONS);
    manager.back(Section::Common, backing).unwrap();
    manager
}

/// What is known of a region from outside.
struct Known {
    handle: RegionHandle,
    placement: Placement,
    registered: bool,
    revoked: bool,
    /// Whether its bytes hold its own value, and not zeros any more.
    filled: bool,
    leases: Vec<Lease>,
}

impl Known {
    fn fill(&self) -> u8 {
        self.handle.id().0 as u8 | 1
    }
}

#[derive(Clone, Debug)]
enum Step {
    Register { bytes: u64, alignment: u64 },
    Lease(usize),
    DropLease(usize),
    Revoke(usize),
    Unregister(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..=6000u64, 0..=12u32).prop_map(|(bytes, shift)| Step::Register {
            bytes,
            alignment: 1 << shift,
        }),
        2 => any::<usize>().prop_map(Step::Lease),
        2 => any::<usize>().prop_map(Step::DropLease),
        1 => any::<usize>().prop_map(Step::Revoke),
        2 => any::<usize>().prop_map(Step::Unregister),
    ];
    proptest::collection::vec(step, 1..80)
}

fn run(manager: &RegionManager, steps: Vec<Step>) {
    let mut known: Vec<Known> = Vec::new();
    for step in steps {
        match step {
            Step::Register { bytes, alignment } => {
                let registered = known.iter().filter(|region| region.registered).count();
                match manager.register(spec(bytes).aligned(alignment)) {
                    Ok(handle) => {
                        let placement = manager.region(handle).unwrap().placement;
                        assert!(placement.offset.is_multiple_of(alignment.max(64)));
                        assert_eq!(placement.bytes, bytes);
                        for other in &known {
                            assert!(!overlap(other.placement, placement), "still in use");
                            assert!(!other.registered || other.handle.slot() != handle.slot());
                            assert_ne!(other.handle, handle);
                        }
                        known.push(Known {
                            handle,
                            placement,
                            registered: true,
                            revoked: false,
                            filled: false,
                            leases: Vec::new(),
                        });
                    }
                    Err(RegionError::TooMany { .. }) => {
                        assert_eq!(registered, MAX_REGIONS as usize)
                    }
                    Err(RegionError::Backing(_)) => assert!(!known.is_empty()),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Lease(index) => {
                if let Some(region) = pick(&mut known, index) {
                    match manager.lease(region.handle) {
                        Ok(lease) => {
                            assert!(region.registered && !region.revoked);
                            assert_eq!(lease.window().len() as u64, region.placement.bytes);
                            let bytes =
                                Bytes::new(lease.window(), 0, lease.window().len()).unwrap();
                            let mut found = vec![0xff; bytes.len()];
                            bytes.copy_to(0, &mut found);
                            let expected = if region.filled { region.fill() } else { 0 };
                            assert!(found.iter().all(|byte| *byte == expected));
                            found.fill(region.fill());
                            bytes.copy_from(0, &found);
                            region.filled = true;
                            region.leases.push(lease);
                        }
                        Err(RegionError::Revoked { .. }) => {
                            assert!(region.registered && region.revoked)
                        }
                        Err(RegionError::Unregistered { .. }) => assert!(!region.registered),
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            Step::DropLease(index) => {
                if let Some(region) = pick(&mut known, index) {
                    region.leases.pop();
                }
            }
            Step::Revoke(index) => {
                if let Some(region) = pick(&mut known, index) {
                    assert_eq!(manager.revoke(region.handle).is_ok(), region.registered);
                    region.revoked = true;
                }
            }
            Step::Unregister(index) => {
                if let Some(region) = pick(&mut known, index) {
                    assert_eq!(manager.unregister(region.handle).is_ok(), region.registered);
                    region.registered = false;
                    region.revoked = true;
                }
            }
        }
        for region in &known {
            for lease in &region.leases {
                assert_eq!(lease.is_revoked(), region.revoked);
                let byte = Bytes::new(lease.window(), lease.window().len() - 1, 1).unwrap();
                let mut last = [0];
                byte.copy_to(0, &mut last);
                assert_eq!(last[0], region.fill(), "nobody else writes here");
            }
        }
        known.retain(|region| region.registered || !region.leases.is_empty());
        assert_eq!(
            manager.regions().len(),
            known.iter().filter(|region| region.registered).count()
        );
    }
    for region in &known {
        if region.registered {
            manager.unregister(region.handle).unwrap();
        }
    }
}

fn pick(known: &mut [Known], index: usize) -> Option<&mut Known> {
    let count = known.len().max(1);
    known.get_mut(index % count)
}

fn overlap(a: Placement, b: Placement) -> bool {
    a.memory == b.memory && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 64,
        ..ProptestConfig::default()
    })]

    #[test]
    fn one_memory_never_overlaps_and_comes_back(steps in steps()) {
        let manager = manager(one_memory());
        run(&manager, steps);
        manager.register(spec(MEMORY_BYTES)).unwrap();
    }

    #[test]
    fn open_ended_memories_never_overlap_and_come_back(steps in steps()) {
        let backing = OpenEnded::new("regions", Section::Common, 0, 8192, MEMORY_BYTES);
        let manager = manager(backing);
        run(&manager, steps);
        manager.each_memory(|id, _| panic!("{id:?} is in use by nobody"));
        manager.register(spec(MEMORY_BYTES)).unwrap();
    }

    #[test]
    fn fixed_windows_never_overlap_and_come_back(steps in steps()) {
        let backing = FixedWindows::new(Section::Common, 4, 6000, |_, bytes| {
            Ok(memory(bytes))
        });
        let manager = manager(backing);
        run(&manager, steps);
        for _ in 0..4 {
            manager.register(spec(6000)).unwrap();
        }
    }
}

#[test]
fn windows_of_a_fixed_number_are_set_up_and_torn_down_as_used() {
    let set_up = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&set_up);
    let manager = manager(FixedWindows::new(
        Section::Common,
        2,
        4096,
        move |_, bytes| {
            counter.fetch_add(1, Relaxed);
            Ok(memory(bytes))
        },
    ));
    assert_eq!(set_up.load(Relaxed), 0);
    let first = manager.register(spec(4096)).unwrap();
    let second = manager.register(spec(64)).unwrap();
    assert_eq!(
        manager.register(spec(64)).unwrap_err().to_string(),
        "all 2 windows are in use"
    );
    assert!(matches!(
        manager.register(spec(4097)),
        Err(RegionError::Backing(BackingError::LargerThanWindow { .. }))
    ));

    // The last window holds the place, not the registration.
    let lease = manager.lease(first).unwrap();
    manager.unregister(first).unwrap();
    assert!(manager.register(spec(64)).is_err());
    let narrowed = lease.window().narrow(8, 8).unwrap();
    drop(lease);
    assert!(manager.register(spec(64)).is_err());
    drop(narrowed);
    let third = manager.register(spec(64)).unwrap();
    assert_eq!(set_up.load(Relaxed), 3);
    assert_eq!(third.slot(), first.slot(), "the handle's place is taken");
    assert!(matches!(
        manager.region(first),
        Err(RegionError::Unregistered { .. })
    ));
    manager.unregister(second).unwrap();
}

#[test]
fn open_ended_memories_stay_under_their_quota() {
    let manager = manager(OpenEnded::new(
        "regions",
        Section::Common,
        0,
        4096,
        3 * 4096,
    ));
    let large = manager.register(spec(4097)).unwrap();
    manager.register(spec(4096)).unwrap();
    let error = manager.register(spec(4096)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "4096 more bytes exceed the quota: 12288 of 12288 bytes are in use"
    );
    assert!(manager.register(spec(u64::MAX)).is_err());
    manager.unregister(large).unwrap();
    let again = manager.register(spec(4096)).unwrap();
    let memory = manager.region(again).unwrap().placement.memory;
    assert_eq!(
        memory,
        MemoryId::new(Section::Common, 2),
        "ids are not reused"
    );
}

#[test]
fn a_planned_memory_is_placed_in_first_and_mapped_later() {
    let manager = RegionManager::new(4);
    let planned = OneMemory::planned(MemoryId::GUEST, 8192).unwrap();
    manager.back(Section::Guest, planned).unwrap();
    let handle = manager
        .register(RegionSpec::new(Section::Guest, RAW, 4096))
        .unwrap();
    assert!(matches!(
        manager.lease(handle),
        Err(RegionError::Backing(BackingError::NotMapped { .. }))
    ));

    let short = memory(4096).window().clone();
    assert!(matches!(
        manager.attach(MemoryId::GUEST, 1, short),
        Err(RegionError::Backing(BackingError::WrongSize { .. }))
    ));
    let guest = memory(8192);
    manager
        .attach(MemoryId::GUEST, 1, guest.window().clone())
        .unwrap();
    let before = manager.lease(handle).unwrap();
    Field::<u64, _>::new(guest.window(), 0)
        .unwrap()
        .store(7, Relaxed);
    let field = Field::<u64, _>::new(before.window(), 0).unwrap();
    assert_eq!(field.load(Relaxed), 7);

    // The guest restarts: its next memory is leased from now on, the one before stays mapped where it is in use.
    let next = memory(8192).window().clone();
    manager.attach(MemoryId::GUEST, 2, next).unwrap();
    assert_eq!(manager.region(handle).unwrap().epoch, 2);
    let after = manager.lease(handle).unwrap();
    let next = Field::<u64, _>::new(after.window(), 0).unwrap();
    assert_eq!((field.load(Relaxed), next.load(Relaxed)), (7, 0));
}

#[test]
fn what_cannot_be_is_refused() {
    let manager = manager(one_memory());
    let read_only = Rights {
        host: Permission::Read,
        guest: Permission::Read,
    };
    assert!(manager.register(spec(64).limited_to(read_only)).is_ok());
    let ring = |format, size| RegionSpec {
        purpose: Purpose {
            kind: RegionKind::Ring { format, size },
            ..spec(64).purpose
        },
        ..spec(64)
    };
    assert!(manager.register(ring(RingFormat::Packed, 3)).is_ok());
    for (wrong, reason) in [
        (spec(0), "at least one byte"),
        (spec(64).aligned(48), "not a power of two"),
        (spec(64).aligned(8192), "not a power of two"),
        (spec(64).signalled(4, 0), "no priority class 4"),
        (spec(MEMORY_BYTES + 1), "contiguous bytes"),
        (
            RegionSpec::new(Section::Host, RAW, 64).limited_to(Section::Common.rights()),
            "more rights",
        ),
        (RegionSpec::new(Section::Host, RAW, 64), "has no memory"),
        (ring(RingFormat::Split, 3), "cannot have 3 entries"),
        (ring(RingFormat::Packed, 0), "cannot have 0 entries"),
        (ring(RingFormat::Tagged, 1), "cannot have 1 entries"),
        (ring(RingFormat::Tagged, 6), "cannot have 6 entries"),
    ] {
        let error = manager.register(wrong).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(manager.back(Section::Common, one_memory()).is_err());
    let foreign = memory(64).window().clone();
    assert!(manager.attach(MemoryId::COMMON, 0, foreign).is_err());
}

#[test]
fn a_map_of_memories_checks_regions_as_a_peers_word() {
    let mut map = MemoryMap::new();
    let region = |offset, bytes, epoch| Region {
        id: RegionId(1),
        purpose: spec(64).purpose,
        placement: Placement {
            memory: MemoryId::HOST,
            offset,
            bytes,
        },
        epoch,
    };
    assert!(matches!(
        map.window(&region(0, 64, 1)),
        Err(MemoryMapError::NotMapped { .. })
    ));
    map.insert(MemoryId::HOST, 1, crate::heap(4096));
    assert_eq!(map.window(&region(64, 4032, 1)).unwrap().len(), 4032);
    for (offset, bytes) in [(64, 4033), (4097, 0), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(matches!(
            map.window(&region(offset, bytes, 1)),
            Err(MemoryMapError::Outside { .. })
        ));
    }
    assert!(matches!(
        map.window(&region(0, 64, 2)),
        Err(MemoryMapError::WrongEpoch { .. })
    ));
}

#[test]
fn a_manager_that_is_gone_leaves_its_windows() {
    let manager = manager(one_memory());
    let handle = manager.register(spec(64)).unwrap();
    let lease = manager.lease(handle).unwrap();
    drop(manager);
    let field = Field::<u64, _>::new(lease.window(), 0).unwrap();
    field.store(1, Relaxed);
    assert_eq!(field.load(Relaxed), 1);
}
