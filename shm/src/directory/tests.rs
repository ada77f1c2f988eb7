//! The directory: whole entries under change, hostility and death, at a cost of what changed.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::slot::Epoch;
use crate::testing::{Counting, Dying, Hostile, Probe, Probed};
use crate::tree::Scan;
use crate::{
    Field, Mapped, MemoryId, Permission, Placement, Purpose, Region, RegionId, RegionKind, Rights,
    RingFormat, Section, Window, heap,
};

const EPOCH: Epoch = Epoch::FIRST;

fn memory(entries: u32) -> (DirectoryLayout, Mapped) {
    let layout = DirectoryLayout::new(entries).unwrap();
    (layout, heap(layout.bytes()))
}

fn storage(layout: DirectoryLayout) -> Vec<u64> {
    vec![0; layout.entries() as usize]
}

fn writer<W: Window>(window: &W, layout: DirectoryLayout) -> DirectoryWriter<W, Vec<u64>> {
    DirectoryWriter::create(window, layout, EPOCH, storage(layout)).unwrap()
}

fn reader<W: Window>(window: &W, layout: DirectoryLayout) -> DirectoryReader<W, Vec<u64>> {
    DirectoryReader::attach(window, storage(layout), storage(layout)).unwrap()
}

/// A region whose every number follows from its id.
fn numbered(id: u64) -> Region {
    Region {
        id: RegionId(id),
        purpose: Purpose {
            device: Some(id as u32),
            role: id as u16,
            kind: RegionKind::Raw { params: [id, !id] },
            class: (id % 4) as u8,
            rights: Section::Guest.rights(),
            channel: Some(!id as u32),
        },
        placement: Placement {
            memory: MemoryId::GUEST,
            offset: id * 64,
            bytes: id * 8,
        },
        epoch: id,
    }
}

fn is_numbered(region: &Region) -> bool {
    *region == numbered(region.id.0)
}

type Found = BTreeMap<u32, Region>;

