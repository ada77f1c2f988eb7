use core::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use shmbus_shm::testing::{Hostile, Probed};
use shmbus_shm::{Field, Mapped, Section, Window, heap};
use shmbus_virtio::{Features, PrivateFeatures};

use super::*;
use crate::local::{GoodbyeReason, GuestName, Refusal, RefusalCode};

const BYTES: usize = 16 * 4096;

fn header() -> Header {
    let place = |peer, page: u64| AreaPlace {
        peer,
        offset: page * 4096,
        bytes: 4 * 4096,
    };
    Header {
        is_shared: true,
        bytes: BYTES as u64,
        host: HOST_PEER,
        vectors: VECTORS,
        areas: vec![place(Some(3), 1), place(None, 5), place(Some(65_535), 9)],
    }
}

fn terms() -> Terms {
    let place = |page: u64| SectionPlace {
        offset: page * 4096,
        bytes: 4096,
        epoch: page + 100,
    };
    Terms {
        session: 7,
        features: Features::from_words([1 << 32, 5]),
        private: PrivateFeatures::from_bits_retain(9),
        sections: [place(2), place(3), place(4), place(5)],
    }
}

fn introduction() -> Introduction {
    Introduction {
        name: GuestName::new("a-name-of-exactly-32-bytes-_-_-_").unwrap(),
        features: Features::from_words([1 << 32, 6]),
        private: PrivateFeatures::from_bits_retain(10),
    }
}

#[test]
fn what_the_host_writes_is_what_the_guest_reads() {
    let memory = heap(BYTES);
    let found = Header::read(&memory);
    assert_eq!(found, Err(LayoutError::Magic { found: 0 }));
    let mut told = header();
    told.write(&memory).unwrap();
    assert_eq!(Header::read(&memory).unwrap(), told);

    Header::assign(&memory, 1, Some(4)).unwrap();
    Header::assign(&memory, 0, None).unwrap();
    told.areas[1].peer = Some(4);
    told.areas[0].peer = None;
    let found = Header::read(&memory).unwrap();
    assert_eq!(found, told);
    assert_eq!(found.area_of(4), Some(told.areas[1]));
    assert_eq!(found.area_of(3), None);
    assert!(Header::assign(&memory, MAX_AREAS, None).is_err());

    let area = memory.narrow(5 * 4096, 4 * 4096).unwrap();
    let (host, guest) = (
        HostWords::new(&area).unwrap(),
        GuestWords::new(&area).unwrap(),
    );
    host.tell_terms(&terms());
    assert_eq!(guest.terms(BYTES as u64), Ok(terms()));
    let refusal = Refusal::new(RefusalCode::Busy, &"no room. ".repeat(100));
    host.tell_refusal(&refusal).unwrap();
    assert_eq!(guest.refusal(), Ok(refusal));
    host.tell_goodbye(GoodbyeReason::Restarting);
    assert_eq!(guest.goodbye(), GoodbyeReason::Restarting);
    // None of it is where the guest writes.
    guest.introduce(&introduction()).unwrap();
    guest.say_goodbye(GoodbyeReason::Finished);
    assert_eq!(guest.terms(BYTES as u64), Ok(terms()));
    assert_eq!(host.introduction(), Ok(introduction()));
    assert_eq!(host.goodbye(), GoodbyeReason::Finished);
    assert_eq!(host.request(), Ok(None));
}

