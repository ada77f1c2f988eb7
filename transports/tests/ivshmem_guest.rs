//! A guest behind an ivshmem function, and hosts that answer it well, badly, or not at all.
#![cfg(feature = "ivshmem")]
#![cfg(not(miri))] // it has no eventfds

mod function;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use function::Fake;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shmbus_shm::{Field, Mapped, MemoryId, Section, Window};
use shmbus_transports::ivshmem::guest::{AttachError, GuestLink, LinkClosed, NEWS_PERIOD, attach};
use shmbus_transports::ivshmem::layout::{
    Answer, AnswerState, AreaPlace, Attachment, Header, HostWords, LayoutError, RequestState,
    SectionPlace, Terms,
};
use shmbus_transports::local::{
    GoodbyeReason, GuestName, GuestOptions, Refusal, RefusalCode, SessionId,
};
use shmbus_virtio::{Features, PrivateFeatures};

const PAGE: u64 = 4096;
const MEMORY: usize = 1 << 17;
const TIMEOUT: Duration = Duration::from_secs(20);
/// For hosts that do not answer.
const SHORT: Duration = Duration::from_millis(50);
/// The area's words, the four sections, and a page that is nobody's.
const AREA: AreaPlace = AreaPlace {
    peer: Some(1),
    offset: 4 * PAGE,
    bytes: 10 * PAGE,
};

fn options() -> GuestOptions {
    GuestOptions::new(GuestName::new("vm").unwrap())
}

fn header() -> Header {
    Header {
        is_shared: false,
        bytes: MEMORY as u64,
        host: 0,
        vectors: 4,
        areas: vec![
            AreaPlace {
                peer: None,
                offset: PAGE,
                bytes: 3 * PAGE,
            },
            AREA,
        ],
    }
}

fn terms() -> Terms {
    let place = |page: u64, pages: u64| SectionPlace {
        offset: AREA.offset + page * PAGE,
        bytes: pages * PAGE,
        epoch: 100 + page,
    };
    Terms {
        session: 5,
        features: Features::VERSION_1,
        private: PrivateFeatures::empty(),
        sections: [place(1, 2), place(3, 1), place(4, 4), place(8, 1)],
    }
}

/// A host's side of a fake function.
struct Host {
    fake: Fake,
    words: HostWords<Mapped>,
}

impl Host {
    fn new(fake: &Fake) -> Self {
        header().write(&fake.memory).unwrap();
        let area = fake
            .memory
            .narrow(AREA.offset as usize, AREA.bytes as usize)
            .unwrap();
        let words = HostWords::new(&area).unwrap();
        let host = Self {
            fake: fake.clone(),
            words,
        };
        host.answer(Attachment::NONE, AnswerState::Offered);
        host
    }

    fn answer(&self, attachment: Attachment, state: AnswerState) {
        self.words.answer(Answer { attachment, state });
        self.fake.interrupt(3);
    }

    /// Waits for a request, and returns its attachment.
    fn expect(&self, state: RequestState) -> Attachment {
        loop {
            let request = self.words.request().unwrap();
            if let Some(request) = request.filter(|request| request.state == state) {
                return request.attachment;
            }
            assert!(
                self.fake.to_host.wait(Some(TIMEOUT)).unwrap(),
                "nobody rang"
            );
        }
    }

    /// Answers HELLO and MEMORY as a good host does.
    fn serve(&self, terms: &Terms) -> Attachment {
        let attachment = self.expect(RequestState::Hello);
        self.words.tell_terms(terms);
        self.answer(attachment, AnswerState::Welcome);
        assert_eq!(self.expect(RequestState::Memory), attachment);
        self.answer(attachment, AnswerState::Ready);
        attachment
    }
}

/// Attaches while `script` plays the host.
fn attach_to(fake: &Fake, script: impl FnOnce(&Host) + Send) -> Result<GuestLink, AttachError> {
    let host = Host::new(fake);
    std::thread::scope(|scope| {
        scope.spawn(|| script(&host));
        attach(fake.clone(), &options(), TIMEOUT)?.complete()
    })
}

fn refused_by(script: impl FnOnce(&Host) + Send) -> AttachError {
    attach_to(&Fake::new(MEMORY), script).unwrap_err()
}

