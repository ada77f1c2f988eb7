//! Announcements that may be anything, at any moment, and a table that its writer damages under a reader that pins: the
//! honest writer does the same work, other readers find every value, and the reader gets typed errors or words.
#![no_main]

use std::cell::Cell;

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::testing::{Counting, Probed};
use shmbus_shm::{Window, heap};
use shmbus_table::pinned::{PinnedTableReader, PinnedTableWriter, Seat};
use shmbus_table::{Epoch, TableLayout, TableOptions};

const MAX_SLOTS: usize = 5;
const MAX_COPIES: u64 = 8;

fuzz_target!(
    |input: (u8, u8, u8, Vec<u8>, Vec<(u16, u16)>, &[u8], &[u8])| {
        let (slots, words, copies, publications, damage, announced, script) = input;
        let slots = u32::from(slots) % MAX_SLOTS as u32 + 1;
        let copies = [2, 4, 8][usize::from(copies) % 3];
        let options = TableOptions::new().copies(copies).pinned();
        let Ok(layout) = TableLayout::with_options(slots, 8 * (u32::from(words) % 9 + 1), options)
        else {
            return;
        };
        let memory = heap(layout.bytes());
        let storage = || vec![0; MAX_SLOTS];
        let mut writer = PinnedTableWriter::create(
            memory.clone(),
            layout,
            7,
            Epoch::FIRST,
            storage(),
            storage(),
        )
        .expect("the layout fits its own memory");
        let loads = Counting::default();
        // The liars share one script, so that each says something else at each publication.
        let own = scripted(&heap(layout.announcements_bytes()), announced);
        let mut subscribed = 0;
        while writer
            .subscribe(Probed::new(own.clone(), loads.clone()))
            .is_ok()
        {
            subscribed += 1;
        }
        assert_eq!(subscribed, u64::from(copies).min(MAX_COPIES));

        let cells = || vec![const { Cell::new(0) }; MAX_SLOTS];
        let others = PinnedTableReader::<_, _, _, _>::attach(memory.clone(), cells(), storage());
        let mut others = others.expect("the table is there");
        let nothing = heap(layout.announcements_bytes());
        others
            .take_seat(nothing, Seat::from_word(0))
            .expect("the memory is large enough");
        let mut value = vec![0; layout.slot_words()];
        for (number, slot) in (1..).zip(publications) {
            let slot = u32::from(slot) % slots;
            let before = loads.loads();
            let published = writer.publish(slot, &vec![number; layout.slot_words()]);
            let (generation, _) = published.expect("the slot exists");
            assert_eq!(loads.loads() - before, subscribed);
            assert_eq!(others.read(slot, &mut value), Ok(generation));
            assert!(value.iter().all(|word| *word == number));
        }

        tamper(&memory, &damage);
        let lying = scripted(&memory, script);
        let Ok(mut reader) = PinnedTableReader::attach(lying, cells(), storage()) else {
            return;
        };
        let layout = reader.layout();
        let own = heap(layout.announcements_bytes());
        // The first seat that the writer gave, so that it is sometimes found in the table.
        let seat = Seat::from_word(1 << 48);
        reader
            .take_seat(own.clone(), seat)
            .expect("the memory is large enough");
        for slot in 0..=layout.slots() {
            let before = reader.generation(slot);
            if let Ok(pinned) = reader.pin(slot) {
                assert!(slot < layout.slots());
                assert!(before.is_none_or(|before| before <= pinned.generation()));
                assert_eq!(pinned.words().count(), layout.slot_words());
                let _ = (pinned.check(), reader.read(slot, &mut value));
            }
        }
        let bytes = shmbus_shm::Bytes::new(&own, 0, own.len()).expect("the memory's own bytes");
        let mut left = vec![0; own.len()];
        bytes.copy_to(0, &mut left);
        assert!(
            left.iter().all(|byte| *byte == 0),
            "everything is withdrawn"
        );
    }
);
