//! A guest behind an ivshmem function whose host writes anything into its memory, before and whenever it is rung: a typed
//! error, or sections that lie in the guest's area and apart from each other; and a bus over them, or a typed error.
#![no_main]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shmbus::Guest;
use shmbus_shm::{Entries, Field, Mapped, Window, heap};
use shmbus_transports::ivshmem::guest::attach;
use shmbus_transports::ivshmem::layout::{
    AREA_PAGE_BYTES, Answer, AnswerState, AreaPlace, Attachment, Header, HostWords, SectionPlace,
    Terms,
};
use shmbus_transports::local::{GuestName, GuestOptions};
use shmbus_transports::pci::{AccessError, BarIndex, Function, FunctionError, Registers};
use shmbus_virtio::{Features, PrivateFeatures};

const PAGE: u64 = 4096;
const MEMORY: usize = 1 << 16;
const AREA: AreaPlace = AreaPlace {
    peer: Some(1),
    offset: 2 * PAGE,
    bytes: 10 * PAGE,
};

/// What the host does when it is rung.
#[derive(Arbitrary, Clone, Debug)]
struct Turn {
    /// The sections, in pages, and their epochs; else an honest host's.
    sections: Option<[(u8, u8, u8); 4]>,
    /// What it writes anywhere in the memory, by the number of the word.
    words: Vec<(u16, u64)>,
    state: u8,
    /// The attachment that is answered, counted from the guest's own.
    attachment: u8,
}

#[derive(Arbitrary, Debug)]
struct Input {
    position: Option<u32>,
    words: Vec<(u16, u64)>,
    turns: Vec<Turn>,
}

/// A function, and the host behind it.
#[derive(Clone)]
struct Fake {
    memory: Mapped,
    position: u32,
    turns: Arc<Mutex<std::vec::IntoIter<Turn>>>,
}

impl Fake {
    fn new(input: &Input) -> Self {
        let memory = heap(MEMORY);
        let header = Header {
            is_shared: false,
            bytes: MEMORY as u64,
            host: 0,
            vectors: 4,
            areas: vec![AREA],
        };
        header.write(&memory).expect("the memory has a first page");
        tamper(&memory, &input.words);
        Self {
            memory,
            position: input.position.unwrap_or(1),
            turns: Arc::new(Mutex::new(input.turns.clone().into_iter())),
        }
    }

    fn act(&self, turn: &Turn) {
        let (offset, bytes) = (AREA.offset as usize, AREA.bytes as usize);
        let area = self.memory.narrow(offset, bytes).expect("it lies within");
        let host = HostWords::new(&area).expect("the area has its words");
        let place = |(offset, pages, epoch): (u8, u8, u8)| SectionPlace {
            offset: u64::from(offset) * PAGE,
            bytes: u64::from(pages) * PAGE,
            epoch: epoch.into(),
        };
        let honest = [(3, 2, 1), (5, 1, 1), (6, 1, 1), (7, 1, 1)];
        host.tell_terms(&Terms {
            session: 1,
            features: Features::VERSION_1,
            private: PrivateFeatures::empty(),
            sections: turn.sections.unwrap_or(honest).map(place),
        });
        tamper(&self.memory, &turn.words);
        let own = host.request().ok().flatten();
        let own = own.map_or(0, |request| request.attachment.get());
        let attachment = Attachment::new(own.wrapping_add(turn.attachment.into()));
        let state = match turn.state {
            0 => AnswerState::Welcome,
            1 => AnswerState::Ready,
            2 => AnswerState::Refused,
            3 => AnswerState::Closed,
            4 => AnswerState::Offered,
            // Whatever was there.
            _ => return,
        };
        host.answer(Answer { attachment, state });
    }
}

fn tamper(memory: &Mapped, words: &[(u16, u64)]) {
    let all = Entries::<u64, _>::new(memory, 0, MEMORY / 8).expect("whole words");
    for (word, value) in words {
        all.store(usize::from(*word), *value, Relaxed);
    }
}

impl Function for Fake {
    type Registers = Fake;

    fn config(&self) -> Result<Fake, FunctionError> {
        Err(FunctionError::System {
            doing: "read the configuration space",
            source: io::ErrorKind::Unsupported.into(),
        })
    }

    fn bar(&self, _bar: BarIndex) -> Result<Fake, FunctionError> {
        Ok(self.clone())
    }

    fn map(&self, _: BarIndex, _: u64, _: u64, _: bool) -> Result<Mapped, FunctionError> {
        Ok(self.memory.clone())
    }

    fn vectors(&self) -> u16 {
        0
    }

    fn enable_vectors(&mut self, _eventfds: &[BorrowedFd<'_>]) -> Result<(), FunctionError> {
        Ok(())
    }

    fn disable_vectors(&mut self) -> Result<(), FunctionError> {
        Ok(())
    }

    fn set_bus_master(&mut self, _enabled: bool) -> Result<(), FunctionError> {
        Ok(())
    }

    fn reset(&mut self) -> Result<(), FunctionError> {
        Ok(())
    }
}

impl Registers for Fake {
    fn len(&self) -> u64 {
        MEMORY as u64
    }

    fn read_u8(&self, _offset: u64) -> Result<u8, AccessError> {
        unreachable!("registers have four bytes")
    }

    fn read_u16(&self, _offset: u64) -> Result<u16, AccessError> {
        unreachable!("registers have four bytes")
    }

    fn read_u32(&self, _offset: u64) -> Result<u32, AccessError> {
        Ok(self.position)
    }

    fn write_u8(&self, _offset: u64, _value: u8) -> Result<(), AccessError> {
        unreachable!("registers have four bytes")
    }

    fn write_u16(&self, _offset: u64, _value: u16) -> Result<(), AccessError> {
        unreachable!("registers have four bytes")
    }

    fn write_u32(&self, _offset: u64, _value: u32) -> Result<(), AccessError> {
        let turn = self.turns.lock().expect("one thread").next();
        if let Some(turn) = turn {
            self.act(&turn);
        }
        Ok(())
    }
}

fuzz_target!(|input: Input| {
    let options = GuestOptions::new(GuestName::new("fuzz").expect("a name"));
    let fake = Fake::new(&input);
    if let Ok(invitation) = attach(fake.clone(), &options, Duration::ZERO) {
        let start = fake.memory.as_ptr().addr().get() + AREA.offset as usize;
        let mut taken = vec![(start, start + AREA_PAGE_BYTES)];
        for section in invitation.sections() {
            let from = section.window.as_ptr().addr().get();
            let to = from + section.window.len();
            assert!(from < to && from >= start && to <= start + AREA.bytes as usize);
            assert!(
                taken
                    .iter()
                    .all(|(first, end)| to <= *first || *end <= from)
            );
            taken.push((from, to));
        }
        if let Ok(mut link) = invitation.complete() {
            if link.next_event().is_none() {
                let answer = Field::<u64, _>::new(&fake.memory, AREA.offset as usize);
                answer.expect("the area's first word").store(0, Relaxed);
                assert!(link.next_event().is_some());
            }
            assert!(link.next_event().is_none(), "it says so once");
        }
    }
    // The same host, and all that a guest does with what it offers.
    if let Ok(mut guest) = Guest::attach(Fake::new(&input), "fuzz", Duration::ZERO) {
        for device in 0..guest.devices().min(4) {
            let _ = guest.offer(device);
        }
        let _ = guest.wait(Some(Duration::ZERO));
        while guest.next_event().is_some() {}
        guest.leave();
    }
});