/// Waits for the link's news.
fn news(link: &mut GuestLink) -> LinkClosed {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(closed) = link.next_event() {
            return closed;
        }
        assert!(Instant::now() < deadline, "no news");
        let mut fds = [PollFd::new(&*link, PollFlags::IN)];
        let limit = Timespec::try_from(TIMEOUT).unwrap();
        assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1);
    }
}

#[test]
fn a_guest_gets_its_sections_and_its_doorbells_and_says_goodbye() {
    let fake = Fake::new(MEMORY);
    let host = Host::new(&fake);
    let link = std::thread::scope(|scope| {
        let serving = scope.spawn(|| host.serve(&terms()));
        let invitation = attach(fake.clone(), &options(), TIMEOUT).unwrap();
        assert_eq!(invitation.session(), SessionId(5));
        assert_eq!(invitation.features(), Features::VERSION_1);
        for (section, found) in Section::ALL.into_iter().zip(invitation.sections()) {
            let place = terms().section(section);
            assert_eq!(
                (found.id, found.epoch),
                (MemoryId::new(section, 0), place.epoch)
            );
            assert_eq!(found.window.len() as u64, place.bytes);
        }
        let guest = Field::<u64, _>::new(invitation.guest_section(), 8).unwrap();
        guest.store(42, Relaxed);
        let link = invitation.complete().unwrap();
        assert_eq!(serving.join().unwrap(), Attachment::new(1));
        link
    });
    let written = AREA.offset + 3 * PAGE + 8;
    let found = Field::<u64, _>::new(&fake.memory, written as usize).unwrap();
    assert_eq!(found.load(Relaxed), 42);
    assert_eq!(host.words.introduction().unwrap().name.as_str(), "vm");

    // Doorbells, both ways, each with its class's number. READY may have rung already.
    link.waiters[3].drain().unwrap();
    fake.rung.lock().unwrap().clear();
    for (class, waker) in link.wakers.iter().enumerate() {
        waker.wake().unwrap();
        fake.interrupt(class);
        assert!(link.waiters[class].drain().unwrap());
        let others = link.waiters.iter().filter(|waiter| waiter.drain().unwrap());
        assert_eq!(others.count(), 0);
    }
    assert_eq!(*fake.rung.lock().unwrap(), [0, 1, 2, 3]);

    link.goodbye(GoodbyeReason::Restarting);
    assert_eq!(host.expect(RequestState::Goodbye), Attachment::new(1));
    assert_eq!(host.words.goodbye(), GoodbyeReason::Restarting);
    assert!(fake.to_guest.lock().unwrap().is_empty(), "silent");
}

#[test]
fn a_program_that_died_is_followed_by_the_next() {
    let fake = Fake::new(MEMORY);
    let first = attach_to(&fake, |host| _ = host.serve(&terms())).unwrap();
    // As after a SIGKILL: nothing is said.
    std::mem::forget(first);
    let host = Host::new(&fake);
    for (before, expected) in [
        (
            Answer {
                attachment: Attachment::new(8),
                state: AnswerState::Ready,
            }
            .to_word(),
            9,
        ),
        // Written over.
        (0xab00 << 8 | 0x77, 0xab01),
        (u64::MAX, 0),
    ] {
        let answer = Field::<u64, _>::new(&fake.memory, AREA.offset as usize).unwrap();
        answer.store(before, Relaxed);
        let attachment = std::thread::scope(|scope| {
            let serving = scope.spawn(|| host.serve(&terms()));
            let invitation = attach(fake.clone(), &options(), TIMEOUT).unwrap();
            drop(invitation.complete().unwrap());
            serving.join().unwrap()
        });
        assert_eq!(attachment, Attachment::new(expected));
        assert_eq!(host.expect(RequestState::Goodbye), attachment);
        host.words.forget_request();
    }
}

