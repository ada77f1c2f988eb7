//! What transactions promise, on memory that behaves, dies and lies.

mod death;
mod hostile;
mod model;
mod promises;

use shmbus_shm::{Mapped, Window, heap};

use super::{TYPE_ID, stamped};
use crate::{
    Epoch, Generation, SnapshotError, SnapshotReader, TableLayout, TableOptions, TransactionWriter,
};

type Writer<W> = TransactionWriter<W, Vec<u64>>;
type Reader<W> = SnapshotReader<W, Vec<u64>>;

fn layout(slots: u32, slot_bytes: u32, copies: u32) -> TableLayout {
    let options = TableOptions::new().copies(copies).transactions();
    TableLayout::with_options(slots, slot_bytes, options).unwrap()
}

/// Storage for a table of `layout`, and for transactions of all its slots.
fn storage(layout: TableLayout) -> (Vec<u64>, Vec<u64>) {
    let slots = layout.slots() as usize;
    let staging = TransactionWriter::<Mapped, Vec<u64>>::staging_words(layout, slots);
    (vec![0; slots], vec![0; staging])
}

fn writer<W: Window>(window: &W, layout: TableLayout) -> Writer<W> {
    let (cursors, staging) = storage(layout);
    TransactionWriter::create(
        window.clone(),
        layout,
        TYPE_ID,
        Epoch::FIRST,
        cursors,
        staging,
    )
    .unwrap()
}

fn resume<F: Window, W: Window>(from: &F, window: &W, layout: TableLayout) -> Writer<W> {
    let (cursors, staging) = storage(layout);
    let (writer, recovered) =
        TransactionWriter::resume(from, window.clone(), cursors, staging).unwrap();
    assert_eq!(recovered.lost, 0);
    writer
}

fn reader<W: Window>(window: &W, layout: TableLayout) -> Reader<W> {
    let (cursors, _) = storage(layout);
    SnapshotReader::attach(window.clone(), cursors.clone(), cursors).unwrap()
}

fn table(layout: TableLayout) -> (Mapped, Writer<Mapped>, Reader<Mapped>) {
    let window = heap(layout.bytes());
    let writer = writer(&window, layout);
    let reader = reader(&window, layout);
    (window, writer, reader)
}

/// Writes `number` to each of `slots` in one transaction.
fn commit<W: Window>(writer: &mut Writer<W>, slots: &[u32], number: u64) -> Generation {
    let value = stamped(writer.layout(), number);
    let mut transaction = writer.begin();
    for slot in slots {
        transaction.stage(*slot, &value).unwrap();
    }
    let (committed, notify) = transaction.commit().unwrap();
    assert_eq!(notify.is_needed(), !slots.is_empty());
    committed
}

/// Which transaction wrote each of `slots`, 0 for none, after checking that each is whole.
fn look<W: Window>(reader: &mut Reader<W>, slots: &[u32]) -> Result<Vec<u64>, SnapshotError> {
    let layout = reader.layout();
    let mut values = vec![0; slots.len() * layout.slot_words()];
    let mut generations = vec![None; slots.len()];
    reader.read_together(slots, &mut values, &mut generations)?;
    let values = values.chunks(layout.slot_words());
    let numbers = values.zip(&generations).map(|(value, generation)| {
        generation.map_or(0, |_| {
            let number = value[0] >> 16;
            assert_eq!(value, stamped(layout, number), "torn");
            number
        })
    });
    Ok(numbers.collect())
}

fn all(layout: TableLayout) -> Vec<u32> {
    (0..layout.slots()).collect()
}
