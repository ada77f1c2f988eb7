//! The ivshmem server, and clients that do as QEMU does, or not.
#![cfg(feature = "ivshmem")]
#![cfg(not(miri))] // it has no sockets

mod qemu;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use qemu::Qemu;
use rustix::fs::{SealFlags, fcntl_get_seals};
use shmbus_shm::{Field, Mapped, Section, Window};
use shmbus_signal::os::Waiter;
use shmbus_transports::ivshmem::layout::{
    Answer, AnswerState, Attachment, GuestWords, Header, Introduction, Request, RequestState,
};
use shmbus_transports::ivshmem::{
    Departure, Event, GeometryError, Place, ServeError, Server, ServerOptions,
};
use shmbus_transports::local::{GoodbyeReason, GuestName, RefusalCode, SessionId};
use shmbus_virtio::{Features, PrivateFeatures};

const TIMEOUT: Duration = Duration::from_secs(20);
const SECTIONS: [u64; 4] = [4096, 8192, 4096, 4096];

struct Host {
    server: Server,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

fn shared() -> ServerOptions {
    ServerOptions {
        is_shared: true,
        guests: 4,
        ..ServerOptions::default()
    }
}

impl Host {
    fn new(options: ServerOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("iv");
        Self {
            server: Server::bind(&path, SECTIONS, options).unwrap(),
            path,
            _directory: directory,
        }
    }

