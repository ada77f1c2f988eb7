//! Single loads that find what is not there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use arbitrary::{Arbitrary, Unstructured};
use shmbus_shm::testing::Probe;

use super::program::field;

/// A load that finds another value in one of a word's four fields of 16 bits.
#[derive(Clone, Copy, Debug)]
pub struct Lie {
    /// How many loads are spared before.
    after: u8,
    field: u8,
    value: u16,
}

impl<'a> Arbitrary<'a> for Lie {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            after: bytes.int_in_range(0..=7)?,
            field: bytes.int_in_range(0..=3)?,
            value: field(bytes)?,
        })
    }
}

/// What the side under test is told, one after another. All handles share it.
#[derive(Clone, Debug, Default)]
pub struct Lies {
    pending: Rc<RefCell<VecDeque<Lie>>>,
}

impl Lies {
    /// One more, behind those that are pending.
    pub(super) fn push(&self, lie: Lie) {
        self.pending.borrow_mut().push_back(lie);
    }

    /// From now on all loads find what is there.
    pub(super) fn stop(&self) {
        self.pending.borrow_mut().clear();
    }
}

impl Probe for Lies {
    fn load(&self, _: usize, _: usize, value: u64) -> u64 {
        let mut pending = self.pending.borrow_mut();
        match pending.front_mut() {
            None => value,
            Some(Lie { after, .. }) if *after > 0 => {
                *after -= 1;
                value
            }
            Some(lie) => {
                let shift = 16 * u32::from(lie.field);
                let other = value & !(0xffff << shift) | u64::from(lie.value) << shift;
                pending.pop_front();
                other
            }
        }
    }
}
