//! What everything is made of: directory, slots, trees, tables, doorbells.

use shmbus_shm::slot::{Epoch, TRIES, WALK_STEPS, copy_stride};
use shmbus_shm::{
    DirectoryHeader, DirectoryLayout, DirectoryWriter, MemoryId, PRIORITY_CLASSES, Permission,
    Placement, Purpose, Region, RegionId, RegionKind, RingFormat, Section, TreeLayout, TreeWriter,
    Window, Writing, directory, heap,
};
use shmbus_signal::suppress::{Arm, DoorbellLayout, Receiver, Sender};
use shmbus_signal::{CLASSES, ChannelId};
use shmbus_table::{
    Generation, TableFlags, TableLayout, TableOptions, TableWriter, TransactionWriter,
    max_snapshot_loads,
};

use crate::document::{
    check_examples, check_numbers, check_structure, contents, number, table, tables, to_bytes,
};

fn region() -> Region {
    Region {
        id: RegionId(0x0102_0304_0506_0708),
        purpose: Purpose {
            device: Some(0x1112_1314),
            role: 0x2122,
            kind: RegionKind::Table {
                slots: 0x3132,
                slot_bytes: 0x40,
            },
            class: 3,
            rights: Section::Guest.rights(),
            channel: Some(0x0352_5354),
        },
        placement: Placement {
            memory: MemoryId::new(Section::Guest, 0x1516),
            offset: 0x6162_6364_6500,
            bytes: 0x7172_7374_7576,
        },
        epoch: 0x8182_8384_8586_8788,
    }
}

#[test]
fn memories_have_the_sections_told_of() {
    let sections = table("Memories", "section");
    for (row, section) in sections.rows.iter().zip(Section::ALL) {
        let rights = section.rights();
        let told = [
            section.to_string(),
            (section as u8).to_string(),
            format!("{:?}", rights.host),
            format!("{:?}", rights.guest),
        ];
        assert_eq!(row[..4], told);
        let id = MemoryId::new(section, 5);
        assert_eq!(id.0, section as u32 + 4 * 5);
        assert_eq!((id.section(), id.ordinal()), (section, 5));
    }
    assert_eq!(sections.rows.len(), Section::ALL.len());
}

#[test]
fn generations_have_the_bits_told_of() {
    let fields = table("Generations", "bits");
    assert_eq!(fields.rows.len(), 3);
    let field = |name: &str| {
        let row = fields
            .rows
            .iter()
            .find(|row| row[1].starts_with(name))
            .unwrap();
        let (low, high) = row[0].split_once('-').unwrap();
        (number(low), number(high) - number(low) + 1)
    };
    let ((count_at, count_bits), (epoch_at, epoch_bits)) = (field("count"), field("epoch"));
    let last = Epoch::new(((1_u32 << epoch_bits) - 1) as u16).unwrap();
    assert_eq!(last.next(), None);
    let most = (1 << count_bits) - 1;
    assert_eq!(Generation::new(last, most + 1), None);
    let generation = Generation::new(last, most).unwrap();
    assert_eq!(
        generation.word(),
        most << count_at | u64::from(last.get()) << epoch_at
    );
    let row = &fields.rows[2];
    assert_eq!((number(row[0]), row[1]), (count_bits + epoch_bits, "zero"));
}

#[test]
fn slots_have_the_copies_told_of() {
    check_examples(&table("Slot", "payload bytes"), |[bytes]| {
        [copy_stride(bytes as usize / 8)]
    });

    // Three values of the second slot of a table: each lies in its copy, behind its sequence.
    let layout = TableLayout::with_copies(2, 16, 4).unwrap();
    let window = heap(layout.bytes());
    let epoch = Epoch::new(2).unwrap();
    let mut writer = TableWriter::create(window.clone(), layout, 1, epoch, vec![0; 2]).unwrap();
    let fields = table("Slot", "offset").rows;
    assert_eq!(fields[0], ["0", "u64", "sequence"]);
    assert_eq!(fields[1], ["8", "u64[payload]", "payload"]);
    for value in 1..=6 {
        let (generation, _) = writer.publish(1, &[value, !value]).unwrap();
        let generation = generation.word();
        let copy = layout.values_offset()
            + (4 + generation as usize % 4) * copy_stride(layout.slot_words());
        let copy = window.narrow(copy, 24).unwrap();
        assert_eq!(contents(&copy), to_bytes(&[2 * generation, value, !value]));
        let tree = layout.tree();
        let head = layout.tree_offset() + tree.offset(tree.levels()) + 8;
        let head = window.narrow(head, 8).unwrap();
        assert_eq!(contents(&head), generation.to_le_bytes());
    }
}

