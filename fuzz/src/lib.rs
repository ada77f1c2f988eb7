//! What the fuzz targets share: memory whose peer does what the fuzzer says, and rings over it.

pub mod pci;
pub mod ring;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use shmbus_shm::testing::{Probe, Probed};
use shmbus_shm::{Entries, Mapped, Window};

/// The peer's script: each load takes one byte of it. A zero byte, or the script's end, lets the load find what is
/// there; any other is followed by eight bytes that the load finds instead.
#[derive(Clone, Debug)]
pub struct Script {
    bytes: Rc<RefCell<std::vec::IntoIter<u8>>>,
}

impl Probe for Script {
    fn load(&self, _: usize, _: usize, value: u64) -> u64 {
        let mut bytes = self.bytes.borrow_mut();
        match bytes.next() {
            None | Some(0) => value,
            Some(_) => {
                let mut lie = [0; 8];
                lie.fill_with(|| bytes.next().unwrap_or_default());
                u64::from_le_bytes(lie)
            }
        }
    }
}

/// The same memory, which its peer changes as `script` says while it is looked at.
pub fn scripted(memory: &Mapped, script: &[u8]) -> Probed<Mapped, Script> {
    let script = Script {
        bytes: Rc::new(RefCell::new(script.to_vec().into_iter())),
    };
    Probed::new(memory.clone(), script)
}

/// Overwrites 16-bit words, which the fuzzer gives by number: what a peer leaves behind.
pub fn tamper(memory: &Mapped, words: &[(u16, u16)]) {
    let count = (memory.len() / 2 + 1).next_power_of_two() / 2;
    if let Ok(entries) = Entries::<u16, _>::new(memory, 0, count) {
        for (word, value) in words {
            entries.store(usize::from(*word), *value, Ordering::Relaxed);
        }
    }
}
