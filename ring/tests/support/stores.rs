//! A note of what was stored, in order.

use std::sync::{Arc, Mutex};

use shmbus_shm::testing::Probe;

/// One store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    pub offset: usize,
    pub bytes: usize,
    pub value: u64,
}

/// Notes each store that goes through it.
#[derive(Clone, Debug, Default)]
pub struct Stores(Arc<Mutex<Vec<Store>>>);

impl Stores {
    /// What was stored since the last call.
    pub fn since(&self) -> Vec<Store> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Probe for Stores {
    fn store(&self, offset: usize, bytes: usize, value: u64) -> bool {
        let store = Store {
            offset,
            bytes,
            value,
        };
        self.0.lock().unwrap().push(store);
        true
    }
}
