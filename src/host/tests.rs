use std::time::Instant;

use shmbus_devices::timer::device::{TimerDevice, role as timer};

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