#[test]
fn without_vectors_nothing_rings_and_all_is_found_by_looking() {
    let mut fake = Fake::new(MEMORY);
    fake.vectors = 0;
    let mut link = attach_to(&fake, |host| _ = host.serve(&terms())).unwrap();
    assert!(link.waiters.is_empty());
    assert_eq!(link.wakers.len(), 4);
    let host = Host {
        words: HostWords::new(&area(&fake)).unwrap(),
        fake,
    };
    let before = Instant::now();
    host.words.tell_goodbye(GoodbyeReason::Finished);
    host.answer(Attachment::new(1), AnswerState::Closed);
    assert_eq!(
        news(&mut link),
        LinkClosed::Goodbye(GoodbyeReason::Finished)
    );
    assert!(before.elapsed() < 20 * NEWS_PERIOD);
    assert_eq!(link.next_event(), None, "it says so once");
    host.words.forget_request();
    drop(link);
    assert_eq!(
        host.words.request().unwrap(),
        None,
        "nobody is there to be told"
    );
}

fn area(fake: &Fake) -> Mapped {
    let (offset, bytes) = (AREA.offset as usize, AREA.bytes as usize);
    fake.memory.narrow(offset, bytes).unwrap()
}

#[test]
fn a_session_ends_for_a_reason() {
    let own = Attachment::new(1);
    let refusal = Refusal::new(RefusalCode::Protocol, "a tree of lies");
    for (attachment, state, expected) in [
        (
            own,
            AnswerState::Refused,
            LinkClosed::Refused(refusal.clone()),
        ),
        (
            own.next(),
            AnswerState::Welcome,
            LinkClosed::Superseded {
                own,
                by: own.next(),
            },
        ),
        (
            own,
            AnswerState::Offered,
            LinkClosed::OutOfPlace {
                found: AnswerState::Offered,
            },
        ),
    ] {
        let fake = Fake::new(MEMORY);
        let mut link = attach_to(&fake, |host| _ = host.serve(&terms())).unwrap();
        let host = Host {
            words: HostWords::new(&area(&fake)).unwrap(),
            fake,
        };
        assert_eq!(link.next_event(), None);
        host.words.tell_refusal(&refusal).unwrap();
        host.answer(attachment, state);
        assert_eq!(news(&mut link), expected);
    }
    // A host that has died says nothing; one that writes nonsense is over.
    let fake = Fake::new(MEMORY);
    let mut link = attach_to(&fake, |host| _ = host.serve(&terms())).unwrap();
    Field::<u64, _>::new(&area(&fake), 0)
        .unwrap()
        .store(0, Relaxed);
    fake.interrupt(3);
    assert!(matches!(news(&mut link), LinkClosed::Word(_)));
}

#[test]
fn a_function_that_is_no_doorbell_of_a_bus_is_refused() {
    for position in [0, 0xffff, 0x1_0000, u32::MAX] {
        let mut fake = Fake::new(MEMORY);
        Host::new(&fake);
        fake.position = position;
        let error = attach(fake, &options(), SHORT).unwrap_err();
        assert!(matches!(error, AttachError::Position { found } if found == position));
    }
    for vectors in [1, 3] {
        let mut fake = Fake::new(MEMORY);
        Host::new(&fake);
        fake.vectors = vectors;
        let error = attach(fake, &options(), SHORT).unwrap_err();
        assert!(matches!(error, AttachError::Vectors { found } if found == vectors));
    }
    let mut small = options();
    small.limits.memory_bytes = MEMORY as u64 - 1;
    let error = attach(Fake::new(MEMORY), &small, SHORT).unwrap_err();
    assert!(matches!(error, AttachError::Memory { .. }), "{error}");
    let error = attach(Fake::new(MEMORY), &options(), SHORT).unwrap_err();
    assert!(matches!(
        error,
        AttachError::Layout(LayoutError::Magic { .. })
    ));
    let mut fake = Fake::new(MEMORY);
    Host::new(&fake);
    fake.position = 2;
    let error = attach(fake, &options(), SHORT).unwrap_err();
    assert!(matches!(error, AttachError::NoArea { position: 2 }));
    assert!(error.is_temporary());
}

