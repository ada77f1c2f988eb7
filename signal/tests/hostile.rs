//! A peer in a process of its own that does what it can: to stall who rings its doorbell, to keep busy who listens to
//! it, to starve whom it shares a set with.
#![cfg(not(miri))]

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, shutdown,
};
use shmbus_shm::{Access, Mapped, SharedMemory, Window, Writers, heap};
use shmbus_signal::os::{
    self, Event, NOTICE_BOUND, Notifier, STARVATION_BOUND, STORM_STRIKES, SignalSet,
};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};
use shmbus_signal::{CLASSES, Priority};

const LOST: Duration = Duration::from_secs(20);
const CHANNELS: u32 = 2_000;

/// Set for the process that attacks: how.
const ATTACK: &str = "SHMBUS_ATTACK";

/// Not a test by itself: the attacker. Its standard input is the end of a doorbell that it was given, its standard error
/// a pipe by which it says that it has begun.
#[test]
fn attacker() {
    let Ok(attack) = env::var(ATTACK) else {
        return;
    };
    let end = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let begun = || io::stderr().write_all(b"!").unwrap();
    match attack.as_str() {
        "stall" => {
            stall(&end);
            begun();
            loop {
                thread::park();
            }
        }
        "storm" => {
            let notifier = Notifier::from_end(end).unwrap();
            begun();
            loop {
                notifier.notify().unwrap();
            }
        }
        path => {
            let file = fs::File::options().read(true).write(true).open(path);
            let (layout, memory) = shared(file.unwrap().into());
            let (tree, armed) = carve(layout, &memory);
            let mut sender = Sender::new(&tree, &armed, layout).unwrap();
            let notifier = Notifier::from_end(end).unwrap();
            for channel in (0..CHANNELS).cycle() {
                if sender.raise(channel).unwrap().is_needed() {
                    notifier.notify().unwrap();
                }
                if sender.counts().suppressed == u64::from(CHANNELS) {
                    begun();
                }
            }
        }
    }
}

