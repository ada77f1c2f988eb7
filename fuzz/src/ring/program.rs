//! How the fuzzer's bytes are read as steps.

use arbitrary::{Arbitrary, Result, Unstructured};

/// More than that are slow, and find no more.
const MOST_STEPS: usize = 200;

/// As many as there are bytes for. (A `Vec` would ask before each whether it is the last.)
pub(super) fn steps<'a, T: Arbitrary<'a>>(bytes: &mut Unstructured<'a>) -> Result<Vec<T>> {
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < MOST_STEPS {
        steps.push(bytes.arbitrary()?);
    }
    Ok(steps)
}

/// What may stand in a field of 16 bits: small numbers above all.
pub(super) fn field(bytes: &mut Unstructured<'_>) -> Result<u16> {
    let low: u8 = bytes.arbitrary()?;
    let high = bytes.int_in_range(0..=7)?;
    Ok(match high {
        7 => u16::from_le_bytes([low, bytes.arbitrary()?]),
        _ => u16::from(low % 20),
    })
}
