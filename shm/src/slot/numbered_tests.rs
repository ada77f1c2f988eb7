//! The bound on the loads of one attempt at one slot; what is promised besides is tested with tables, which have the
//! commit word and several slots.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::field::{Field, Records};
use crate::heap;
use crate::testing::{Probe, Probed};

const COPIES: usize = 4;
const WORDS: usize = 3;

/// Answers loads with these words, one after the other.
#[derive(Clone, Debug)]
struct Script(Arc<Mutex<VecDeque<u64>>>);

impl Probe for Script {
    fn load(&self, _: usize, _: usize, _: u64) -> u64 {
        let answer = self.0.lock().unwrap().pop_front();
        answer.expect("no more loads than the script has")
    }
}

#[test]
fn the_bound_on_loads_is_exact() {
    let generation = |count| Generation::new(Epoch::FIRST, count).unwrap();
    let (old, commit, later) = (generation(5), generation(6), generation(7));
    let sequence = |count| 2 * generation(count).word();
    // The cursor is at 1. Three copies after it are older than the commit, and so is the fourth before the head's.
    let mut script = VecDeque::new();
    for count in 2..=4 {
        script.extend([sequence(count), old.word()]);
    }
    script.push_back(generation(20).word());
    for count in [21, 20, 19, 18] {
        script.extend([sequence(count), later.word()]);
    }
    script.extend([sequence(17), commit.word()]);
    script.extend([101, 102, 103]);
    script.push_back(sequence(17));
    assert_eq!(script.len(), max_loads_as_of(WORDS, COPIES));

    let script = Script(Arc::new(Mutex::new(script)));
    let stride = copy_stride(1 + WORDS);
    let window = Probed::new(heap(64 + COPIES * stride), script.clone());
    let head = Field::new(&window, 0).unwrap();
    let copies = Records::new(&window, 64, COPIES, stride, 1 + WORDS).unwrap();
    let mut cursor = ReadCursor::from_word(generation(1).word());
    let mut value = [0; WORDS];
    let read = NumberedSlotReader::new(copies, &head).read_as_of(commit, &mut cursor, &mut value);
    assert_eq!((read, value), (Ok(Some(generation(17))), [101, 102, 103]));
    assert_eq!(cursor.generation(), Some(generation(17)));
    assert_eq!(script.0.lock().unwrap().len(), 0);
}