#[test]
fn trees_have_the_levels_told_of() {
    check_examples(&table("Generation tree", "leaves"), |[leaves]| {
        let tree = TreeLayout::new(leaves as u32).unwrap();
        [tree.levels(), tree.offset(tree.levels()), tree.bytes()]
    });

    // Two changes below two nodes of each level: every stamp on the way up is the count of changes then.
    let tree = TreeLayout::new(4096).unwrap();
    let window = heap(tree.bytes());
    let mut writer = TreeWriter::create(&window, tree).unwrap();
    writer.mark(70, 0x77);
    writer.mark(4000, 0x88);
    let found = contents(&window);
    let word = |offset| u64::from_le_bytes(found[offset..offset + 8].try_into().unwrap());
    assert_eq!(word(0), 2, "root");
    assert_eq!((word(64), word(64 + 8 * (4000 / 256))), (1, 2), "stamps");
    assert_eq!(
        (word(192 + 8 * (70 / 16)), word(192 + 8 * (4000 / 16))),
        (1, 2),
        "stamps"
    );
    assert_eq!(
        (word(2240 + 8 * 70), word(2240 + 8 * 4000)),
        (0x77, 0x88),
        "leaves"
    );
    assert_eq!(found.iter().filter(|byte| **byte != 0).count(), 7);
}

#[test]
fn directories_have_the_layout_told_of() {
    let tables = tables("Directory");
    let header = &tables[0];
    check_examples(&table("Directory", "entries"), |[entries]| {
        let layout = DirectoryLayout::new(entries as u32).unwrap();
        [
            layout.tree_offset(),
            layout.entries_offset(),
            layout.bytes(),
        ]
    });

    let layout = DirectoryLayout::new(16).unwrap();
    let window = heap(layout.bytes());
    let epoch = Epoch::new(0x1234).unwrap();
    let writing = Writing::Unenforced;
    let said = DirectoryHeader {
        layout,
        epoch,
        writing,
    };
    let mut writer = DirectoryWriter::create_with(&window, said, vec![0; 16]).unwrap();
    writer.publish(2, &region()).unwrap();
    check_structure(
        header,
        &contents(&window.narrow(0, 64).unwrap()),
        &[
            ("magic: `shmbusdr`", u64::from_le_bytes(*b"shmbusdr")),
            ("version: 3", 3),
            ("entries: 1 to 65536", 16),
            ("entry bytes: 120", 120),
            ("copies of an entry: 4", 4),
            ("epoch", 0x1234),
            ("flags", 1),
        ],
    );

    let entry = tables
        .iter()
        .filter(|table| table.columns[0] == "offset")
        .nth(1)
        .unwrap();
    // Place 2, generation 1 of it: copy 1. Behind the sequence lies the payload.
    let copy = layout.entries_offset() + (2 * 4 + 1) * copy_stride(directory::ENTRY_WORDS);
    let payload = window.narrow(copy + 8, directory::ENTRY_WORDS * 8).unwrap();
    check_structure(
        entry,
        &contents(&payload),
        &[
            ("id", 0x0102_0304_0506_0708),
            ("device", 0x1112_1314),
            ("role", 0x2122),
            ("kind", 2),
            ("class", 3),
            ("memory", 4 * 0x1516 + 1),
            ("channel", 0x0352_5354),
            ("offset", 0x6162_6364_6500),
            ("bytes", 0x7172_7374_7576),
            ("first parameter", 0x3132),
            ("second parameter", 0x40),
            ("epoch of the memory", 0x8182_8384_8586_8788),
            ("host's permission", Permission::Read as u64),
            ("guest's permission", Permission::ReadWrite as u64),
        ],
    );
    assert_eq!(directory::encode(None), [0; directory::ENTRY_WORDS]);

    let mut nothing = region();
    nothing.purpose.device = None;
    nothing.purpose.channel = None;
    let words = directory::encode(Some(&nothing));
    assert_eq!(
        (words[1] as u32, words[2] >> 32),
        (0xffff_ffff, 0xffff_ffff)
    );
}

