//! What a table promises, on memory that behaves, dies and lies.

mod ages;
mod bounds;
mod death;
mod hostile;
mod mirror;
mod model;
mod pairs;
#[cfg(feature = "zerocopy")]
mod plain;
mod promises;
mod transactions;

use shmbus_shm::{Mapped, Window, heap};

use crate::{Epoch, Generation, ReadError, TableLayout, TableReader, TableWriter};

const TYPE_ID: u32 = 0x7465_7374;

/// Small, one line, several lines, large enough for the assembler's copy.
const SIZE_CLASSES: [u32; 5] = [8, 16, 64, 256, 4096];

type Writer<W> = TableWriter<W, Vec<u64>>;
type Reader<W> = TableReader<W, Vec<u64>>;

fn writer<W: Window>(window: &W, layout: TableLayout) -> Writer<W> {
    let cursors = vec![0; layout.slots() as usize];
    TableWriter::create(window.clone(), layout, TYPE_ID, Epoch::FIRST, cursors).unwrap()
}

fn reader<W: Window>(window: &W, layout: TableLayout) -> Reader<W> {
    let storage = vec![0; layout.slots() as usize];
    TableReader::attach(window.clone(), storage.clone(), storage).unwrap()
}

fn table(layout: TableLayout) -> (Mapped, Writer<Mapped>, Reader<Mapped>) {
    let window = heap(layout.bytes());
    let writer = writer(&window, layout);
    let reader = reader(&window, layout);
    (window, writer, reader)
}

/// A value whose words show which publication they are from. A value of one word is all there is to a small slot.
fn stamped(layout: TableLayout, number: u64) -> Vec<u64> {
    (0..layout.slot_words() as u64)
        .map(|word| number << 16 | word)
        .collect()
}

fn publish<W: Window>(writer: &mut Writer<W>, slot: u32, number: u64) -> Generation {
    let value = stamped(writer.layout(), number);
    let (generation, notify) = writer.publish(slot, &value).unwrap();
    assert!(notify.is_needed());
    generation
}

/// Reads a value and returns which publication it is from, after checking that it is whole.
fn read<W: Window>(reader: &mut Reader<W>, slot: u32) -> Result<(Generation, u64), ReadError> {
    let mut value = vec![0; reader.layout().slot_words()];
    let generation = reader.read(slot, &mut value)?;
    let number = value[0] >> 16;
    assert_eq!(value, stamped(reader.layout(), number), "torn");
    Ok((generation, number))
}

fn changes<W: Window>(reader: &mut Reader<W>) -> Vec<(u32, Generation)> {
    let mut found = Vec::new();
    reader.changed(|slot, generation| found.push((slot, generation)));
    found
}
