//! A function's interrupts through one set: the more urgent class first, and of many of a kind one.
#![cfg(feature = "ivshmem")]
#![cfg(not(miri))] // it has no eventfds

mod function;

use std::time::Duration;

use function::Fake;
use shmbus_shm::{Mapped, Window, heap};
use shmbus_signal::os::{Event, SignalSet, Token};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};
use shmbus_signal::{CLASSES, Priority};
use shmbus_transports::ivshmem::guest::{GuestLink, attach};
use shmbus_transports::ivshmem::layout::{
    Answer, AnswerState, AreaPlace, Attachment, Header, HostWords, SectionPlace, Terms,
};
use shmbus_transports::local::{GuestName, GuestOptions};
use shmbus_virtio::{Features, PrivateFeatures};

const PAGE: u64 = 4096;
const TIMEOUT: Duration = Duration::from_secs(20);
const CHANNELS: u32 = 300;

/// A link to a host that answers before it is asked: the first attachment is number 1.
fn link(fake: &Fake) -> GuestLink {
    let bytes = fake.memory.len() as u64;
    let area = AreaPlace {
        peer: Some(1),
        offset: PAGE,
        bytes: bytes - PAGE,
    };
    let header = Header {
        is_shared: false,
        bytes,
        host: 0,
        vectors: 4,
        areas: vec![area],
    };
    header.write(&fake.memory).unwrap();
    let window = fake.memory.narrow(PAGE as usize, area.bytes as usize);
    let host = HostWords::new(&window.unwrap()).unwrap();
    let place = |section: u64| SectionPlace {
        offset: (2 + section) * PAGE,
        bytes: PAGE,
        epoch: 1,
    };
    host.tell_terms(&Terms {
        session: 1,
        features: Features::VERSION_1,
        private: PrivateFeatures::empty(),
        sections: [place(0), place(1), place(2), place(3)],
    });
    let answer = |state| {
        host.answer(Answer {
            attachment: Attachment::new(1),
            state,
        });
    };
    let options = GuestOptions::new(GuestName::new("vm").unwrap());
    std::thread::scope(|scope| {
        let attaching = scope.spawn(|| attach(fake.clone(), &options, TIMEOUT)?.complete());
        // A guest looks at the answer before it asks for anything.
        assert!(fake.to_host.wait(Some(TIMEOUT)).unwrap());
        answer(AnswerState::Welcome);
        fake.interrupt(3);
        assert!(fake.to_host.wait(Some(TIMEOUT)).unwrap());
        answer(AnswerState::Ready);
        fake.interrupt(3);
        attaching.join().unwrap().unwrap()
    })
}

/// The host's side of a class, and how often it interrupted.
struct Bell {
    sender: Sender<Mapped, Mapped>,
    class: usize,
    fake: Fake,
    interrupts: u32,
}

impl Bell {
    fn raise(&mut self, channel: u32) {
        if self.sender.raise(channel).unwrap().is_needed() {
            self.fake.interrupt(self.class);
            self.interrupts += 1;
        }
    }
}

fn raised(set: &mut SignalSet, tokens: &[Token]) -> Vec<(usize, u32)> {
    let mut found = Vec::new();
    while let Some(event) = set.next_event() {
        let Event::Raised { token, channel, .. } = event else {
            panic!("{event:?}");
        };
        let class = tokens.iter().position(|known| *known == token).unwrap();
        found.push((class, channel));
    }
    found
}

#[test]
fn interrupts_are_served_by_priority_and_those_of_a_kind_come_together() {
    let mut fake = Fake::new(1 << 16);
    fake.vectors = CLASSES as u16;
    let mut link = link(&fake);
    let mut set = SignalSet::<Mapped>::new().unwrap();
    set.set_spin(Duration::ZERO);
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    let (mut bells, mut tokens) = (Vec::new(), Vec::new());
    for (class, waiter) in std::mem::take(&mut link.waiters).into_iter().enumerate() {
        let (tree, armed) = (heap(layout.tree_bytes()), heap(DoorbellLayout::ARMED_BYTES));
        let receiver = Receiver::new(&tree, &armed, layout, vec![0; CHANNELS as usize]).unwrap();
        let priority = Priority::new(class as u8).unwrap();
        tokens.push(set.add_doorbell(receiver, waiter, priority).unwrap());
        bells.push(Bell {
            sender: Sender::new(&tree, &armed, layout).unwrap(),
            class,
            fake: fake.clone(),
            interrupts: 0,
        });
    }
    // Nothing is due, and all are armed from here on.
    assert!(!set.wait(Some(Duration::from_millis(50))).unwrap());
    for round in 1..=3 {
        // The least urgent first, and each again and again.
        for bell in bells.iter_mut().rev() {
            for _ in 0..1_000 {
                bell.raise(7);
                bell.raise(299);
            }
        }
        assert!(set.wait(Some(TIMEOUT)).unwrap());
        let expected: Vec<_> = (0..CLASSES)
            .flat_map(|class| [(class, 7), (class, 299)])
            .collect();
        assert_eq!(raised(&mut set, &tokens), expected);
        for bell in &bells {
            assert_eq!(bell.interrupts, round, "one for two thousand");
        }
        assert!(!set.wait(Some(Duration::from_millis(50))).unwrap());
    }
    // The handshake's ringing raises nothing, whatever else goes over its vector.
    fake.interrupt(3);
    assert!(!set.wait(Some(Duration::from_millis(50))).unwrap());
    assert_eq!(link.next_event(), None);
}
