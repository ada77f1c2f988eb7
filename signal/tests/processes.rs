//! Two processes: one raises and rings, the other sleeps in a `SignalSet`. Also: thousands of channels by two
//! descriptors. One test at a time, as they count the process's descriptors.
#![cfg(not(miri))]

use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};

use rustix::process::{Pid, Signal, kill_process};
use shmbus_shm::{Access, Entries, Mapped, SharedMemory, Window, Writers, heap};
use shmbus_signal::Priority;
use shmbus_signal::os::{Event, Notifier, SignalSet, Waiter};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const LOST: Duration = Duration::from_secs(20);
const CHANNELS: u32 = 2_000;
const ROUNDS: u64 = 3_000;

/// What the sleeper tells: how many events it has seen, and how often a signal interrupted its sleep.
const SEEN: usize = 0;
const INTERRUPTED: usize = 1;

/// The parts of the memory: tree, armed word, what the sleeper tells.
fn carve(memory: &Mapped) -> (DoorbellLayout, Mapped, Mapped, Entries<u64, Mapped>) {
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    let tree = layout.tree_bytes();
    let armed = memory.narrow(tree, DoorbellLayout::ARMED_BYTES).unwrap();
    let told = Entries::new(memory, tree + DoorbellLayout::ARMED_BYTES, 2).unwrap();
    (layout, memory.narrow(0, tree).unwrap(), armed, told)
}

fn memory_bytes() -> u64 {
    4096 * (DoorbellLayout::new(CHANNELS).unwrap().tree_bytes() as u64 + 128).div_ceil(4096)
}

/// Not a test by itself: the process that sleeps. Its doorbell is its standard input.
#[test]
fn sleeper() {
    let Some(path) = env::var_os("SHMBUS_SLEEPER_MEMORY") else {
        return;
    };
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let access = Access::ReadWrite;
    let memory = SharedMemory::from_peer(file.into(), memory_bytes(), access).unwrap();
    let (layout, tree, armed, told) = carve(memory.window());
    let receiver = Receiver::new(&tree, &armed, layout, vec![0; CHANNELS as usize]).unwrap();
    let doorbell = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut set = SignalSet::new().unwrap();
    set.set_spin(Duration::ZERO);
    set.add_doorbell(
        receiver,
        Waiter::try_from(doorbell).unwrap(),
        Priority::HIGHEST,
    )
    .unwrap();
    let (mut seen, mut interrupted) = (0, 0);
    while seen < ROUNDS {
        if !set.wait(None).unwrap() {
            interrupted += 1;
            told.store(INTERRUPTED, interrupted, Relaxed);
        }
        while let Some(Event::Raised { channel, .. }) = set.next_event() {
            assert_eq!(u64::from(channel), seen % u64::from(CHANNELS));
            seen += 1;
            told.store(SEEN, seen, Release);
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Polls until `is_done`, or fails with what was waited for.
fn until(what: &str, mut is_done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_done() {
        assert!(began.elapsed() < LOST, "{what}");
        thread::yield_now();
    }
}

#[test]
fn no_wake_up_is_lost_between_processes_and_signals_do_no_harm() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let memory = SharedMemory::create("doorbell", memory_bytes(), Writers::Everybody).unwrap();
    let (layout, tree, armed, told) = carve(memory.window());
    let mut sender = Sender::new(&tree, &armed, layout).unwrap();
    let waiter = Waiter::new().unwrap();
    let notifier = waiter.notifier().unwrap();
    let path = format!("/proc/{}/fd/{}", process::id(), memory.as_fd().as_raw_fd());
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "sleeper", "--nocapture"])
        .env("SHMBUS_SLEEPER_MEMORY", path)
        .stdin(Stdio::from(waiter.as_fd().try_clone_to_owned().unwrap()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);

    // Stopped and continued in its sleep, it is told so, and sleeps on.
    let pid = Pid::from_child(&child.0);
    until("the sleep was never interrupted", || {
        kill_process(pid, Signal::STOP).unwrap();
        thread::sleep(Duration::from_millis(2));
        kill_process(pid, Signal::CONT).unwrap();
        thread::sleep(Duration::from_millis(2));
        told.load(INTERRUPTED, Relaxed) > 0
    });

    for round in 0..ROUNDS {
        let channel = (round % u64::from(CHANNELS)) as u32;
        if sender.raise(channel).unwrap().is_needed() {
            notifier.notify().unwrap();
        }
        until("a wake-up was lost", || told.load(SEEN, Acquire) > round);
    }
    assert!(child.0.wait().unwrap().success());
    assert!(sender.counts().sent > 0);
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Two sides with 2,000 channels each way take one eventfd each way; of the rest, each set takes two.
#[test]
fn two_thousand_channels_take_two_descriptors() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    let mut sets = [SignalSet::new().unwrap(), SignalSet::new().unwrap()];
    let before = descriptors();
    // Both ends of an eventfd are one descriptor in a process of its own; here the sender's is counted apart.
    let (mut senders, mut of_senders) = (Vec::new(), 0);
    for set in &mut sets {
        let tree = heap(layout.tree_bytes());
        let armed = heap(DoorbellLayout::ARMED_BYTES);
        let receiver = Receiver::new(&tree, &armed, layout, vec![0; CHANNELS as usize]).unwrap();
        let waiter = Waiter::new().unwrap();
        let notifier: Notifier = waiter.notifier().unwrap();
        of_senders += 1;
        set.add_doorbell(receiver, waiter, Priority::HIGHEST)
            .unwrap();
        senders.push((Sender::new(&tree, &armed, layout).unwrap(), notifier));
    }
    assert_eq!(descriptors() - before - of_senders, 2);

    for (set, (sender, notifier)) in sets.iter_mut().zip(&mut senders) {
        let mut kicks = 0;
        for channel in (0..CHANNELS).rev() {
            // Asleep before the first is raised.
            if channel == CHANNELS - 1 {
                assert!(!set.wait(Some(Duration::from_millis(1))).unwrap());
            }
            if sender.raise(channel).unwrap().is_needed() {
                kicks += 1;
                notifier.notify().unwrap();
            }
        }
        assert_eq!(kicks, 1);
        assert!(set.wait(Some(LOST)).unwrap());
        let mut raised = Vec::new();
        while let Some(Event::Raised { channel, .. }) = set.next_event() {
            raised.push(channel);
        }
        assert!(raised.into_iter().eq(0..CHANNELS));
    }
}
