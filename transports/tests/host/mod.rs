//! A host in a thread of its own, driven as the facade drives it.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shmbus_shm::MemoryId;
use shmbus_transports::local::{
    Admission, Applicant, CloseReason, Event, GuestLink, GuestName, GuestOptions, Listener,
    ListenerOptions, SessionId, connect,
};
use shmbus_transports::{Doorbells, Memory};

pub const PAGE: u64 = 4096;
pub const TIMEOUT: Duration = Duration::from_secs(20);
pub const CLASSES: usize = 4;

/// What the host saw.
#[derive(Debug)]
pub enum Seen {
    Hello(Applicant),
    Memory(SessionId, Memory),
    Closed(SessionId, CloseReason),
}

/// Lines that a thread wrote.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub struct Host {
    pub path: PathBuf,
    /// The log, warnings and worse, as an operator reads it.
    pub log: Log,
    pub seen: mpsc::Receiver<Seen>,
    /// Calls of `next_event` so far, and the most connections open at once.
    pub turns: Arc<AtomicUsize>,
    pub most_connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Listener>>,
}

pub fn name(name: &str) -> GuestName {
    GuestName::new(name).unwrap()
}

pub fn guest(label: &str) -> GuestOptions {
    GuestOptions::new(name(label))
}

/// The guest's memory for an invitation.
pub fn guest_memory(bytes: u64) -> Memory {
    Memory::create(MemoryId::GUEST, "guest", bytes, 1).unwrap()
}

/// A guest that is let in and ready.
pub fn join(path: &Path, options: &GuestOptions) -> GuestLink {
    let invitation = connect(path, options, TIMEOUT).unwrap();
    let memory = guest_memory(invitation.guest_memory_bytes());
    invitation.complete(memory).unwrap()
}

/// Whether it is readable within `wait`.
pub fn is_readable(fd: impl AsFd, wait: Duration) -> bool {
    let wait = Timespec {
        tv_sec: wait.as_secs() as i64,
        tv_nsec: wait.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&wait)).unwrap_or(0) > 0
}

impl Host {
    pub fn start(path: &Path, options: ListenerOptions) -> Self {
        Self::run(Listener::bind(path, options).unwrap())
    }

    pub fn run(mut listener: Listener) -> Self {
        let log = Log::default();
        let lines = log.clone();
        let path = listener.path().to_owned();
        let (sender, seen) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicUsize::new(0));
        let most_connections = Arc::new(AtomicUsize::new(0));
        let (stopped, turned, most) = (stop.clone(), turns.clone(), most_connections.clone());
        let thread = std::thread::spawn(move || {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
                .with_ansi(false)
                .with_writer(move || lines.clone());
            let _logged = tracing::subscriber::set_default(subscriber.finish());
            let mut doorbells = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                is_readable(&listener, Duration::from_millis(10));
                while let Some(event) = listener.next_event() {
                    let seen = act(&mut listener, event, &mut doorbells);
                    let _ = sender.send(seen);
                }
                turned.fetch_add(1, Ordering::Relaxed);
                most.fetch_max(listener.connections(), Ordering::Relaxed);
            }
            listener
        });
        Self {
            path,
            log,
            seen,
            turns,
            most_connections,
            stop,
            thread: Some(thread),
        }
    }

    /// Ends the thread and gives the listener back.
    pub fn stop(mut self) -> Listener {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn next(&self) -> Seen {
        self.seen.recv_timeout(TIMEOUT).expect("an event in time")
    }

    /// The next session's end.
    pub fn next_closed(&self) -> (SessionId, CloseReason) {
        loop {
            if let Seen::Closed(session, reason) = self.next() {
                return (session, reason);
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets everybody in.
fn act(
    listener: &mut Listener,
    event: Event,
    doorbells: &mut HashMap<SessionId, Doorbells>,
) -> Seen {
    match event {
        Event::Hello(applicant) => {
            let (bells, given) = Doorbells::create(CLASSES).unwrap();
            let memories = vec![
                Memory::create(MemoryId::HOST, "host", PAGE, 1).unwrap(),
                Memory::create(MemoryId::COMMON, "common", 2 * PAGE, 1).unwrap(),
            ];
            // It may be over already; then its end is an event.
            let _ = listener.admit(
                applicant.session,
                &Admission {
                    guest_memory_bytes: 3 * PAGE,
                    memories,
                    doorbells: &given,
                },
            );
            doorbells.insert(applicant.session, bells);
            Seen::Hello(applicant)
        }
        Event::Memory { session, memory } => {
            let _ = listener.ready(session);
            Seen::Memory(session, memory)
        }
        Event::Closed { session, reason } => {
            doorbells.remove(&session);
            Seen::Closed(session, reason)
        }
    }
}
