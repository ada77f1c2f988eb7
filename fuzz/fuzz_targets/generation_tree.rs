//! A generation tree whose writer stores anything at any time: a scan ends, and reports leaves that exist.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::{TreeLayout, TreeReader, heap};

fuzz_target!(|input: (u16, Vec<(u16, u16)>, &[u8])| {
    let (leaves, words, script) = input;
    let Ok(layout) = TreeLayout::new(u32::from(leaves % 512)) else {
        return;
    };
    let memory = heap(layout.bytes());
    tamper(&memory, &words);
    let window = scripted(&memory, script);
    let Ok(mut reader) = TreeReader::new(&window, layout, vec![0; layout.leaves() as usize]) else {
        return;
    };
    for _ in 0..4 {
        let mut reports = 0;
        reader.changed(|leaf, _| {
            assert!(leaf < layout.leaves());
            reports += 1;
        });
        assert!(reports <= layout.leaves());
    }
});