#[test]
fn a_header_that_cannot_be_says_why() {
    let refused = |offset: usize, value: u64, reason: &str| {
        let memory = heap(BYTES);
        header().write(&memory).unwrap();
        Field::<u64, _>::new(&memory, offset)
            .unwrap()
            .store(value, Relaxed);
        let error = Header::read(&memory).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(0, 1, "0x1 is not the first word");
    refused(8, 2, "has version 2, this code knows 1");
    refused(16, 4096, "a memory of 4096 bytes, and 65536 are mapped");
    refused(24, 4 << 32 | 1 << 16, "peer id of 16 bits, found 65536");
    refused(24, 3 << 32, "vectors as priority classes, found 3");
    refused(32, 0, "1 to 64 areas, found 0");
    refused(32, 65, "1 to 64 areas, found 65");
    for (word, value) in [
        (8, 0),         // over the header
        (8, 4097),      // not on a page
        (8, 13 * 4096), // too far
        (8, u64::MAX << 12),
        (16, 0),
        (16, 5000),
        (16, 16 * 4096),
        (16, u64::MAX << 12),
    ] {
        refused(64 + 32 + word, value, "area 1:");
    }
    assert!(Header::read(&heap(4095)).is_err());
}

#[test]
fn a_section_that_does_not_lie_in_the_memory_is_refused() {
    let area = heap(AREA_PAGE_BYTES);
    let host = HostWords::new(&area).unwrap();
    let guest = GuestWords::new(&area).unwrap();
    for (offset, bytes) in [
        (0, 4096),
        (4096, 0),
        (4100, 4096),
        (4096, 100),
        (15 * 4096, 2 * 4096),
        (u64::MAX << 12, 4096),
        (4096, u64::MAX << 12),
    ] {
        let mut wrong = terms();
        wrong.sections[Section::Common as usize].offset = offset;
        wrong.sections[Section::Common as usize].bytes = bytes;
        host.tell_terms(&wrong);
        let section = Section::Common;
        let expected = LayoutError::Section {
            section,
            offset,
            bytes,
        };
        assert_eq!(guest.terms(BYTES as u64), Err(expected));
    }
}

#[test]
fn handshake_words_name_their_attachment() {
    let last = Attachment::new(u64::MAX);
    assert_eq!(last.next(), Attachment::NONE);
    for attachment in [Attachment::NONE, Attachment::new(1), last] {
        for state in [
            AnswerState::Offered,
            AnswerState::Welcome,
            AnswerState::Ready,
            AnswerState::Refused,
            AnswerState::Closed,
        ] {
            let answer = Answer { attachment, state };
            assert_eq!(Answer::from_word(answer.to_word()), Ok(answer));
        }
        for state in [
            RequestState::Hello,
            RequestState::Memory,
            RequestState::Goodbye,
        ] {
            let request = Request { attachment, state };
            assert_eq!(Request::from_word(request.to_word()), Ok(Some(request)));
        }
    }
    for word in [0, 6, 255, 1 << 8, u64::MAX] {
        assert!(Answer::from_word(word).is_err());
    }
    assert_eq!(Request::from_word(0), Ok(None));
    for word in [4, 255, 1 << 8, u64::MAX] {
        assert!(Request::from_word(word).is_err());
    }
}

#[test]
fn names_and_texts_of_a_liar_are_harmless() {
    let area = heap(AREA_PAGE_BYTES);
    let (host, guest) = (
        HostWords::new(&area).unwrap(),
        GuestWords::new(&area).unwrap(),
    );
    assert!(matches!(host.introduction(), Err(LayoutError::Name(_))));
    let fill = |value: u64| {
        for word in 0..AREA_PAGE_BYTES / 8 {
            Field::<u64, _>::new(&area, 8 * word)
                .unwrap()
                .store(value, Relaxed);
        }
    };
    fill(u64::MAX);
    assert!(matches!(host.introduction(), Err(LayoutError::Name(_))));
    assert!(guest.refusal().unwrap().text.as_str().len() <= 256);
    fill(u64::from_ne_bytes(*b"\x1b[2J\x1b[2J"));
    assert!(matches!(host.introduction(), Err(LayoutError::Name(_))));
    assert!(!guest.refusal().unwrap().text.as_str().contains('\x1b'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

    /// Whatever is found in the memory, and however it changes between two loads: an error, or what can be used.
    #[test]
    fn nothing_that_a_liar_writes_is_taken_unchecked(seed: u64, lies in 1..=255_u8) {
        let memory = heap(BYTES);
        header().write(&memory).unwrap();
        let hostile = Probed::new(memory.clone(), Hostile::new(seed, lies));
        if let Ok(found) = Header::read(&hostile) {
            prop_assert!(found.areas.len() <= MAX_AREAS);
            for place in &found.areas {
                prop_assert!(memory.narrow(place.offset as usize, place.bytes as usize).is_ok());
            }
        }
        let area: Probed<Mapped, Hostile> = hostile.narrow(4096, 4 * 4096).unwrap();
        let (host, guest) = (HostWords::new(&area).unwrap(), GuestWords::new(&area).unwrap());
        host.tell_terms(&terms());
        if let Ok(terms) = guest.terms(BYTES as u64) {
            for place in terms.sections {
                prop_assert!(memory.narrow(place.offset as usize, place.bytes as usize).is_ok());
            }
        }
        let _ = (host.request(), host.introduction(), host.goodbye());
        let _ = (guest.answer(), guest.refusal(), guest.goodbye());
    }
}
