//! At which width each place is accessed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shmbus_shm::testing::Probe;

/// Notes at which width each place is accessed, and accepts no second one.
#[derive(Clone, Debug, Default)]
pub struct Widths(Arc<Mutex<BTreeMap<usize, usize>>>);

impl Widths {
    /// Bytes of an access, by its offset.
    pub fn found(&self) -> BTreeMap<usize, usize> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, offset: usize, bytes: usize) {
        let first = *self.0.lock().unwrap().entry(offset).or_insert(bytes);
        assert_eq!(first, bytes, "two widths at {offset:#x}");
    }
}

impl Probe for Widths {
    fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
        self.note(offset, bytes);
        value
    }

    fn store(&self, offset: usize, bytes: usize, _: u64) -> bool {
        self.note(offset, bytes);
        true
    }
}
