//! Timers whose other side stores anything in its table, at any time: a guest that lies about its deadlines is served or
//! faulted, with no timer fired twice for one deadline; a host that lies about expirations fires none before its time.
#![no_main]

use std::num::NonZeroU64;

use libfuzzer_sys::fuzz_target;
use shmbus_devices::SessionId;
use shmbus_devices::lane::Lane;
use shmbus_devices::timer::{Deadline, Expiration, TimerDriver, TimerLanes, TimerOwner, Timers};
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::heap;
use shmbus_table::{Epoch, TypedWriter, layout_of};

const TIMERS: u32 = 6;
const GUEST: TimerOwner = TimerOwner {
    session: SessionId(1),
    vcpu: 0,
};

/// The host, over deadlines that a guest damages.
fn host(deadlines: &[(u8, u64)], damage: &[(u16, u16)], script: &[u8]) {
    let layout = layout_of::<Deadline>(TIMERS).expect("a table can have this shape");
    let of_guest = heap(layout.bytes());
    let storage = vec![0; TIMERS as usize];
    let mut guest = TypedWriter::create(of_guest.clone(), TIMERS, Epoch::FIRST, storage)
        .expect("the table fits its memory");
    let layout = layout_of::<Expiration>(TIMERS).expect("a table can have this shape");
    let of_host = scripted(&heap(layout.bytes()), &[]);
    let mut timers = Timers::default();
    let lying = scripted(&of_guest, script);
    let lanes = TimerLanes {
        deadlines: Lane::Table(lying),
        expirations: Lane::Table(of_host),
    };
    if timers.add(GUEST, lanes, TIMERS).is_err() {
        return;
    }
    let mut now_ns = 0;
    for (index, (slot, step)) in deadlines.iter().enumerate() {
        let first_ns = now_ns + step % 1000;
        let deadline = match NonZeroU64::new(step % 7) {
            Some(period_ns) if index % 4 == 0 => Deadline::Periodic {
                first_ns,
                period_ns,
            },
            _ => Deadline::At(first_ns),
        };
        let _ = guest.publish(u32::from(*slot) % TIMERS, &deadline);
        if index % 3 == 2 {
            tamper(&of_guest, damage);
        }
        now_ns += step % 300;
        timers.look(GUEST, now_ns, 4);
        assert!(timers.armed() <= TIMERS as usize);
        let mut fired = 0;
        timers.expire(now_ns, 8, |expired| {
            assert!(expired.slot < TIMERS && expired.owner == GUEST);
            fired += 1;
        });
        assert!(fired <= 8);
        timers.flush(|owner, _| assert_eq!(owner, GUEST));
        if timers.take_fault().is_some() {
            assert_eq!(timers.armed(), 0);
            return;
        }
    }
}

/// The guest, over expirations that a host damages.
fn guest(deadlines: &[(u8, u64)], damage: &[(u16, u16)], script: &[u8]) {
    let layout = layout_of::<Deadline>(TIMERS).expect("a table can have this shape");
    let of_guest = scripted(&heap(layout.bytes()), &[]);
    let layout = layout_of::<Expiration>(TIMERS).expect("a table can have this shape");
    let of_host = heap(layout.bytes());
    let lanes = TimerLanes {
        deadlines: Lane::Table(of_guest),
        expirations: Lane::Table(scripted(&of_host, script)),
    };
    let Ok(mut driver) = TimerDriver::new(lanes, TIMERS) else {
        return;
    };
    let storage = vec![0; TIMERS as usize];
    let mut host = TypedWriter::create(of_host.clone(), TIMERS, Epoch::FIRST, storage)
        .expect("the table fits its memory");
    for (index, (slot, deadline_ns)) in deadlines.iter().enumerate() {
        let slot = u32::from(*slot) % TIMERS;
        let set: Vec<_> = (0..TIMERS).map(|slot| driver.deadline_ns(slot)).collect();
        let answers = shmbus_table::Generation::new(Epoch::FIRST, index as u64 / 2 + 1)
            .expect("a count that is not zero");
        let expiration = Expiration {
            answers,
            deadline_ns: *deadline_ns,
            fired_ns: *deadline_ns,
            count: NonZeroU64::MIN,
        };
        let _ = host.publish(slot, &expiration);
        if index % 3 == 2 {
            tamper(&of_host, damage);
        }
        let polled = driver.poll(|fired| {
            assert_eq!(set[fired.slot as usize], Some(fired.deadline_ns));
            assert!(fired.fired_ns >= fired.deadline_ns);
        });
        if let Err(fault) = polled {
            assert_eq!(
                driver.poll(|_| ()).map(drop),
                Err(fault),
                "a fault is latched"
            );
            return;
        }
        driver
            .set(slot, *deadline_ns)
            .expect("the timer exists")
            .is_needed();
    }
}

fuzz_target!(|input: (bool, Vec<(u8, u64)>, Vec<(u16, u16)>, &[u8])| {
    let (of_host, deadlines, damage, script) = input;
    let side = if of_host { host } else { guest };
    side(&deadlines, &damage, script);
});