/// All that stalls who rings an eventfd, and what else can be done to a socket.
fn stall(end: &OwnedFd) {
    ioctl_fionbio(end, false).unwrap();
    let bytes = [IoSlice::new(&[0; 4096])];
    let sent = sendmsg(end, &bytes, &mut Default::default(), SendFlags::NOSIGNAL);
    assert_eq!(sent, Err(Errno::PIPE), "nothing can be sent");
    let fds = [end.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    assert!(with.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(end, &bytes, &mut with, SendFlags::NOSIGNAL);
    assert_eq!(sent, Err(Errno::PIPE), "no descriptor either");
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        shutdown(end, how).unwrap();
    }
}

struct Attacker(Child);

impl Attacker {
    /// Starts it and waits until it attacks.
    fn start(attack: &str, end: impl Into<OwnedFd>) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "attacker", "--nocapture"])
            .env(ATTACK, attack)
            .stdin(Stdio::from(end.into()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begun = [0];
        let told = child.stderr.as_mut().unwrap().read_exact(&mut begun);
        told.unwrap();
        assert_eq!(begun, *b"!", "the attack failed");
        Self(child)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn memory_bytes() -> u64 {
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    4096 * ((layout.tree_bytes() + DoorbellLayout::ARMED_BYTES) as u64).div_ceil(4096)
}

fn shared(fd: OwnedFd) -> (DoorbellLayout, Mapped) {
    let memory = SharedMemory::from_peer(fd, memory_bytes(), Access::ReadWrite).unwrap();
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    (layout, memory.window().clone())
}

/// The sender's section and the receiver's.
fn carve(layout: DoorbellLayout, memory: &Mapped) -> (Mapped, Mapped) {
    let tree = memory.narrow(0, layout.tree_bytes()).unwrap();
    let armed = memory.narrow(layout.tree_bytes(), DoorbellLayout::ARMED_BYTES);
    (tree, armed.unwrap())
}

/// An honest sender in this process.
struct Honest {
    sender: Sender<Mapped, Mapped>,
    notifier: Notifier,
}

impl Honest {
    fn join(set: &mut SignalSet, priority: Priority) -> Self {
        let layout = DoorbellLayout::new(1).unwrap();
        let tree = heap(layout.tree_bytes());
        let armed = heap(DoorbellLayout::ARMED_BYTES);
        let sender = Sender::new(&tree, &armed, layout).unwrap();
        let receiver = Receiver::new(&tree, &armed, layout, vec![0]).unwrap();
        let (notifier, waiter) = os::doorbell().unwrap();
        set.add_doorbell(receiver, waiter, priority).unwrap();
        Self { sender, notifier }
    }

    fn raise(&mut self) {
        if self.sender.raise(0).unwrap().is_needed() {
            self.notifier.notify().unwrap();
        }
    }
}

#[test]
fn a_peer_cannot_stall_who_rings_its_doorbell() {
    let (notifier, waiter) = os::doorbell().unwrap();
    let attacker = Attacker::start("stall", waiter);
    let (done, is_done) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for _ in 0..100_000 {
            notifier.notify().unwrap();
        }
        // Also when nobody is left at the other end.
        drop(attacker);
        notifier.notify().unwrap();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(LOST).expect("the peer stalls us");
}

#[test]
fn a_storm_from_a_process_is_muted_and_starves_nobody() {
    let mut set = SignalSet::new().unwrap();
    set.set_spin(Duration::ZERO);
    let mut honest = Honest::join(&mut set, Priority::LOWEST);
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    let (tree, armed) = (heap(layout.tree_bytes()), heap(DoorbellLayout::ARMED_BYTES));
    let _silent = Sender::new(&tree, &armed, layout).unwrap();
    let receiver = Receiver::new(&tree, &armed, layout, vec![0; CHANNELS as usize]).unwrap();
    let (notifier, waiter) = os::doorbell().unwrap();
    set.add_doorbell(receiver, waiter, Priority::HIGHEST)
        .unwrap();
    let _attacker = Attacker::start("storm", notifier);
    let began = Instant::now();
    let mut served = 0;
    while served < 200 || set.counts().muted < 3 {
        assert!(began.elapsed() < LOST, "{served}, {:?}", set.counts());
        honest.raise();
        assert!(set.wait(Some(LOST)).unwrap(), "the honest one starves");
        while let Some(event) = set.next_event() {
            assert!(matches!(event, Event::Raised { channel: 0, .. }));
            served += 1;
        }
        thread::sleep(Duration::from_micros(100));
    }
    // Each muting is the work of so many rings, and no more rings than that were listened to.
    let counts = set.counts();
    assert!(counts.spurious <= (counts.muted + 1) * u64::from(STORM_STRIKES) + 2);
}

/// Two thousand channels of the highest class are raised without pause. The lowest class, whose doorbell sleeps, is
/// served within the stated number of events all the same, also by who never stops asking for the next event.
#[test]
fn who_raises_without_pause_holds_up_the_lowest_class_no_longer_than_stated() {
    let mut set = SignalSet::new().unwrap();
    let mut honest = Honest::join(&mut set, Priority::LOWEST);
    let memory = SharedMemory::create("bell", memory_bytes(), Writers::Everybody).unwrap();
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    let (tree, armed) = carve(layout, memory.window());
    let (notifier, waiter) = os::doorbell().unwrap();
    let path = format!("/proc/{}/fd/{}", process::id(), memory.as_fd().as_raw_fd());
    let _attacker = Attacker::start(&path, notifier);
    let receiver = Receiver::new(&tree, &armed, layout, vec![0; CHANNELS as usize]).unwrap();
    let busy = set
        .add_doorbell(receiver, waiter, Priority::HIGHEST)
        .unwrap();

    let bound = NOTICE_BOUND + STARVATION_BOUND + CLASSES as u32 - 2;
    let (mut served, mut passed_over, mut longest) = (0, None, 0);
    let began = Instant::now();
    while served < 300 {
        assert!(began.elapsed() < LOST, "{served} served");
        assert!(set.wait(Some(LOST)).unwrap());
        while let Some(event) = set.next_event() {
            if event.token() == busy {
                match &mut passed_over {
                    Some(count) => *count += 1,
                    None => {
                        honest.raise();
                        passed_over = Some(0);
                    }
                }
            } else {
                let waited = passed_over.take().expect("raised once, heard once");
                assert!(waited <= bound, "{waited} events went before");
                longest = longest.max(waited);
                served += 1;
            }
        }
    }
    assert!(longest > STARVATION_BOUND / 2, "nobody was busy: {longest}");
}
