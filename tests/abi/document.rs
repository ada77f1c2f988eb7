//! The document's tables, and how each sort of them is checked.

use std::collections::BTreeMap;
use std::fmt::Debug;

use shmbus_shm::{Bytes, Mapped, Window};
use shmbus_table::Value;

pub(crate) const DOC: &str = include_str!("../../docs/abi.md");

/// A table of the document: the names of its columns, and its rows.
pub(crate) struct DocTable {
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<&'static str>>,
}

/// The cells of a line of a table.
pub(crate) fn cells(line: &'static str) -> Option<Vec<&'static str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// The tables under heading `section`, in order.
pub(crate) fn tables(section: &str) -> Vec<DocTable> {
    tables_of(DOC, section)
}

/// The tables under heading `section` of another document, in order.
pub(crate) fn tables_of(document: &'static str, section: &str) -> Vec<DocTable> {
    let body = document
        .split("\n## ")
        .find(|part| part.lines().next() == Some(section))
        .unwrap_or_else(|| panic!("no section {section}"));
    let mut found = Vec::new();
    let mut open: Option<DocTable> = None;
    for line in body.lines() {
        match (cells(line), &mut open) {
            (Some(columns), None) => {
                open = Some(DocTable {
                    columns,
                    rows: Vec::new(),
                })
            }
            (Some(row), Some(table)) if !row[0].starts_with("---") => table.rows.push(row),
            (Some(_), Some(_)) => {}
            (None, _) => found.extend(open.take()),
        }
    }
    found.extend(open);
    for table in &found {
        assert!(!table.rows.is_empty());
        for row in &table.rows {
            assert_eq!(row.len(), table.columns.len(), "{row:?}");
        }
    }
    found
}

/// The one table of a section with this first column.
pub(crate) fn table(section: &str, first_column: &str) -> DocTable {
    let mut fitting = tables(section)
        .into_iter()
        .filter(|table| table.columns[0] == first_column);
    let found = fitting
        .next()
        .unwrap_or_else(|| panic!("{section} has no table of {first_column}"));
    assert!(
        fitting.next().is_none(),
        "{section} has two tables of {first_column}"
    );
    found
}

pub(crate) fn number(cell: &str) -> u64 {
    let parsed = match cell.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => cell.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{cell} is not a number"))
}

/// A copy of what a window holds.
pub(crate) fn contents(window: &Mapped) -> Vec<u8> {
    let mut bytes = vec![0; window.len()];
    Bytes::new(window, 0, window.len())
        .unwrap()
        .copy_to(0, &mut bytes);
    bytes
}

/// Checks the table of a structure against an instance of it: its rows name, in order, the fields of `expected`, find
/// their values at their offsets, and cover every byte once. What is expected of an array is its first element; each of
/// the others is one more than the one before.
pub(crate) fn check_structure(table: &DocTable, instance: &[u8], expected: &[(&str, u64)]) {
    assert_eq!(table.columns, ["offset", "type", "field"]);
    let mut expected = expected.iter();
    let mut end = 0;
    for row in &table.rows {
        let [offset, kind, field] = row[..] else {
            panic!("{row:?}");
        };
        let (width, count) = match kind.trim_end_matches(']').split_once('[') {
            Some((width, count)) => (width, number(count) as usize),
            None => (kind, 1),
        };
        let width = number(width.trim_start_matches('u')) as usize / 8;
        let offset = number(offset) as usize;
        assert_eq!(offset, end, "{field} follows what is before it");
        assert!(offset.is_multiple_of(width), "{field} is aligned");
        end = offset + width * count;
        let value = |bytes: &[u8]| {
            let word = bytes.iter().rev();
            word.fold(0, |value, byte| value << 8 | u64::from(*byte))
        };
        if field == "reserved" {
            assert!(instance[offset..end].iter().all(|byte| *byte == 0));
            continue;
        }
        let (name, wanted) = expected
            .next()
            .unwrap_or_else(|| panic!("what is {field}?"));
        assert!(field.starts_with(name), "{field} should be {name}");
        assert!(*wanted != 0, "a zero shows nothing");
        for (element, wanted) in instance[offset..end].chunks(width).zip(*wanted..) {
            assert_eq!(value(element), wanted, "{field}");
        }
    }
    assert_eq!(end, instance.len(), "every byte is told of");
    assert_eq!(expected.next(), None, "every field is told of");
}

/// The table with this first column whose number in its section is `nth`.
pub(crate) fn nth_table(section: &str, first_column: &str, nth: usize) -> DocTable {
    tables(section)
        .into_iter()
        .filter(|table| table.columns[0] == first_column)
        .nth(nth)
        .unwrap_or_else(|| panic!("{section} has no table {nth} of {first_column}"))
}

/// Checks the table of a payload against a value, which must also survive its way through words.
pub(crate) fn check_payload<V: Value + PartialEq + Debug>(
    table: &DocTable,
    value: &V,
    expected: &[(&str, u64)],
) {
    let mut words = vec![0; V::WORDS];
    value.encode(&mut words);
    assert_eq!(V::decode(&words).as_ref(), Ok(value));
    check_structure(table, &to_bytes(&words), expected);
}

/// Checks a table of names and numbers.
pub(crate) fn check_numbers(table: &DocTable, expected: &[(&str, u64)]) {
    let found: BTreeMap<&str, u64> = table
        .rows
        .iter()
        .map(|row| (row[0], number(row[1])))
        .collect();
    assert_eq!(found, expected.iter().copied().collect());
}

/// Checks a table of examples: what is computed from a row's first cells must be the others.
pub(crate) fn check_examples<const IN: usize, const OUT: usize>(
    table: &DocTable,
    compute: impl Fn([u64; IN]) -> [usize; OUT],
) {
    for row in &table.rows {
        let cells: Vec<u64> = row.iter().map(|cell| number(cell)).collect();
        let (input, output) = cells.split_at(IN);
        let found = compute(input.try_into().unwrap()).map(|value| value as u64);
        assert_eq!(output, found, "{row:?}");
    }
}

pub(crate) fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
