//! A generation tree whose writer stores anything at any time: a scan ends, and reports leaves that exist.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::scripted;
use shmbus_shm::{TreeLayout, TreeReader};

fuzz_target!(|input: (u16, Vec<u8>, Vec<u8>)| {
    let (leaves, contents, script) = input;
    let Ok(layout) = TreeLayout::new(u32::from(leaves % 512)) else {
        return;
    };
    let window = scripted(layout.bytes(), &contents, script);
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
