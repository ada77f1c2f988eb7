//! Tables of pairs.

use shmbus_shm::{Window, heap};
use shmbus_table::{Epoch, TableError, TableLayout, TableOptions, TableWriter};

use crate::document::{check_examples, contents, table, to_bytes};

fn layout(slots: u32) -> TableLayout {
    TableLayout::with_options(slots, 16, TableOptions::new().pairs()).unwrap()
}

#[test]
fn tables_of_pairs_have_the_layout_told_of() {
    check_examples(&table("Table of pairs", "slots"), |[slots]| {
        let layout = layout(slots as u32);
        [layout.values_offset(), layout.bytes()]
    });

    let layout = layout(3);
    let window = heap(layout.bytes());
    let created = TableWriter::create(window.clone(), layout, 1, Epoch::FIRST, vec![0; 3]);
    if !window.has_pairs() {
        assert_eq!(created.unwrap_err(), TableError::NoPairs);
        eprintln!("SKIPPED: {}", TableError::NoPairs);
        return;
    }
    let _ = created.unwrap().publish(2, &[7, !7]).unwrap();
    let cell = window.narrow(layout.values_offset() + 2 * 16, 16).unwrap();
    assert_eq!(contents(&cell), to_bytes(&[7, !7]));
}
