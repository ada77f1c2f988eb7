//! A region directory that its writer damages, before and while it is read: typed errors, or regions that hold what a
//! decoded entry promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::slot::Epoch;
use shmbus_shm::{
    DirectoryLayout, DirectoryReader, DirectoryWriter, MemoryId, Placement, Purpose, Region,
    RegionId, RegionKind, Section, heap,
};

const MAX_ENTRIES: usize = 100;

fuzz_target!(|input: (u8, Vec<(u16, u16)>, &[u8])| {
    let (entries, damage, script) = input;
    let entries = u32::from(entries) % MAX_ENTRIES as u32 + 1;
    let Ok(layout) = DirectoryLayout::new(entries) else {
        return;
    };
    let memory = heap(layout.bytes());
    let storage = || vec![0; MAX_ENTRIES];
    let mut writer = DirectoryWriter::create(&memory, layout, Epoch::FIRST, storage())
        .expect("the layout fits its own memory");
    for place in 0..entries {
        let published = writer.publish(place, &table(place));
        published.expect("the place exists");
    }

    tamper(&memory, &damage);
    let window = scripted(&memory, script);
    let Ok(mut reader) = DirectoryReader::attach(&window, storage(), storage()) else {
        return;
    };
    let entries = reader.header().layout.entries();
    for _ in 0..2 {
        let mut reports = 0;
        reader.changed(|place, entry| {
            assert!(place < entries);
            reports += 1;
            if let Ok(Some(region)) = entry {
                let Placement { offset, bytes, .. } = region.placement;
                assert!(offset.checked_add(bytes).is_some());
                assert!(region.purpose.kind.validate(bytes).is_ok());
            }
        });
        assert!(reports <= entries);
    }
    assert!(reader.entry(entries).is_err());
});

/// What an honest writer publishes.
fn table(place: u32) -> Region {
    Region {
        id: RegionId(u64::from(place) + 1),
        purpose: Purpose {
            device: Some(place),
            role: 0,
            kind: RegionKind::Table {
                slots: 8,
                slot_bytes: 16,
            },
            class: 0,
            rights: Section::Host.rights(),
            channel: None,
        },
        placement: Placement {
            memory: MemoryId::HOST,
            offset: u64::from(place) * 4096,
            bytes: 4096,
        },
        epoch: 1,
    }
}
