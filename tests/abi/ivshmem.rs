//! `docs/ivshmem.md` against the words of a memory.

use shmbus_shm::{Mapped, Section, Window, heap};
use shmbus_transports::ivshmem::layout::{
    AREA_PAGE_BYTES, Answer, AnswerState, AreaPlace, Attachment, GuestWords, HEADER_BYTES, Header,
    HostWords, Introduction, MAX_AREAS, Request, RequestState, SectionPlace, Terms,
};
use shmbus_transports::local::{GoodbyeReason, GuestName, Refusal, RefusalCode};
use shmbus_virtio::{Features, PrivateFeatures};

use crate::document::{DocTable, contents, number, tables_of};

const DOC: &str = include_str!("../../docs/ivshmem.md");

fn tables() -> Vec<DocTable> {
    tables_of(DOC, "BAR 2")
}

/// The table whose last column has this name.
fn table(column: &str) -> DocTable {
    let mut tables = tables().into_iter();
    let found = tables.find(|table| table.columns.last() == Some(&column));
    found.unwrap_or_else(|| panic!("no table of {column}"))
}

/// Where the row that begins with `name` says that something is.
fn row(table: &DocTable, name: &str) -> (usize, usize) {
    let mut rows = table.rows.iter();
    let row = rows.find(|row| row.last().unwrap().starts_with(name));
    let row = row.unwrap_or_else(|| panic!("no row {name}"));
    let width = match row[1] {
        "" => 0,
        kind => number(kind.trim_start_matches('u').split('[').next().unwrap()) as usize / 8,
    };
    (number(row[0]) as usize, width)
}

fn value(memory: &Mapped, offset: usize, width: usize) -> u64 {
    let bytes = contents(&memory.narrow(offset, width).unwrap());
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn check(memory: &Mapped, base: usize, table: &DocTable, expected: &[(&str, u64)]) {
    for (name, wanted) in expected {
        let (offset, width) = row(table, name);
        assert_eq!(value(memory, base + offset, width), *wanted, "{name}");
    }
    assert_eq!(table.rows.len(), expected.len(), "every row is told of");
}

#[test]
fn headers_have_the_layout_told_of() {
    let memory = heap(1 << 20);
    let place = |peer, offset, bytes| AreaPlace {
        peer,
        offset,
        bytes,
    };
    let header = Header {
        is_shared: true,
        bytes: 1 << 20,
        host: 0,
        vectors: 4,
        areas: vec![
            place(Some(0x1234), 0x1000, 0x2000),
            place(None, 0x3000, 0x4000),
        ],
    };
    header.write(&memory).unwrap();
    let words = table("header");
    let (areas, _) = row(&words, "the areas' places, 32 bytes each");
    let mut words = words;
    words.rows.pop();
    check(
        &memory,
        0,
        &words,
        &[
            ("magic: `shmbusiv`", u64::from_le_bytes(*b"shmbusiv")),
            ("version: 1", 1),
            ("flags; bit 0", 1),
            ("bytes of the memory", 1 << 20),
            ("the host's peer id: 0", 0),
            ("vectors of each peer: 4", 4),
            (&format!("areas: 1 to {MAX_AREAS}"), 2),
        ],
    );
    for (at, [peer, offset, bytes]) in [
        (areas, [0x1234, 0x1000, 0x2000]),
        (areas + 32, [0xffff_ffff, 0x3000, 0x4000]),
    ] {
        let expected = [
            ("the peer that it belongs to; 0xffffffff", peer),
            ("where the area starts", offset),
            ("its bytes", bytes),
        ];
        check(&memory, at, &table("place of an area"), &expected);
    }
    assert_eq!(HEADER_BYTES, 4096);
}

#[test]
fn areas_have_the_words_told_of() {
    let area = heap(AREA_PAGE_BYTES);
    let (host, guest) = (
        HostWords::new(&area).unwrap(),
        GuestWords::new(&area).unwrap(),
    );
    let attachment = Attachment::new(0x0102);
    let state = AnswerState::Welcome;
    host.answer(Answer { attachment, state });
    let place = |number: u64| SectionPlace {
        offset: number << 12,
        bytes: number << 16,
        epoch: number,
    };
    let text = "because";
    let refusal = Refusal::new(RefusalCode::Busy, text);
    host.tell_refusal(&refusal).unwrap();
    host.tell_terms(&Terms {
        session: 7,
        features: Features::from_words([0x11, 0x12]),
        private: PrivateFeatures::from_bits_retain(0x13),
        sections: [place(1), place(2), place(3), place(4)],
    });
    let state = RequestState::Memory;
    guest.request(Request { attachment, state });
    guest
        .introduce(&Introduction {
            name: GuestName::new("name").unwrap(),
            features: Features::from_words([0x21, 0x22]),
            private: PrivateFeatures::from_bits_retain(0x23),
        })
        .unwrap();
    guest.say_goodbye(GoodbyeReason::Restarting);

    let words = table("words of an area");
    check(
        &area,
        0,
        &words,
        &[
            ("host's answer: attachment << 8, state", 0x010202),
            ("WELCOME: number of the session", 7),
            ("WELCOME: private features", 0x13),
            ("WELCOME: features", 0x11),
            ("WELCOME: section HOST", 1 << 12),
            ("WELCOME: section GUEST", 2 << 12),
            ("WELCOME: section COMMON", 3 << 12),
            ("WELCOME: section SHARED", 4 << 12),
            ("REFUSED, CLOSED: code", 2),
            ("REFUSED: bytes of the text", text.len() as u64),
            ("REFUSED: the text", u64::from(text.as_bytes()[0])),
            ("guest's request: attachment << 8, state", 0x010202),
            ("HELLO: private features", 0x23),
            ("HELLO: features", 0x21),
            ("GOODBYE: reason", 2),
            ("HELLO: name", u64::from(b'n')),
        ],
    );
    for section in Section::ALL {
        let (offset, _) = row(&words, &format!("WELCOME: section {section}"));
        let number = section as u64 + 1;
        assert_eq!(value(&area, offset + 8, 8), number << 16);
        assert_eq!(value(&area, offset + 16, 8), number);
    }
    let (features, _) = row(&words, "WELCOME: features");
    assert_eq!(value(&area, features + 8, 8), 0x12);
    let (features, _) = row(&words, "HELLO: features");
    assert_eq!(value(&area, features + 8, 8), 0x22);
}

#[test]
fn states_have_the_numbers_told_of() {
    let told = |first: &str| {
        let mut tables = tables().into_iter();
        let table = tables.find(|table| table.columns[0] == first).unwrap();
        let row = |row: &Vec<&'static str>| (row[0], number(row[1]));
        table.rows.iter().map(row).collect::<Vec<_>>()
    };
    let answers = [
        ("OFFERED", AnswerState::Offered),
        ("WELCOME", AnswerState::Welcome),
        ("READY", AnswerState::Ready),
        ("REFUSED", AnswerState::Refused),
        ("CLOSED", AnswerState::Closed),
    ];
    assert_eq!(
        told("answer"),
        answers.map(|(name, state)| (name, state as u64))
    );
    let requests = [
        ("HELLO", RequestState::Hello),
        ("MEMORY", RequestState::Memory),
        ("GOODBYE", RequestState::Goodbye),
    ];
    assert_eq!(
        told("request"),
        requests.map(|(name, state)| (name, state as u64))
    );
}