#[test]
fn a_host_that_does_not_answer_is_waited_for_and_no_longer() {
    for vectors in [0, 4] {
        let mut fake = Fake::new(MEMORY);
        fake.vectors = vectors;
        let host = Host::new(&fake);
        let error = attach(fake.clone(), &options(), SHORT).unwrap_err();
        assert!(
            matches!(error, AttachError::TimedOut { awaited: "WELCOME" }),
            "{error}"
        );
        assert!(error.is_temporary());
        // Answers to others are none, and nor is what is no word.
        host.answer(Attachment::new(7), AnswerState::Ready);
        let error = attach(fake.clone(), &options(), SHORT).unwrap_err();
        assert!(matches!(error, AttachError::TimedOut { .. }), "{error}");
        let answer = Field::<u64, _>::new(&fake.memory, AREA.offset as usize).unwrap();
        answer.store(0, Relaxed);
        let error = attach(fake.clone(), &options(), SHORT).unwrap_err();
        assert!(matches!(
            error,
            AttachError::Layout(LayoutError::Word { .. })
        ));
        assert!(fake.to_guest.lock().unwrap().is_empty(), "silent");
    }
}

#[test]
fn a_host_may_refuse_leave_or_jump_ahead() {
    let refusal = Refusal::new(RefusalCode::Busy, "eight guests are enough");
    let error = refused_by(|host| {
        let attachment = host.expect(RequestState::Hello);
        host.words.tell_refusal(&refusal).unwrap();
        host.answer(attachment, AnswerState::Refused);
    });
    assert!(
        matches!(&error, AttachError::Refused(found) if *found == refusal),
        "{error}"
    );
    assert!(error.is_temporary());
    let error = refused_by(|host| {
        let attachment = host.expect(RequestState::Hello);
        host.words.tell_goodbye(GoodbyeReason::Restarting);
        host.answer(attachment, AnswerState::Closed);
    });
    let reason = GoodbyeReason::Restarting;
    assert!(matches!(error, AttachError::Closed { reason: found, .. } if found == reason));
    for state in [AnswerState::Ready, AnswerState::Offered] {
        let error = refused_by(|host| {
            let attachment = host.expect(RequestState::Hello);
            host.answer(attachment, state);
        });
        assert!(matches!(error, AttachError::OutOfPlace { found, .. } if found == state));
    }
}

#[test]
fn terms_that_reach_too_far_are_refused() {
    let with = |change: fn(&mut Terms)| {
        let mut told = terms();
        change(&mut told);
        refused_by(move |host| {
            let attachment = host.expect(RequestState::Hello);
            host.words.tell_terms(&told);
            host.answer(attachment, AnswerState::Welcome);
        })
    };
    fn place(told: &mut Terms, section: Section) -> &mut SectionPlace {
        &mut told.sections[section as usize]
    }
    // Outside of the memory, or no whole pages: the layout's to find.
    for error in [
        with(|told| place(told, Section::Host).offset = MEMORY as u64),
        with(|told| place(told, Section::Guest).bytes = 0),
        with(|told| place(told, Section::Common).bytes = u64::MAX - 4095),
        with(|told| place(told, Section::Shared).offset += 64),
    ] {
        assert!(
            matches!(error, AttachError::Layout(LayoutError::Section { .. })),
            "{error}"
        );
    }
    // Another guest's area, behind this one, and its words.
    for error in [
        with(|told| place(told, Section::Guest).offset = PAGE),
        with(|told| place(told, Section::Shared).offset = AREA.offset + AREA.bytes),
        with(|told| place(told, Section::Common).bytes = 7 * PAGE),
        with(|told| place(told, Section::Host).offset = AREA.offset),
    ] {
        assert!(
            matches!(&error, AttachError::Section { problem, .. } if problem.contains("outside")),
            "{error}"
        );
    }
    // Each other's.
    for error in [
        with(|told| place(told, Section::Guest).offset = AREA.offset + 2 * PAGE),
        with(|told| place(told, Section::Guest).bytes = 2 * PAGE),
        with(|told| *place(told, Section::Shared) = terms().section(Section::Host)),
    ] {
        assert!(
            matches!(&error, AttachError::Section { problem, .. } if problem.contains("overlap")),
            "{error}"
        );
    }
    for error in [
        with(|told| told.features |= Features::RING_PACKED),
        with(|told| told.private = PrivateFeatures::RING_TAGGED),
        with(|told| told.session = 0),
        with(|told| told.session = 1 << 32),
    ] {
        assert!(matches!(error, AttachError::Terms { .. }), "{error}");
    }
}
