//! What the fuzz targets share: memory whose peer does what the fuzzer says.

use std::cell::RefCell;
use std::rc::Rc;

use shmbus_shm::testing::{Probe, Probed};
use shmbus_shm::{Mapped, heap};

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

/// Memory of `len` bytes, filled from `contents` as far as they go, whose peer then changes it as `script` says.
pub fn scripted(len: usize, contents: &[u8], script: Vec<u8>) -> Probed<Mapped, Script> {
    let memory = heap(len);
    let filled = contents.len().min(len);
    if let Ok(bytes) = shmbus_shm::Bytes::new(&memory, 0, filled) {
        bytes.copy_from(0, &contents[..filled]);
    }
    Probed::new(
        memory,
        Script {
            bytes: Rc::new(RefCell::new(script.into_iter())),
        },
    )
}
