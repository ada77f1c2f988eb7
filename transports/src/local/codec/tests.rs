use proptest::prelude::*;

use super::*;
use crate::local::message::RefusalCode;

fn decode(frame: &[u8]) -> Result<Message, MessageError> {
    let (header, body) = frame.split_first_chunk().unwrap();
    Message::decode(Header::decode(*header)?, body)
}

fn hello() -> Hello {
    Hello {
        role: PeerRole::Guest,
        name: GuestName::new("net-0").unwrap(),
        features: Features::from_bits_retain(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
        private: PrivateFeatures::from_bits_retain(0x1716_1514_1312_1110),
    }
}

#[test]
fn a_hello_lies_in_the_frame_as_documented() {
    let mut expected = Vec::new();
    expected.extend(*b"sbus"); // magic
    expected.extend([1, 0]); // kind, descriptors
    expected.extend([64, 0]); // bytes in the body
    expected.extend([2, 0, 1, 5]); // version, role, length of the name
    expected.extend([0; 4]);
    expected.extend(0x10..=0x17); // private features
    expected.extend(0x00..=0x0f); // features
    expected.extend(b"net-0");
    expected.extend([0; 27]);
    assert_eq!(Message::Hello(hello()).encode(), expected);
}

/// The table in the protocol's documentation: message, kind, bytes in the body.
#[test]
fn the_documented_sizes_are_the_encoded_ones() {
    let documentation = include_str!("../../../../docs/local.md");
    let announcement = Announcement {
        id: MemoryId::GUEST,
        bytes: 2,
        epoch: 3,
    };
    let welcome = Welcome {
        session: 1,
        features: Features::VERSION_1,
        private: PrivateFeatures::empty(),
        guest_memory_bytes: 4096,
        memories: 2,
        classes: 4,
    };
    for message in [
        Message::Hello(hello()),
        Message::Welcome(welcome),
        Message::Memory(announcement),
        Message::Doorbells { classes: 4 },
        Message::Ready,
        Message::Goodbye(GoodbyeReason::Finished),
        Message::List { from: 0 },
    ] {
        let kind = message.kind();
        let bytes = message.encode().len() - HEADER_BYTES;
        let row = format!("| {kind} | {} | {bytes} |", kind as u8);
        assert!(documentation.contains(&row), "no row \"{row}\"");
    }
}

#[test]
fn another_version_is_told_apart_whatever_else_it_changed() {
    let mut frame = Message::Hello(hello()).encode();
    frame[8] = 3;
    frame.extend([0xff; 16]); // longer, and other things in it
    frame[6] += 16;
    assert_eq!(decode(&frame), Err(MessageError::Version { found: 3 }));
}

#[test]
fn errors_name_what_was_expected_and_found_and_where() {
    let message = |change: fn(&mut Vec<u8>)| {
        let mut frame = Message::Hello(hello()).encode();
        change(&mut frame);
        decode(&frame).unwrap_err().to_string()
    };
    for (error, text) in [
        (
            message(|frame| frame[..4].copy_from_slice(b"GET ")),
            "expected a frame that starts with \"sbus\", found \"GET \": the peer is no shmbus program",
        ),
        (
            message(|frame| frame[4] = 200),
            "expected a message of kind 1 to 9, found kind 200",
        ),
        (
            message(|frame| frame[5] = 3),
            "a HELLO message like this comes with 0 file descriptors, found 3",
        ),
        (
            message(|frame| frame.truncate(40)),
            "a HELLO message has 64 bytes, found 32",
        ),
        (
            message(|frame| frame[10] = 9),
            "HELLO message, byte 2 of its body: expected 1 (guest) or 2 (inspector), found 0x9",
        ),
        (
            message(|frame| frame[14] = 1),
            "HELLO message, byte 6 of its body: expected a reserved byte, zero, found 0x1",
        ),
        (
            message(|frame| frame[40] = 0x1b),
            "HELLO message, byte 32 of its body: expected a name of letters, digits, '.', '_' and '-', padded with zeros",
        ),
        (
            message(|frame| frame.push(0)),
            "a HELLO message has 64 bytes, found 65",
        ),
    ] {
        assert_eq!(error, text);
    }
}

fn announcements() -> impl Strategy<Value = Announcement> {
    any::<(u32, u64, u64)>().prop_map(|(id, bytes, epoch)| Announcement {
        id: MemoryId(id),
        bytes,
        epoch,
    })
}

fn names() -> impl Strategy<Value = GuestName> {
    "[A-Za-z0-9._-]{1,32}".prop_map(|name| GuestName::new(&name).unwrap())
}

fn features() -> impl Strategy<Value = (Features, PrivateFeatures)> {
    any::<(u128, u64)>().prop_map(|(features, private)| {
        (
            Features::from_bits_retain(features),
            PrivateFeatures::from_bits_retain(private),
        )
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    let parts = (any::<u32>(), prop::option::of(names()), announcements());
    parts.prop_map(|(session, guest, memory)| Entry {
        session,
        guest,
        memory,
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let hello = (any::<bool>(), names(), features()).prop_map(|(guest, name, features)| {
        Message::Hello(Hello {
            role: if guest {
                PeerRole::Guest
            } else {
                PeerRole::Inspector
            },
            name,
            features: features.0,
            private: features.1,
        })
    });
    let welcome = (any::<(u32, u64, u8)>(), 0..=PRIORITY_CLASSES, features()).prop_map(
        |((session, guest_memory_bytes, memories), classes, (features, private))| {
            Message::Welcome(Welcome {
                session,
                features,
                private,
                guest_memory_bytes,
                memories,
                classes,
            })
        },
    );
    let refusal = any::<(u16, String)>().prop_map(|(code, text)| {
        Message::Refusal(Refusal::new(RefusalCode::from_number(code), &text))
    });
    let pages = (
        any::<u64>(),
        prop::collection::vec(entries(), 0..=MAX_PAGE_ENTRIES),
    );
    prop_oneof![
        hello,
        welcome,
        refusal,
        announcements().prop_map(Message::Memory),
        (0..=PRIORITY_CLASSES).prop_map(|classes| Message::Doorbells { classes }),
        Just(Message::Ready),
        any::<u16>().prop_map(|reason| Message::Goodbye(GoodbyeReason::from_number(reason))),
        any::<u64>().prop_map(|from| Message::List { from }),
        pages.prop_map(|(next, entries)| Message::Page(Page { next, entries })),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(message in messages()) {
        let frame = message.encode();
        prop_assert!(frame.len() <= HEADER_BYTES + MAX_BODY_BYTES);
        prop_assert_eq!(decode(&frame), Ok(message));
    }

    /// There is one encoding of each message: what decodes is exactly what would have been encoded.
    #[test]
    fn any_bytes_are_a_message_or_an_error(kind in 0..12_u8, descriptors in 0..40_u8, body: Vec<u8>) {
        let [low, high] = (body.len() as u16).to_le_bytes();
        let mut frame = [&MAGIC[..], &[kind, descriptors, low, high]].concat();
        frame.extend(body);
        if let Ok(message) = decode(&frame) {
            prop_assert_eq!(message.encode(), frame);
        }
    }

    /// Closer to what decodes than noise is: a good frame with a few bytes changed.
    #[test]
    fn a_damaged_message_is_another_message_or_an_error(
        message in messages(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut frame = message.encode();
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Ok(message) = decode(&frame) {
            prop_assert_eq!(message.encode(), frame);
        }
    }
}