#[test]
fn the_numbers_of_an_entry_are_those_told_of() {
    let ring = |format| RegionKind::Ring { format, size: 256 };
    let kind = |kind: RegionKind| u64::from(kind.encode().0);
    check_numbers(
        &table("Directory", "kind"),
        &[
            ("Ring", kind(ring(RingFormat::Split))),
            ("Table", kind(region().purpose.kind)),
            ("Raw", kind(RegionKind::Raw { params: [0; 2] })),
        ],
    );
    let formats = [RingFormat::Split, RingFormat::Packed, RingFormat::Tagged];
    let told = table("Directory", "ring format");
    assert_eq!(told.rows.len(), formats.len());
    for (row, format) in told.rows.iter().zip(formats) {
        assert_eq!(row[0], format!("{format:?}"));
        assert_eq!(ring(format).encode().1, [256, number(row[1])]);
    }
    check_numbers(
        &table("Directory", "permission"),
        &[
            ("None", Permission::None as u64),
            ("Read", Permission::Read as u64),
            ("ReadWrite", Permission::ReadWrite as u64),
        ],
    );
}

#[test]
fn tables_have_the_layout_told_of() {
    let options = |flags: u64, copies: u64| {
        let flags = TableFlags::from_bits(flags as u32).unwrap();
        let mut options = TableOptions::new().copies(copies as u32);
        if flags.contains(TableFlags::TRANSACTIONS) {
            options = options.transactions();
        }
        if flags.contains(TableFlags::AGES) {
            options = options.ages(1);
        }
        assert_eq!(
            TableLayout::with_options(1, 8, options).unwrap().flags(),
            flags
        );
        options
    };
    check_examples(
        &table("Table", "slots"),
        |[slots, slot_bytes, copies, flags]| {
            let options = options(flags, copies);
            let layout =
                TableLayout::with_options(slots as u32, slot_bytes as u32, options).unwrap();
            [layout.tree_offset(), layout.values_offset(), layout.bytes()]
        },
    );
    for row in table("Table", "flag").rows {
        let bit = TableFlags::from_bits(1 << number(row[1])).unwrap();
        assert_eq!(bit.to_string(), row[0]);
    }

    let options = TableOptions::new().copies(8).ages(0x0102);
    let layout = TableLayout::with_options(5, 24, options).unwrap();
    let window = heap(layout.bytes());
    let epoch = Epoch::new(0x1234).unwrap();
    let mut writer =
        TableWriter::create(window.clone(), layout, 0x5152_5354, epoch, vec![0; 5]).unwrap();
    writer.beat();
    check_structure(
        &table("Table", "offset"),
        &contents(&window.narrow(0, 64).unwrap()),
        &[
            ("magic: `shmtable`", u64::from_le_bytes(*b"shmtable")),
            ("version: 2", 2),
            ("type", 0x5152_5354),
            ("slots: 1 to 65536", 5),
            ("bytes of a slot: 8 to 4096", 24),
            ("copies of a slot: 2, 4 or 8", 8),
            ("flags", 2),
            ("epoch", 0x1234),
            ("heartbeat", 2),
            ("beat", 0x0102),
        ],
    );
    let _ = writer.publish(3, &[7; 3]).unwrap();
    let published = window.narrow(layout.ages_offset() + 8 * 3, 8).unwrap();
    assert_eq!(contents(&published), 2_u64.to_le_bytes());
}

