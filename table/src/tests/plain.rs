//! Plain data as values: from a peer too.

use proptest::prelude::*;
use shmbus_shm::heap;
use zerocopy::{Immutable, IntoBytes, TryFromBytes};

use super::*;
use crate::{
    AgeError, Plain, PlainValue, TableOptions, TransactionWriter, TypedReadError, TypedReader,
    TypedSnapshotError, TypedSnapshotReader, TypedTransactionWriter, TypedWriter, Value,
    layout_with,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable)]
#[repr(u8)]
enum State {
    Off = 0,
    On = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Lamp {
    lumens: u64,
    state: State,
    is_dimmed: bool,
    color: [u8; 6],
}

impl PlainValue for Lamp {
    const TYPE_ID: u32 = 0x6c61_6d70;
}

const LAMP: Lamp = Lamp {
    lumens: 800,
    state: State::On,
    is_dimmed: true,
    color: [1, 2, 3, 4, 5, 6],
};

#[test]
fn plain_data_is_read_as_it_was_published() {
    let layout = layout_with::<Plain<Lamp>>(2, TableOptions::new()).unwrap();
    let window = heap(layout.bytes());
    let (cursors, seen) = ([0; 2], [0; 2]);
    let writer = TypedWriter::<Plain<Lamp>, _, _>::create(window.clone(), 2, Epoch::FIRST, cursors);
    let mut writer = writer.unwrap();
    let mut reader =
        TypedReader::<Plain<Lamp>, _, _>::attach(window.clone(), cursors, seen).unwrap();
    let (generation, _) = writer.publish(1, &Plain(LAMP)).unwrap();
    assert_eq!(reader.read(1), Ok((Plain(LAMP), generation)));
    assert_eq!(reader.age(1), Err(AgeError::NotTold));

    // The same table under the hand of somebody who writes nonsense.
    let epoch = Epoch::new(2).unwrap();
    let mut liar =
        TableWriter::create(window.clone(), layout, Lamp::TYPE_ID, epoch, cursors).unwrap();
    let mut reader = TypedReader::<Plain<Lamp>, _, _>::attach(window, cursors, seen).unwrap();
    let (generation, _) = liar.publish(1, &[800, 0x02]).unwrap();
    let error = reader.read(1).unwrap_err();
    assert!(
        matches!(error, TypedReadError::Invalid { slot: 1, generation: found, .. } if found == generation)
    );
    assert!(error.to_string().contains("Lamp"), "{error}");
}

#[test]
fn plain_data_goes_through_transactions() {
    let layout =
        layout_with::<Plain<Lamp>>(3, TableOptions::new().copies(2).transactions()).unwrap();
    let window = heap(layout.bytes());
    let storage = || vec![0; 9];
    let table = TransactionWriter::create(
        window.clone(),
        layout,
        Lamp::TYPE_ID,
        Epoch::FIRST,
        storage(),
        storage(),
    );
    let mut writer = TypedTransactionWriter::<Plain<Lamp>, _, _>::new(table.unwrap()).unwrap();
    let mut reader =
        TypedSnapshotReader::<Plain<Lamp>, _, _>::attach(window, storage(), storage()).unwrap();
    let off = Plain(Lamp {
        state: State::Off,
        ..LAMP
    });
    let mut transaction = writer.begin();
    transaction.stage(0, &off).unwrap();
    transaction.stage(2, &Plain(LAMP)).unwrap();
    let _ = transaction.commit().unwrap();
    let [first, second, third] = reader.read_together(&[0, 1, 2], &mut [0; 6]).unwrap();
    assert_eq!(first.unwrap().0, off);
    assert_eq!(second, None);
    assert_eq!(third.unwrap().0, Plain(LAMP));
    let (generation, _) = writer.publish(2, &off).unwrap();
    assert_eq!(reader.read(2), Ok((off, generation)));
    assert!(matches!(
        reader.read_together(&[0, 1], &mut [0; 5]),
        Err(TypedSnapshotError::Snapshot(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 16 } else { 4096 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever the words are: a value whose words they are, or none.
    #[test]
    fn decoding_accepts_values_and_nothing_else(lumens: u64, state in 0..5u8, dimmed in 0..3u8, color: [u8; 6]) {
        let [a, b, c, d, e, f] = color;
        let words = [lumens, u64::from_le_bytes([state, dimmed, a, b, c, d, e, f])];
        match Plain::<Lamp>::decode(&words) {
            Ok(value) => {
                prop_assert!([0, 3].contains(&state) && dimmed < 2);
                prop_assert_eq!(value.0.color, color);
                let mut again = [0; 2];
                value.encode(&mut again);
                prop_assert_eq!(again, words);
            }
            Err(error) => {
                prop_assert!(![0, 3].contains(&state) || dimmed >= 2);
                prop_assert_eq!(error.found, lumens);
            }
        }
    }
}
