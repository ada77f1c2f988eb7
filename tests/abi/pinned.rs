//! Tables with pins.

use shmbus_shm::slot::copy_stride;
use shmbus_shm::{Mapped, Window, heap};
use shmbus_table::pinned::{PinnedTableReader, PinnedTableWriter};
use shmbus_table::{Epoch, TableLayout, TableOptions};
use std::cell::Cell;

use crate::document::{DocTable, check_examples, contents, nth_table, number, table};

const SECTION: &str = "Table with pins";

/// The number in the bits that the row of `name` tells of.
fn bits(table: &DocTable, name: &str, word: u64) -> u64 {
    let row = table
        .rows
        .iter()
        .find(|row| row[1].starts_with(name))
        .unwrap();
    let (low, high) = row[0].split_once('-').unwrap();
    let (low, high) = (number(low), number(high));
    word >> low & (u64::MAX >> (63 - (high - low)))
}

fn layout(slots: u64, slot_bytes: u64, copies: u64) -> TableLayout {
    let options = TableOptions::new().copies(copies as u32).pinned();
    TableLayout::with_options(slots as u32, slot_bytes as u32, options).unwrap()
}

fn word(window: &Mapped, offset: usize) -> u64 {
    u64::from_le_bytes(
        contents(&window.narrow(offset, 8).unwrap())
            .try_into()
            .unwrap(),
    )
}

#[test]
fn tables_with_pins_have_the_layout_told_of() {
    check_examples(&table(SECTION, "slots"), |[slots, slot_bytes, copies]| {
        let layout = layout(slots, slot_bytes, copies);
        assert_eq!((layout.seats_offset(), layout.tree_offset()), (64, 128));
        [
            layout.places_offset(),
            layout.values_offset(),
            layout.bytes(),
            layout.announcements_bytes(),
        ]
    });
}

#[test]
fn places_seats_and_announcements_have_the_bits_told_of() {
    let layout = layout(2, 16, 2);
    let (window, others, own) = (heap(layout.bytes()), heap(16), heap(16));
    let epoch = Epoch::new(0x1234).unwrap();
    let mut writer =
        PinnedTableWriter::create(window.clone(), layout, 1, epoch, [0; 2], [0; 2]).unwrap();
    writer.subscribe(others).unwrap();
    let seat = writer.subscribe(own.clone()).unwrap();
    let told = nth_table(SECTION, "bits", 1);
    let found = word(&window, 64 + 8);
    assert_eq!(found, seat.word());
    let fields = ["index", "count", "epoch", "zero"].map(|name| bits(&told, name, found));
    assert_eq!(fields, [1, 1, 0x1234, 0]);

    let cursors = [const { Cell::new(0) }; 2];
    let mut reader = PinnedTableReader::attach(window.clone(), cursors, [0; 2]).unwrap();
    reader.take_seat(own.clone(), seat).unwrap();
    let told = nth_table(SECTION, "bits", 0);
    for count in 1..=9 {
        let (generation, _) = writer.publish(1, &[count, !count]).unwrap();
        let place = word(&window, layout.places_offset() + 64);
        let [copy, intent, low] = ["copy", "intent", "count"].map(|name| bits(&told, name, place));
        assert_eq!((intent, low), (0, count));
        let at = layout.values_offset() + (4 + copy as usize) * copy_stride(2);
        let found = [0, 8, 16].map(|word_at| word(&window, at + word_at));
        assert_eq!(found, [2 * generation.word(), count, !count]);

        let pinned = reader.pin(1).unwrap();
        assert_eq!(word(&own, 8), copy + 1);
        drop(pinned);
        assert_eq!(word(&own, 8), 0);
    }
}