#[test]
fn transactions_have_the_words_told_of() {
    let layout = TableLayout::with_options(2, 16, TableOptions::new().transactions()).unwrap();
    let window = heap(layout.bytes());
    let epoch = Epoch::new(2).unwrap();
    let storage = vec![0; 6];
    let mut writer =
        TransactionWriter::create(window.clone(), layout, 1, epoch, storage.clone(), storage)
            .unwrap();
    let word = |offset| contents(&window.narrow(offset, 8).unwrap());
    let words: Vec<_> = table("Table", "word of a copy")
        .rows
        .iter()
        .map(|row| (row[0], number(row[1]) as usize))
        .collect();
    let [("sequence", sequence), ("number", number), ("value", value)] = words[..] else {
        panic!("{words:?}");
    };
    for count in 1..=6 {
        let mut transaction = writer.begin();
        for slot in 0..2 {
            transaction.stage(slot, &[count, !count]).unwrap();
        }
        let (committed, _) = transaction.commit().unwrap();
        assert_eq!(committed, Generation::new(epoch, count).unwrap());
        let committed = committed.word().to_le_bytes();
        assert_eq!(word(64), committed, "the commit word");
        let generation = writer.generation(1).unwrap().word();
        let copy = layout.values_offset() + (4 + generation as usize % 4) * 64;
        assert_eq!(word(copy + sequence), (2 * generation).to_le_bytes());
        assert_eq!(word(copy + number), committed);
        assert_eq!(word(copy + value), count.to_le_bytes());
        assert_eq!(word(copy + value + 8), (!count).to_le_bytes());
    }
}

#[test]
fn reads_have_the_bounds_told_of() {
    let bound = |call: &str| {
        let told = table("Table", "call").rows;
        told.iter().find(|row| row[0] == call).unwrap()[1]
    };
    let of_tries = format!("{TRIES} (1 + n (2 * {WALK_STEPS} + 1 + 2 (c + 1) + w + 1))");
    assert_eq!(bound("n slots as one"), of_tries);
    for (w, c, n) in [(1, 2, 1), (5, 4, 3), (512, 8, 65_536)] {
        let options = TableOptions::new().copies(c as u32).transactions();
        let layout = TableLayout::with_options(65_536, 8 * w as u32, options).unwrap();
        assert_eq!(
            max_snapshot_loads(layout, n),
            TRIES * (1 + n * (2 * WALK_STEPS + 1 + 2 * (c + 1) + w + 1)),
            "n slots as one"
        );
    }
}

#[test]
fn doorbells_have_the_layout_told_of() {
    let layout = DoorbellLayout::new(64).unwrap();
    let senders = heap(layout.tree_bytes());
    let receivers = heap(DoorbellLayout::ARMED_BYTES);
    let mut sender = Sender::new(&senders, &receivers, layout).unwrap();
    let mut receiver = Receiver::new(&senders, &receivers, layout, vec![0; 64]).unwrap();
    for _ in 0..4 {
        let _ = sender.raise(9).unwrap();
    }
    receiver.poll(|_, _| ());
    assert_eq!(receiver.arm(), Arm::Armed);
    check_structure(
        &table("Doorbell", "offset"),
        &contents(&receivers),
        &[("armed", 4 + 1)],
    );
    let leaf = senders.narrow(128 + 8 * 9, 8).unwrap();
    assert_eq!(
        contents(&leaf),
        4_u64.to_le_bytes(),
        "the stamp of the last raising"
    );
}

#[test]
fn the_numbers_are_those_told_of() {
    assert_eq!(CLASSES, usize::from(PRIORITY_CLASSES));
    check_numbers(
        &table("Numbers", "constant"),
        &[
            ("priority classes", CLASSES as u64),
            ("channels of a class", u64::from(ChannelId::MAX_CHANNELS)),
            ("nodes under a stamp", u64::from(TreeLayout::FAN_OUT)),
            ("leaves of a tree", u64::from(TreeLayout::MAX_LEAVES)),
            (
                "entries of a directory",
                u64::from(DirectoryLayout::MAX_ENTRIES),
            ),
            ("slots of a table", u64::from(TableLayout::MAX_SLOTS)),
            ("bytes of a slot", u64::from(TableLayout::MAX_SLOT_BYTES)),
            ("memories of a section", u64::from(MemoryId::PER_SECTION)),
        ],
    );
}