/// Takes over what changed.
fn follow<W: Window>(reader: &mut DirectoryReader<W, Vec<u64>>, found: &mut Found) -> Scan {
    reader.changed(|place, entry| match entry.unwrap() {
        Some(region) => {
            found.insert(place, region);
        }
        None => {
            found.remove(&place);
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: if cfg!(miri) { 2 } else { 128 },
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_reader_that_looks_now_and_then_ends_with_what_there_is(
        changes in proptest::collection::vec((0..70u32, 0..5u64, any::<bool>()), 1..100)
    ) {
        let (layout, memory) = memory(70);
        let (mut writer, mut reader) = (writer(&memory, layout), reader(&memory, layout));
        let (mut model, mut found) = (Found::new(), Found::new());
        for (place, id, look) in changes {
            if id == 0 {
                writer.withdraw(place).unwrap();
                model.remove(&place);
            } else {
                writer.publish(place, &numbered(id)).unwrap();
                model.insert(place, numbered(id));
            }
            if look {
                prop_assert_eq!(follow(&mut reader, &mut found), Scan::Finished);
                prop_assert_eq!(&found, &model);
                prop_assert!(reader.is_unchanged());
            }
        }
        follow(&mut reader, &mut found);
        prop_assert_eq!(&found, &model);
        for place in 0..70 {
            let entry = reader.entry(place).unwrap().unwrap();
            prop_assert_eq!(entry.as_ref(), model.get(&place));
        }
        prop_assert!(reader.entry(70).is_err());
        prop_assert!(writer.publish(70, &numbered(1)).is_err());
    }

    #[test]
    fn what_is_encoded_is_decoded(region in regions()) {
        prop_assert_eq!(decode(&encode(Some(&region))), Ok(Some(region)));
        prop_assert_eq!(decode(&encode(None)), Ok(None));
    }

    #[test]
    fn whatever_is_decoded_is_a_region_or_an_error(
        region in regions(),
        changes in proptest::collection::vec((0..9usize, 0..64u32, any::<u64>()), 0..4)
    ) {
        let mut words = encode(Some(&region));
        for (word, bit, value) in changes {
            words[word] = match bit {
                0..8 => value,
                8..16 => value >> 60,
                _ => words[word] ^ 1 << bit,
            };
        }
        if let Ok(Some(region)) = decode(&words) {
            prop_assert!(region.placement.offset.checked_add(region.placement.bytes).is_some());
            prop_assert!(region.placement.bytes > 0);
            prop_assert!(region.purpose.class < crate::PRIORITY_CLASSES);
            let limit = region.placement.memory.section().rights();
            prop_assert!(region.purpose.rights.within(limit));
            prop_assert_eq!(region.purpose.kind.validate(region.placement.bytes), Ok(()));
            prop_assert_eq!(decode(&encode(Some(&region))), Ok(Some(region)));
        }
    }

    #[test]
    fn a_hostile_directory_gives_errors_or_regions(seed in any::<u64>(), lies in 0..=255u8) {
        let (layout, memory) = memory(70);
        let mut writer = writer(&memory, layout);
        for place in 0..70 {
            writer.publish(place, &numbered(1 + u64::from(place))).unwrap();
        }
        let mut honest = reader(&memory, layout);
        let lying = Probed::new(memory.clone(), Hostile::new(seed, lies));
        // It may lie about its geometry...
        if let Ok(header) = DirectoryHeader::read(&lying) {
            prop_assert!(header.layout.bytes() <= memory.len());
        }
        // ...and about everything else once that is frozen.
        let switch = Switched::new(Hostile::new(seed, lies));
        let window = Probed::new(memory.clone(), switch.clone());
        let mut deceived = reader(&window, layout);
        switch.lie();
        for _ in 0..3 {
            let mut reported = 0;
            deceived.changed(|place, entry| {
                reported += 1;
                assert!(place < 70);
                if let Ok(Some(region)) = entry {
                    assert_eq!(decode(&encode(Some(&region))), Ok(Some(region)));
                }
            });
            prop_assert!(reported <= 70);
        }
        // Nothing of it comes to others.
        let mut found = Found::new();
        follow(&mut honest, &mut found);
        prop_assert!(found.len() == 70 && found.values().all(is_numbered));
    }
}

fn regions() -> impl Strategy<Value = Region> {
    let kind = prop_oneof![
        (0..3u8, 1..=15u32).prop_map(|(format, shift)| RegionKind::Ring {
            format: [RingFormat::Split, RingFormat::Packed, RingFormat::Tagged][format as usize],
            size: 1 << shift,
        }),
        (1..=65_536u32, 1..=512u32).prop_map(|(slots, words)| RegionKind::Table {
            slots,
            slot_bytes: words * 8,
        }),
        any::<[u64; 2]>().prop_map(|params| RegionKind::Raw { params }),
    ];
    let purpose = (any::<u32>(), any::<u16>(), kind, 0..4u8, any::<u32>());
    let placement = (any::<u32>(), any::<u32>(), 1 << 28..u64::MAX >> 1);
    (1..u64::MAX, purpose, placement, any::<u64>(), 0..2u8).prop_map(
        |(id, (device, role, kind, class, channel), (memory, line, bytes), epoch, limit)| {
            let memory = MemoryId(memory);
            let rights = match limit {
                0 => memory.section().rights(),
                _ => Rights {
                    host: Permission::Read,
                    guest: Permission::None,
                },
            };
            Region {
                id: RegionId(id),
                purpose: Purpose {
                    device: (device != u32::MAX).then_some(device),
                    role,
                    kind,
                    class,
                    rights,
                    channel: (channel != u32::MAX).then_some(channel),
                },
                placement: Placement {
                    memory,
                    offset: u64::from(line) * 64,
                    bytes,
                },
                epoch,
            }
        },
    )
}

/// Lies from when it is told to.
#[derive(Clone, Debug)]
struct Switched {
    hostile: Hostile,
    lying: std::sync::Arc<AtomicBool>,
}

impl Switched {
    fn new(hostile: Hostile) -> Self {
        Self {
            hostile,
            lying: Default::default(),
        }
    }

    fn lie(&self) {
        self.lying.store(true, Relaxed);
    }
}

impl Probe for Switched {
    fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
        if self.lying.load(Relaxed) {
            self.hostile.load(offset, bytes, value)
        } else {
            value
        }
    }
}

#[test]
fn an_entry_that_describes_no_region_says_why() {
    let valid = encode(Some(&numbered(1)));
    assert!(decode(&valid).is_ok());
    let changed = |word: usize, value: u64| {
        let mut words = valid;
        words[word] = value;
        decode(&words).unwrap_err().to_string()
    };
    let numbers = |kind: u64, class: u64| kind << 48 | class << 56;
    for (error, reason) in [
        (
            changed(1, numbers(0, 0)),
            "no kind of region has the number 0",
        ),
        (
            changed(1, numbers(4, 0)),
            "no kind of region has the number 4",
        ),
        (changed(1, numbers(3, 4)), "no priority class 4"),
        (changed(2, 0), "more rights"),
        (changed(3, 32), "no region has 8 bytes at offset 0x20"),
        (
            changed(4, u64::MAX),
            "no region has 18446744073709551615 bytes",
        ),
        (changed(4, 0), "no region has 0 bytes"),
        (changed(8, 3), "no permission 3"),
        (changed(8, 2 << 8 | 2), "more rights"),
    ] {
        assert!(error.contains(reason), "{error}");
    }
    for (kind, params, reason) in [
        (1, [256, 3], "no ring format has the number 3"),
        (1, [0, 0], "a Split ring cannot have 0 entries"),
        (1, [255, 0], "a Split ring cannot have 255 entries"),
        (1, [1 << 16, 0], "a Split ring cannot have 65536 entries"),
        (1, [0, 1], "a Packed ring cannot have 0 entries"),
        (1, [32_769, 2], "a Tagged ring cannot have 32769 entries"),
        (2, [0, 8], "a table of 0 slots"),
        (2, [65_537, 8], "a table of 65537 slots"),
        (2, [1, 12], "slots of 12 bytes"),
        (2, [1, 4104], "slots of 4104 bytes"),
        (2, [513, 8], "cannot lie in 4096 bytes"),
        (2, [u64::MAX, u64::MAX], "a table of"),
    ] {
        let error = RegionKind::decode(kind, params, 4096)
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(
        RegionKind::decode(1, [255, 1], 4096).is_ok(),
        "packed rings need no power of two"
    );
}

#[test]
fn a_scan_costs_what_changed() {
    let entries = if cfg!(miri) { 128 } else { 16_384 };
    let (layout, memory) = memory(entries);
    let mut writer = writer(&memory, layout);
    for place in 0..entries {
        writer.publish(place, &numbered(1)).unwrap();
    }
    let counting = Counting::default();
    let mut reader = reader(&Probed::new(memory, counting.clone()), layout);
    let mut found = Found::new();
    follow(&mut reader, &mut found);
    assert_eq!(found.len(), entries as usize);

    let before = counting.loads();
    assert_eq!(follow(&mut reader, &mut found), Scan::Unchanged);
    assert_eq!(counting.loads() - before, 1);

    for place in [3, 4, 120] {
        writer.publish(place, &numbered(2)).unwrap();
    }
    let before = counting.loads();
    assert_eq!(follow(&mut reader, &mut found), Scan::Finished);
    let loads = counting.loads() - before;
    // The root, at most three wide levels, two groups of leaves, and three entries.
    let most = 1 + 3 * 64 + 2 * 64 + 3 * (crate::slot::max_loads(ENTRY_WORDS) as u64);
    assert!(loads <= most && loads < 600, "{loads}");
    assert_eq!(found[&120], numbered(2));
}

#[test]
fn a_writer_that_dies_anywhere_leaves_whole_entries() {
    let mut stores = 0;
    loop {
        let (layout, memory) = memory(3);
        let mut alive = writer(&memory, layout);
        for place in 0..3 {
            alive.publish(place, &numbered(7)).unwrap();
        }
        let mut early = reader(&memory, layout);
        let mut found = Found::new();
        follow(&mut early, &mut found);

        let dying = Dying::after(stores);
        let window = Probed::new(memory.clone(), dying.clone());
        let mut doomed = DirectoryWriter::create(&window, layout, EPOCH, storage(layout));
        if let Ok(writer) = &mut doomed {
            for id in 1..=6 {
                writer.publish(id as u32 % 3, &numbered(id)).unwrap();
            }
            writer.withdraw(0).unwrap();
        }
        early.changed(|_, entry| {
            // Formatted anew in place, generations go back: the reader may say so, but it invents nothing.
            assert!(
                entry.is_err()
                    || entry.is_ok_and(|region| region.is_none_or(|region| is_numbered(&region)))
            );
        });
        if DirectoryHeader::read(&memory).is_ok() {
            let mut late = reader(&memory, layout);
            let mut found = Found::new();
            follow(&mut late, &mut found);
            assert!(found.values().all(is_numbered));
        }
        if !dying.is_dead() {
            break;
        }
        stores += if cfg!(miri) { 37 } else { 1 };
    }
    assert!(stores > 7 * ENTRY_WORDS as u64);
}

#[test]
fn a_reader_beside_a_writer_gets_whole_entries() {
    let (layout, memory) = memory(70);
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = writer(&memory, layout);
            for round in 0..rounds {
                let place = (round * 7) % 70;
                if round % 5 == 4 {
                    writer.withdraw(place).unwrap();
                } else {
                    let region = numbered(1 + u64::from(round));
                    writer.publish(place, &region).unwrap();
                }
            }
            done.store(true, Release);
        });
        while DirectoryHeader::read(&memory).is_err() {
            std::thread::yield_now();
        }
        let mut reader = reader(&memory, layout);
        let mut found = Found::new();
        let mut whole = 0;
        loop {
            let finished = done.load(Acquire);
            reader.changed(|place, entry| match entry {
                Ok(Some(region)) => {
                    assert!(is_numbered(&region));
                    whole += 1;
                    found.insert(place, region);
                }
                Ok(None) => {
                    found.remove(&place);
                }
                Err(EntryError::Read(_)) => {}
                Err(error) => panic!("{error}"),
            });
            if finished && reader.is_unchanged() {
                break;
            }
            std::hint::spin_loop();
        }
        assert!(whole > 0);
        for place in 0..70 {
            let entry = reader.entry(place).unwrap().unwrap();
            assert_eq!(entry.as_ref(), found.get(&place), "nothing was missed");
        }
    });
}

