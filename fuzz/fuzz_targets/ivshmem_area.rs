//! A host's server for QEMU, and a guest that writes what it likes into the words of its memory: sessions begin and end in their order,
//! and what is found in words that change while they are read is within the memory, or a typed error.
#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::{Field, Window};
use shmbus_transports::ivshmem::layout::{
    AREA_PAGE_BYTES, Attachment, GuestWords, Header, Introduction, MAX_AREAS, Request, RequestState,
};
use shmbus_transports::ivshmem::{Event, Server, ServerOptions};
use shmbus_transports::local::{Applicant, GoodbyeReason, GuestName, RefusalCode, SessionId};
use shmbus_virtio::{Features, PrivateFeatures};

#[path = "../../transports/tests/qemu/mod.rs"]
mod qemu;

use qemu::Qemu;

const SECTIONS: [u64; 4] = [4096; 4];
const MOST_STEPS: usize = 64;

#[derive(Arbitrary, Debug)]
enum Step {
    /// The guest writes a word of its area's page, or of the header.
    Word {
        at: u16,
        value: u64,
    },
    /// It requests something, of an attachment near the host's.
    Request {
        ahead: u8,
        state: u8,
    },
    /// It says who it is.
    Introduce {
        features: [u64; 2],
        private: u64,
    },
    Ring {
        vector: u8,
    },
    /// The owner of the server answers the latest applicant.
    Prepare,
    Welcome,
    Ready,
    Refuse,
    Close,
    HangUp,
}

/// How far the owner has taken a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Hello,
    Welcome,
    Memory,
    Ready,
}

struct Owner {
    server: Server,
    sessions: BTreeMap<SessionId, Stage>,
    latest: Option<Applicant>,
}

impl Owner {
    fn turn(&mut self) {
        // Bounded: a turn tells of each client at most twice.
        for _ in 0..8 {
            match self.server.next_event() {
                None => return,
                Some(Event::Hello(applicant)) => {
                    let before = self.sessions.insert(applicant.session, Stage::Hello);
                    assert!(before.is_none(), "a number is used twice");
                    assert!(applicant.features.check().is_ok());
                    self.latest = Some(applicant);
                }
                Some(Event::Memory { session }) => {
                    let before = self.sessions.insert(session, Stage::Memory);
                    assert!(before == Some(Stage::Welcome), "nobody was welcomed");
                }
                Some(Event::Closed { session, .. }) => {
                    assert!(self.sessions.remove(&session).is_some(), "it never began");
                }
            }
        }
    }

    fn answer(&mut self, step: &Step) {
        let Some(applicant) = &self.latest else {
            return;
        };
        let session = applicant.session;
        let stage = self.sessions.get(&session).copied();
        match step {
            Step::Prepare => {
                let prepared = self.server.prepare(session);
                assert!(prepared.is_ok() == (stage == Some(Stage::Hello)));
            }
            Step::Welcome => {
                let welcomed = self.server.welcome(applicant).is_ok();
                assert!(welcomed == (stage == Some(Stage::Hello)));
                if welcomed {
                    self.sessions.insert(session, Stage::Welcome);
                }
            }
            Step::Ready => {
                let ready = self.server.ready(session).is_ok();
                assert!(ready == (stage == Some(Stage::Memory)));
                if ready {
                    self.sessions.insert(session, Stage::Ready);
                }
            }
            Step::Refuse => {
                self.server.refuse(session, RefusalCode::Busy, "no");
                self.sessions.remove(&session);
            }
            Step::Close => {
                self.server.close(session, GoodbyeReason::Finished);
                self.sessions.remove(&session);
            }
            _ => {}
        }
    }
}

/// A place for the socket that is this process's alone.
fn path() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let name = || format!("shmbus-fuzz-ivshmem-{}", std::process::id());
    PATH.get_or_init(|| std::env::temp_dir().join(name()))
        .clone()
}

/// A client, once the server has told it everything.
fn connect(owner: &mut Owner) -> Qemu {
    let path = path();
    let before = owner.server.clients();
    let client = std::thread::spawn(move || Qemu::connect(&path).ready());
    while owner.server.clients() == before {
        owner.turn();
    }
    client.join().expect("QEMU reads what the server says")
}

fuzz_target!(|input: (Vec<Step>, Vec<(u16, u16)>, &[u8])| {
    let (steps, damage, script) = input;
    let server = Server::bind(path(), SECTIONS, ServerOptions::default());
    let mut owner = Owner {
        server: server.expect("this process alone has the path"),
        sessions: BTreeMap::new(),
        latest: None,
    };
    let mut client = connect(&mut owner);
    for step in steps.iter().take(MOST_STEPS) {
        let area = client.memory.narrow(4096, AREA_PAGE_BYTES);
        let area = area.expect("the first area follows the header");
        let words = GuestWords::new(&area).expect("an area has its words");
        match step {
            Step::Word { at, value } => {
                let offset = 8 * (usize::from(*at) % (2 * AREA_PAGE_BYTES / 8));
                let word = Field::<u64, _>::new(&client.memory, offset);
                word.expect("it lies in the memory").store(*value, Relaxed);
            }
            Step::Request { ahead, state } => {
                let current = words.answer().map_or(0, |answer| answer.attachment.get());
                let attachment = Attachment::new(current.wrapping_add(u64::from(*ahead) % 3));
                let state = match state % 3 {
                    0 => RequestState::Hello,
                    1 => RequestState::Memory,
                    _ => RequestState::Goodbye,
                };
                words.request(Request { attachment, state });
                client.ring(0, 3);
            }
            Step::Introduce { features, private } => {
                let introduction = Introduction {
                    name: GuestName::new("fuzz").expect("a name"),
                    features: Features::from_words(*features),
                    private: PrivateFeatures::from_bits_retain(*private),
                };
                words.introduce(&introduction).expect("it fits");
            }
            Step::Ring { vector } => client.ring(0, usize::from(*vector)),
            Step::HangUp => {
                let before = owner.server.clients();
                drop(client);
                while owner.server.clients() == before {
                    owner.turn();
                }
                owner.turn();
                assert!(owner.sessions.is_empty(), "nobody is there");
                client = connect(&mut owner);
            }
            answer => owner.answer(answer),
        }
        owner.turn();
    }

    // Both halves read words that were damaged, and change while they are read.
    let memory = client.memory.clone();
    tamper(&memory, &damage);
    let hostile = scripted(&memory, script);
    if let Ok(header) = Header::read(&hostile) {
        assert!(header.areas.len() <= MAX_AREAS);
        for place in header.areas {
            let area = memory.narrow(place.offset as usize, place.bytes as usize);
            assert!(area.is_ok());
        }
    }
    let area = hostile.narrow(4096, AREA_PAGE_BYTES).expect("it is there");
    let words = GuestWords::new(&area).expect("an area has its words");
    let _ = (words.answer(), words.refusal(), words.goodbye());
    if let Ok(terms) = words.terms(memory.len() as u64) {
        for place in terms.sections {
            let section = memory.narrow(place.offset as usize, place.bytes as usize);
            assert!(section.is_ok());
        }
    }
    client.ring(0, 3);
    owner.turn();
});
