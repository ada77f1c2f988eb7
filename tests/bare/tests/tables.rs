//! Tables of a guest that was built for a machine without an operating system, in this process, against tables of ours.
//! The guest follows a table of the host's with one of its own.

#[allow(dead_code, reason = "of the guest's types each test uses its part")]
#[path = "../guest/src/abi.rs"]
mod abi;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use abi::{Area, MirrorSetup, NO, YES};
use shmbus_shm::{Mapped, Window, heap};
use shmbus_table::{
    Epoch, SnapshotReader, TableLayout, TableOptions, TableReader, TableWriter, TransactionWriter,
};

const SLOTS: u32 = 11;
const PUBLICATIONS: u64 = 50_000;

/// The guest's own type.
#[repr(C)]
struct Opaque {
    opaque: [u8; 0],
}

// SAFETY: the guest's library, which is linked, defines these functions with these types.
unsafe extern "C" {
    safe fn mirror_storage_bytes() -> usize;
    fn mirror_open(setup: &MirrorSetup) -> *mut Opaque;
    fn mirror_turn(mirror: *mut Opaque) -> i32;
}

/// The guest's two tables.
struct Mirror {
    guest: *mut Opaque,
    _memories: [Mapped; 2],
}

// SAFETY: the guest knows no threads.
unsafe impl Send for Mirror {}

impl Mirror {
    fn open(from: &Mapped, to: &Mapped) -> Option<Self> {
        let words = mirror_storage_bytes().div_ceil(size_of::<u128>());
        let storage: &'static mut [u128] = vec![0; words].leak();
        let setup = MirrorSetup {
            storage: Area {
                start: storage.as_mut_ptr().cast(),
                bytes: size_of_val(storage),
            },
            from: area(from),
            to: area(to),
        };
        // SAFETY: the storage stays for ever and is the guest's; the memories are kept below.
        let guest = unsafe { mirror_open(&setup) };
        (!guest.is_null()).then(|| Self {
            guest,
            _memories: [from.clone(), to.clone()],
        })
    }

    /// Whether anything had changed.
    fn turn(&mut self) -> bool {
        // SAFETY: the guest is open.
        match unsafe { mirror_turn(self.guest) } {
            YES => true,
            NO => false,
            other => panic!("the guest answers {other}"),
        }
    }

    /// Follows until there is nothing more to come, and nothing left.
    fn follow(&mut self, is_done: &AtomicBool) {
        loop {
            let was_done = is_done.load(Relaxed);
            if !self.turn() {
                if was_done {
                    return;
                }
                thread::yield_now();
            }
        }
    }
}

fn area(memory: &Mapped) -> Area {
    Area {
        start: memory.as_ptr().as_ptr(),
        bytes: memory.len(),
    }
}

fn storage(words: usize) -> Vec<u64> {
    vec![0; words * SLOTS as usize]
}

fn layout(options: TableOptions, words: u32) -> TableLayout {
    TableLayout::with_options(SLOTS, 8 * words, options).unwrap()
}

fn with_transactions(words: u32) -> TableLayout {
    layout(TableOptions::new().transactions(), words)
}

#[test]
fn a_guest_writes_transactions_of_what_it_reads() {
    for words in [1, 2, 8] {
        let host = layout(TableOptions::new(), words);
        let guest = with_transactions(words);
        let (from, to) = (heap(host.bytes()), heap(guest.bytes()));
        let mut writer =
            TableWriter::create(from.clone(), host, 7, Epoch::FIRST, storage(1)).unwrap();
        let mut mirror = Mirror::open(&from, &to).unwrap();
        let mut reader = SnapshotReader::attach(to, storage(1), storage(1)).unwrap();
        assert_eq!((reader.layout(), reader.type_id()), (guest, 7));
        assert!(!mirror.turn());

        let slots: Vec<u32> = (0..SLOTS).collect();
        let mut values = storage(words as usize);
        let mut generations = vec![None; SLOTS as usize];
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| mirror.follow(&is_done));
            for number in 1..=PUBLICATIONS {
                let slot = number as u32 % SLOTS;
                let _ = writer.publish(slot, &vec![number; words as usize]).unwrap();
                let last = values.clone();
                reader
                    .read_together(&slots, &mut values, &mut generations)
                    .unwrap();
                assert!(values.iter().zip(last).all(|(now, before)| *now >= before));
                let whole = |value: &[u64]| value.iter().all(|word| *word == value[0]);
                assert!(values.chunks(words as usize).all(whole), "torn");
            }
            is_done.store(true, Relaxed);
        });
        reader
            .read_together(&slots, &mut values, &mut generations)
            .unwrap();
        for (slot, value) in (0..).zip(values.chunks(words as usize)) {
            let last = (PUBLICATIONS - u64::from(SLOTS) + 1..=PUBLICATIONS)
                .find(|number| number % u64::from(SLOTS) == slot);
            assert_eq!(value[0], last.unwrap());
        }
    }
}

#[test]
fn a_guest_reads_transactions() {
    let host = with_transactions(3);
    let (from, to) = (heap(host.bytes()), heap(host.bytes()));
    let mut writer =
        TransactionWriter::create(from.clone(), host, 7, Epoch::FIRST, storage(1), storage(4))
            .unwrap();
    let mut mirror = Mirror::open(&from, &to).unwrap();
    let mut reader = TableReader::attach(to, storage(1), storage(1)).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| mirror.follow(&is_done));
        for number in 1..=PUBLICATIONS {
            let mut transaction = writer.begin();
            for slot in [number as u32 % SLOTS, number as u32 / 5 % SLOTS] {
                transaction.stage(slot, &[number; 3]).unwrap();
            }
            let _ = transaction.commit().unwrap();
        }
        is_done.store(true, Relaxed);
    });
    let mut theirs = SnapshotReader::attach(from, storage(1), storage(1)).unwrap();
    for slot in 0..SLOTS {
        let (mut mirrored, mut original) = ([0; 3], [0; 3]);
        reader.read(slot, &mut mirrored).unwrap();
        theirs.read(slot, &mut original).unwrap();
        assert_eq!(mirrored, original);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let host = layout(TableOptions::new(), 2);
    let from = heap(host.bytes());
    let room = heap(with_transactions(2).bytes());
    assert!(Mirror::open(&from, &room).is_none(), "no table");
    TableWriter::create(from.clone(), host, 7, Epoch::FIRST, storage(1)).unwrap();
    let short = room.narrow(0, room.len() - 64).unwrap();
    assert!(Mirror::open(&from, &short).is_none());
    assert!(Mirror::open(&from, &room).is_some());
    let large = TableLayout::new(17, 8).unwrap();
    let from = heap(large.bytes());
    TableWriter::create(from.clone(), large, 7, Epoch::FIRST, vec![0; 17]).unwrap();
    assert!(Mirror::open(&from, &heap(65_536)).is_none(), "17 slots");
}