#[test]
fn what_lay_in_the_memory_before_does_not_show() {
    let (layout, memory) = memory(2);
    let mut before = writer(&memory, layout);
    for id in 1..=3 {
        before.publish(0, &numbered(id)).unwrap();
    }
    let mut after = writer(&memory, layout);
    let mut reader = reader(&memory, layout);
    for id in 11..=13 {
        after.publish(0, &numbered(id)).unwrap();
        for _ in 0..2 {
            assert_eq!(reader.entry(0), Ok(Ok(Some(numbered(id)))));
        }
    }
}

#[test]
fn a_directory_says_whether_writing_is_enforced() {
    let (layout, window) = memory(8);
    writer(&window, layout);
    let enforced = DirectoryHeader::read(&window).unwrap();
    assert_eq!(enforced.writing, Writing::Enforced);
    let header = DirectoryHeader {
        writing: Writing::Unenforced,
        ..enforced
    };
    DirectoryWriter::create_with(&window, header, storage(layout)).unwrap();
    assert_eq!(DirectoryHeader::read(&window), Ok(header));
}

#[test]
fn what_is_no_directory_is_refused() {
    let (layout, window) = memory(8);
    let attach = |window: &Mapped| {
        DirectoryReader::attach(window, storage(layout), storage(layout)).map(drop)
    };
    assert_eq!(attach(&window), Err(DirectoryError::Magic { found: 0 }));
    writer(&window, layout);
    assert_eq!(attach(&window), Ok(()));
    assert!(matches!(
        attach(&window.narrow(0, layout.bytes() - 1).unwrap()),
        Err(DirectoryError::Window(_))
    ));
    assert!(matches!(
        DirectoryReader::attach(&window, vec![0; 8], vec![0; 7]),
        Err(DirectoryError::Storage { found: 7, .. })
    ));
    assert!(matches!(
        DirectoryReader::attach(&window, vec![0; 7], vec![0; 8]),
        Err(DirectoryError::Tree(_))
    ));
    for (offset, value, reason) in [
        (8, 4u32, "version 4"),
        (12, 0, "not 0"),
        (12, 65_537, "not 65537"),
        (12, 9, "does not fit"),
        (16, 128, "128 bytes"),
        (20, 8, "8 copies"),
        (24, 0, "0 is not an epoch"),
        (24, 1 << 15, "32768 is not an epoch"),
    ] {
        let (layout, memory) = memory(8);
        writer(&memory, layout);
        if offset == 24 {
            Field::<u64, _>::new(&memory, offset)
                .unwrap()
                .store(value.into(), Relaxed);
        } else {
            Field::<u32, _>::new(&memory, offset)
                .unwrap()
                .store(value, Relaxed);
        }
        let error = attach(&memory).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
