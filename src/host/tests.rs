use std::time::Instant;

use shmbus_devices::timer::device::{TimerDevice, role as timer};
use shmbus_transports::ivshmem::ServerOptions;

use super::*;
use crate::guest::timer_driver;
use crate::{Guest, inspect};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The counters, once `is_due` finds in them what it waits for.
fn totals(path: &std::path::Path, is_due: impl Fn(&Totals) -> bool) -> Totals {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let totals = inspect::look(path).unwrap().totals;
        if is_due(&totals) {
            return totals;
        }
        assert!(Instant::now() < deadline, "{totals:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A guest in a thread of its own sets one timer after the other until it is told to stop.
fn setting_timers(path: &std::path::Path, name: &str, stop: &std::sync::atomic::AtomicBool) {
    let mut guest = Guest::connect(path, name, TIMEOUT).unwrap();
    let mut driver = timer_driver(&mut guest, 0).unwrap();
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        for slot in 0..4 {
            let notify = driver.set(slot, monotonic_ns() + 1_000_000).unwrap();
            guest.signal(0, timer::DEADLINES, notify);
        }
        guest.wait(Some(Duration::from_millis(1))).unwrap();
        while guest.next_event().is_some() {}
        let notify = driver.poll(|_| ()).unwrap();
        guest.signal(0, timer::DEADLINES, notify);
    }
    for slot in 0..4 {
        let notify = driver.cancel(slot).unwrap();
        guest.signal(0, timer::DEADLINES, notify);
    }
}

/// The view without the guests' own memories: from the gallery at the socket.
fn in_the_gallery(path: &std::path::Path) -> inspect::BusView {
    let mut memories = inspect::Memories::at(inspect::Place::Socket(path)).unwrap();
    memories.sessions.clear();
    inspect::view_of(memories, true).unwrap()
}

#[test]
fn the_gallery_shows_what_the_memories_of_the_guests_show() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let bus = Bus::builder()
        .device(TimerDevice::new(4).unwrap())
        .device(TimerDevice::new(4).unwrap())
        .ivshmem(directory.path().join("qemu"), ServerOptions::default());
    let mut bus = bus.listen(&path).unwrap();
    let (end, ender) = std::io::pipe().unwrap();
    let host = std::thread::spawn(move || bus.run(end));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let as_text = |view: &inspect::BusView| serde_json::to_string(&view.guests).unwrap();
    std::thread::scope(|scope| {
        let guests: Vec<_> = ["one", "two", "three"]
            .map(|name| {
                let (path, stop) = (&path, &stop);
                scope.spawn(move || setting_timers(path, name, stop))
            })
            .into();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let guests = in_the_gallery(&path).guests;
            let is_busy = |guest: &inspect::GuestView| {
                let timers = guest.timers.iter().filter(|timer| timer.set > 3);
                timers.count() == 4 && guest.devices.iter().all(|device| device.kind == "timer")
            };
            if guests.len() == 3 && guests.iter().all(is_busy) {
                break;
            }
            assert!(Instant::now() < deadline, "{guests:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for guest in guests {
            guest.join().unwrap();
        }
    });
    // Others come, and stay as they are.
    let mut still = Guest::connect(&path, "still", TIMEOUT).unwrap();
    let mut driver = timer_driver(&mut still, 1).unwrap();
    let notify = driver.set(2, u64::MAX / 2).unwrap();
    still.signal(1, timer::DEADLINES, notify);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let [shown, own] = [in_the_gallery(&path), inspect::look(&path).unwrap()];
        let own = as_text(&own);
        if as_text(&shown) == own && own.contains("9223372036854775807") && shown.totals.guests == 1
        {
            break;
        }
        assert!(Instant::now() < deadline, "{shown:?}, not {own}");
        std::thread::sleep(Duration::from_millis(5));
    }
    still.leave();
    // At once, as the counters.
    totals(&path, |totals| totals.guests == 0);
    assert!(in_the_gallery(&path).guests.is_empty());
    drop(ender);
    host.join().unwrap().unwrap();
}

#[test]
fn what_was_signalled_to_a_guest_is_counted_when_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut bus = Bus::builder()
        .device(TimerDevice::new(1).unwrap())
        .listen(&path)
        .unwrap();
    let (stop, stopper) = std::io::pipe().unwrap();
    let host = std::thread::spawn(move || bus.run(stop));

    let mut guest = Guest::connect(&path, "counted", TIMEOUT).unwrap();
    let mut driver = timer_driver(&mut guest, 0).unwrap();
    let notify = driver.set(0, monotonic_ns() + 5_000_000).unwrap();
    guest.signal(0, timer::DEADLINES, notify);
    let deadline = Instant::now() + TIMEOUT;
    let mut fired = false;
    while !fired {
        assert!(Instant::now() < deadline);
        guest.wait(Some(TIMEOUT)).unwrap();
        while guest.next_event().is_some() {}
        let notify = driver.poll(|_| fired = true).unwrap();
        guest.signal(0, timer::DEADLINES, notify);
    }
    let with_guest = totals(&path, |totals| totals.signals_sent > 0);
    guest.leave();
    let without = totals(&path, |totals| totals.guests == 0);
    assert!(without.signals_sent >= with_guest.signals_sent);
    drop(stopper);
    host.join().unwrap().unwrap();
}