    /// Has the server work until something holds; it must have nothing to say meanwhile.
    #[track_caller]
    fn until(&mut self, holds: impl Fn(&Server) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !holds(&self.server) {
            if let Some(event) = self.server.next_event() {
                panic!("{event:?}");
            }
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[track_caller]
    fn event(&mut self) -> Event {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(event) = self.server.next_event() {
                return event;
            }
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    /// A client, once the server has said everything to it.
    fn client(&mut self) -> Qemu {
        let path = self.path.clone();
        let clients = self.server.clients();
        let client = std::thread::spawn(move || Qemu::connect(&path).ready());
        self.until(|server| server.clients() == clients + 1);
        client.join().unwrap()
    }
}

/// The guest in a client.
struct Guest {
    words: GuestWords<Mapped>,
    attachment: Attachment,
}

impl Guest {
    fn new(client: &Qemu) -> Self {
        let header = Header::read(&client.memory).unwrap();
        let place = header.area_of(client.id).unwrap();
        let area = client
            .memory
            .narrow(place.offset as usize, place.bytes as usize);
        let words = GuestWords::new(&area.unwrap()).unwrap();
        let attachment = words.answer().unwrap().attachment;
        Self { words, attachment }
    }

    fn hello(&mut self, client: &Qemu) {
        self.attachment = self.attachment.next();
        self.words
            .introduce(&Introduction {
                name: GuestName::new("vm").unwrap(),
                features: Features::VERSION_1,
                private: PrivateFeatures::empty(),
            })
            .unwrap();
        self.request(client, RequestState::Hello);
    }

    fn request(&self, client: &Qemu, state: RequestState) {
        let attachment = self.attachment;
        self.words.request(Request { attachment, state });
        client.ring(0, 3);
    }

    fn answer(&self) -> Answer {
        self.words.answer().unwrap()
    }

    fn expected(&self, state: AnswerState) -> Answer {
        let attachment = self.attachment;
        Answer { attachment, state }
    }
}

/// Lets a guest in, all the way.
fn attach(host: &mut Host, client: &Qemu, guest: &mut Guest) -> (SessionId, Place) {
    guest.hello(client);
    let Event::Hello(applicant) = host.event() else {
        panic!("HELLO is expected");
    };
    let session = applicant.session;
    let place = host.server.prepare(session).unwrap();
    host.server.welcome(&applicant).unwrap();
    assert_eq!(guest.answer(), guest.expected(AnswerState::Welcome));
    guest.request(client, RequestState::Memory);
    assert!(matches!(host.event(), Event::Memory { session: s } if s == session));
    host.server.ready(session).unwrap();
    assert_eq!(guest.answer(), guest.expected(AnswerState::Ready));
    (session, place)
}

fn is_rung(eventfd: &std::os::fd::OwnedFd) -> bool {
    let waiter = Waiter::try_from(eventfd.try_clone().unwrap()).unwrap();
    waiter.drain().unwrap()
}

fn word(memory: &Mapped, offset: usize) -> Field<u64, Mapped> {
    Field::new(memory, offset).unwrap()
}

#[test]
fn a_client_gets_a_memory_of_its_own_and_the_host_as_its_peer() {
    let mut host = Host::new(ServerOptions::default());
    let (first, second) = (host.client(), host.client());
    for client in [&first, &second] {
        assert_eq!(client.id, 1);
        let peers = client.peers.lock().unwrap();
        assert_eq!(peers.keys().collect::<Vec<_>>(), [&0]);
        assert_eq!(peers[&0].len(), 4);
        let seals = fcntl_get_seals(&client.descriptor).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        let header = Header::read(&client.memory).unwrap();
        assert!(!header.is_shared);
        assert_eq!((header.host, header.areas.len()), (0, 1));
        assert_eq!(Guest::new(client).answer().state, AnswerState::Offered);
    }
    // What one writes, the other does not see.
    let end = first.memory.len() - 8;
    word(&first.memory, end).store(42, Relaxed);
    assert_eq!(word(&second.memory, end).load(Relaxed), 0);
}

#[test]
fn clients_of_a_shared_domain_are_told_of_each_other_until_they_leave() {
    let mut host = Host::new(shared());
    let mut first = host.client();
    let second = host.client();
    assert_eq!((first.id, second.id), (1, 2));
    let told =
        |qemu: &mut Qemu, count| (0..count).map(|_| qemu.read().unwrap()).collect::<Vec<_>>();
    assert_eq!(told(&mut first, 4), [(2, true); 4]);
    assert_eq!(second.peers.lock().unwrap()[&1].len(), 4);

    let header = Header::read(&first.memory).unwrap();
    assert!(header.is_shared);
    assert_eq!(header.areas.len(), 4);
    let place = header.area_of(2).unwrap();
    let offset = place.offset as usize + 4096;
    word(&second.memory, offset).store(42, Relaxed);
    assert_eq!(word(&first.memory, offset).load(Relaxed), 42);
    first.ring(2, 1);
    second.ring(1, 2);
    for (vector, eventfd) in second.own.iter().enumerate() {
        assert_eq!(is_rung(eventfd), vector == 1);
    }
    for (vector, eventfd) in first.own.iter().enumerate() {
        assert_eq!(is_rung(eventfd), vector == 2);
    }

    drop(second);
    host.until(|server| server.clients() == 1);
    assert_eq!(told(&mut first, 1), [(2, false)]);
    let header = Header::read(&first.memory).unwrap();
    assert_eq!(header.area_of(2), None);
    // To ring who is gone does nothing. Its id is not used again soon, its area at once.
    first.ring(2, 0);
    let third = host.client();
    assert_eq!(third.id, 3);
    assert_eq!(told(&mut first, 4), [(3, true); 4]);
    let header = Header::read(&first.memory).unwrap();
    assert_eq!(header.area_of(3).unwrap().offset, place.offset);
}

#[test]
fn a_session_begins_and_ends_and_begins_anew() {
    let mut host = Host::new(ServerOptions::default());
    let client = host.client();
    let mut guest = Guest::new(&client);
    let (session, place) = attach(&mut host, &client, &mut guest);
    assert!(is_rung(&client.own[3]), "answers are rung");
    let terms = guest.words.terms(client.memory.len() as u64).unwrap();
    assert_eq!(terms.session, u64::from(session.0));
    for section in Section::ALL {
        let told = terms.section(section);
        assert_eq!(told.bytes, SECTIONS[section as usize]);
        assert_eq!(told.epoch, place.epoch);
        word(&place.sections[section as usize], 8).store(7, Relaxed);
        let seen = word(&client.memory, told.offset as usize + 8);
        assert_eq!(seen.load(Relaxed), 7);
    }
    client.ring(0, 2);
    for (vector, waiter) in place.waiters.iter().enumerate() {
        // The handshake's has been rung as well; the server does not take that away.
        assert_eq!(waiter.drain().unwrap(), vector >= 2);
    }
    place.notifiers[0].notify().unwrap();
    assert!(is_rung(&client.own[0]));

    // Its program was killed, and another attaches.
    let (next, again) = {
        guest.hello(&client);
        let Event::Closed {
            session: over,
            reason,
        } = host.event()
        else {
            panic!("what was before is over");
        };
        assert_eq!(over, session);
        assert!(matches!(reason, Departure::BeganAnew), "{reason}");
        let Event::Hello(applicant) = host.event() else {
            panic!("HELLO is expected");
        };
        let place = host.server.prepare(applicant.session).unwrap();
        host.server.welcome(&applicant).unwrap();
        (applicant.session, place)
    };
    assert!(next > session && again.epoch > place.epoch);
    for section in &again.sections {
        assert_eq!(word(section, 8).load(Relaxed), 0, "what was there is gone");
    }
    // It says that it is not well, and leaves; what it asks for afterwards is about nothing.
    guest.words.say_goodbye(GoodbyeReason::Restarting);
    guest.request(&client, RequestState::Goodbye);
    let Event::Closed {
        session: over,
        reason,
    } = host.event()
    else {
        panic!("GOODBYE ends it");
    };
    assert_eq!(over, next);
    assert!(
        matches!(reason, Departure::Goodbye(GoodbyeReason::Restarting)),
        "{reason}"
    );
    assert_eq!(guest.answer(), guest.expected(AnswerState::Closed));
    assert!(host.server.ready(next).is_err());
    guest.request(&client, RequestState::Memory);
    guest.request(&client, RequestState::Goodbye);
    assert!(host.server.next_event().is_none());

    // Refused with words.
    guest.hello(&client);
    let Event::Hello(applicant) = host.event() else {
        panic!("HELLO is expected");
    };
    host.server
        .refuse(applicant.session, RefusalCode::Busy, "not today");
    assert_eq!(guest.answer(), guest.expected(AnswerState::Refused));
    let refusal = guest.words.refusal().unwrap();
    assert_eq!(
        (refusal.code, refusal.text.as_str()),
        (RefusalCode::Busy, "not today")
    );

    // Closed by the host, then hung up on.
    let (session, _) = attach(&mut host, &client, &mut guest);
    host.server.close(session, GoodbyeReason::Restarting);
    assert_eq!(guest.answer(), guest.expected(AnswerState::Closed));
    let (session, _) = attach(&mut host, &client, &mut guest);
    drop(client);
    let Event::Closed {
        session: over,
        reason,
    } = host.event()
    else {
        panic!("hanging up ends it");
    };
    assert_eq!(over, session);
    assert!(matches!(reason, Departure::HungUp), "{reason}");
}

#[test]
fn features_and_names_that_do_not_go_are_refused_with_words() {
    let mut host = Host::new(ServerOptions::default());
    let client = host.client();
    let mut guest = Guest::new(&client);
    // No name, and no introduction at all.
    guest.attachment = guest.attachment.next();
    guest.request(&client, RequestState::Hello);
    let refused = |host: &mut Host, guest: &Guest| {
        let deadline = Instant::now() + TIMEOUT;
        while guest.answer() != guest.expected(AnswerState::Refused) {
            assert!(host.server.next_event().is_none());
            assert!(Instant::now() < deadline);
        }
        guest.words.refusal().unwrap()
    };
    let refusal = refused(&mut host, &guest);
    assert_eq!(refusal.code, RefusalCode::Protocol);
    assert!(refusal.text.as_str().contains("1 to 32 bytes"), "{refusal}");
    // Words that are no requests change nothing.
    for junk in [4, 0xff, u64::MAX] {
        word(&client.memory, 4096 + 1024).store(junk, Relaxed);
        client.ring(0, 3);
        assert!(host.server.next_event().is_none());
        assert_eq!(guest.answer(), guest.expected(AnswerState::Refused));
    }
    let (session, _) = attach(&mut host, &client, &mut guest);

    // A guest that wrote over the host's answer finds it when it asks again.
    word(&client.memory, 4096).store(0, Relaxed);
    guest.request(&client, RequestState::Hello);
    assert!(host.server.next_event().is_none());
    assert_eq!(guest.answer(), guest.expected(AnswerState::Ready));
    host.server.close(session, GoodbyeReason::Finished);
}

#[test]
fn a_guest_attaches_so_often_and_then_once_a_second() {
    let mut host = Host::new(ServerOptions::default());
    let client = host.client();
    let mut guest = Guest::new(&client);
    let start = Instant::now();
    let mut hellos = 0;
    while start.elapsed() < Duration::from_millis(1_500) {
        guest.hello(&client);
        while let Some(event) = host.server.next_event() {
            if let Event::Hello(applicant) = event {
                assert!(host.server.prepare(applicant.session).is_ok());
                hellos += 1;
            }
        }
    }
    assert!((8..=10).contains(&hellos), "{hellos} in 1.5 s");
    // The last one is not forgotten, though nobody rings any more.
    loop {
        match host.event() {
            Event::Closed { .. } => {}
            Event::Hello(applicant) => {
                host.server.prepare(applicant.session).unwrap();
                host.server.welcome(&applicant).unwrap();
                if guest.answer() == guest.expected(AnswerState::Welcome) {
                    break;
                }
            }
            Event::Memory { .. } => panic!("nobody asked"),
        }
    }
}

#[test]
fn a_storm_of_rings_costs_a_look_now_and_then() {
    let mut host = Host::new(ServerOptions::default());
    let client = host.client();
    let mut guest = Guest::new(&client);
    let is_readable = |server: &Server| {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(server, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
    };
    let (mut rings, mut turns) = (0_u64, 0_u64);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        client.ring(0, 3);
        rings += 1;
        if is_readable(&host.server) {
            turns += 1;
            assert!(host.server.next_event().is_none());
        }
    }
    assert!(
        turns < 2 * (64 + 500) + 50,
        "{turns} turns for {rings} rings"
    );
    // It rests when the storm is over, and listens.
    let deadline = Instant::now() + TIMEOUT;
    let mut quiet = 0;
    while quiet < 20 {
        assert!(Instant::now() < deadline, "the server never rests");
        std::thread::sleep(Duration::from_millis(5));
        quiet = if is_readable(&host.server) {
            0
        } else {
            quiet + 1
        };
        while host.server.next_event().is_some() {}
    }
    attach(&mut host, &client, &mut guest);
}

#[test]
fn a_client_that_talks_is_hung_up_on() {
    let mut host = Host::new(ServerOptions::default());
    let talker = UnixStream::connect(&host.path).unwrap();
    host.until(|server| server.clients() == 1);
    // A few bytes are thrown away, many are not listened to.
    (&talker).write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(host.server.next_event().is_none());
    assert_eq!(host.server.clients(), 1);
    (&talker).write_all(&[b'x'; 8192]).unwrap();
    host.until(|server| server.clients() == 0);
}

#[test]
fn a_client_that_does_not_read_blocks_nobody_and_is_told_in_the_end() {
    let mut host = Host::new(shared());
    let path = host.path.clone();
    let connecting = std::thread::spawn(move || Qemu::connect(&path));
    host.until(|server| server.clients() == 1);
    let mut deaf = connecting.join().unwrap();
    for _ in 0..500 {
        let brief = UnixStream::connect(&host.path).unwrap();
        host.until(|server| server.clients() == 2);
        drop(brief);
        host.until(|server| server.clients() == 1);
    }
    let client = host.client();
    let mut guest = Guest::new(&client);
    attach(&mut host, &client, &mut guest);
    // It hears of many, and is left with those that are there.
    let mut told = 0;
    while deaf
        .peers
        .lock()
        .unwrap()
        .get(&client.id)
        .map_or(0, Vec::len)
        < 4
    {
        host.until(|_| true);
        assert!(host.server.next_event().is_none());
        deaf.read().unwrap();
        told += 1;
    }
    assert!(told > 100, "{told}");
    let left: Vec<u16> = deaf.peers.lock().unwrap().keys().copied().collect();
    assert_eq!(left, [0, client.id]);
    client.ring(deaf.id, 1);
    assert!(is_rung(&deaf.own[1]));
}

#[test]
fn one_client_too_many_is_hung_up_on() {
    let mut host = Host::new(ServerOptions {
        guests: 1,
        ..ServerOptions::default()
    });
    let client = host.client();
    let late = UnixStream::connect(&host.path).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let deadline = Instant::now() + TIMEOUT;
    let mut byte = [0];
    while !matches!(std::io::Read::read(&mut &late, &mut byte), Ok(0)) {
        assert!(host.server.next_event().is_none());
        assert!(Instant::now() < deadline);
    }
    drop(client);
    host.until(|server| server.clients() == 0);
    host.client();
}

#[test]
fn what_cannot_be_served_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("iv");
    let bind = |options| Server::bind(&path, SECTIONS, options).map(drop);
    let error = bind(ServerOptions {
        guests: 65,
        ..ServerOptions::default()
    });
    assert!(matches!(
        error,
        Err(ServeError::Geometry(GeometryError::Guests { found: 65 }))
    ));
    let error = bind(ServerOptions {
        memory_bytes: Some(1 << 16),
        guests: 8,
        ..shared()
    });
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("8 guests with 24576 bytes each") && text.contains("there may be 65536"),
        "{text}"
    );
    assert!(!path.exists());
    let server = Server::bind(&path, SECTIONS, ServerOptions::default()).unwrap();
    assert!(matches!(
        bind(ServerOptions::default()),
        Err(ServeError::Bind(_))
    ));
    drop(server);
    assert!(!path.exists());
}

/// Alone in its process under nextest; under `cargo test` other tests would count as well.
#[test]
fn nothing_is_left_of_clients_that_are_gone() {
    let counts = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        (descriptors, maps.matches("shmbus-ivshmem").count())
    };
    let is_alone = std::env::var_os("NEXTEST").is_some();
    for options in [ServerOptions::default(), shared()] {
        let mut host = Host::new(options);
        let before = counts();
        for _ in 0..3 {
            let clients = [host.client(), host.client()];
            for client in &clients {
                let mut guest = Guest::new(client);
                let (_, place) = attach(&mut host, client, &mut guest);
                drop(place);
            }
            drop(clients);
            for _ in 0..2 {
                assert!(matches!(host.event(), Event::Closed { .. }));
            }
            host.until(|server| server.clients() == 0);
        }
        if is_alone {
            assert_eq!(counts(), before);
        }
    }
}
