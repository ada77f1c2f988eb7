//! Periodic timers: what is told of times that were missed.

use std::num::NonZeroU64;

use shmbus_shm::Mapped;
use shmbus_table::{Epoch, Generation, TypedWriter};

use super::tests::{guest, guest_over, owner};
use super::*;
use crate::lane::tests::carriers;
use crate::lane::{Carrier, Lane};

/// Over every carrier a periodic timer tells of each of its times once, however often guest and host look.
#[test]
fn a_periodic_timer_tells_how_many_times_were_missed() {
    const PERIOD: NonZeroU64 = NonZeroU64::new(100_000).unwrap();
    for carrier in carriers() {
        let mut timers = Timers::default();
        let mut driver = guest_over(carrier, &mut timers, 0, 2);
        let _ = driver.set_periodic(1, 1_000_000, PERIOD).unwrap();
        timers.look(owner(0), 0, 8);
        timers.flush(|_, _| {});
        let (mut told, mut missed) = (0, 0);
        let mut poll = |driver: &mut TimerDriver<Mapped>| {
            let _ = driver
                .poll(|fired| {
                    assert_eq!(fired.slot, 1);
                    told += 1 + fired.overruns;
                    missed += fired.overruns;
                    assert_eq!(
                        fired.deadline_ns,
                        1_000_000 + (told - 1) * PERIOD.get(),
                        "{carrier:?}"
                    );
                })
                .unwrap();
            (told, missed)
        };
        let expire = |timers: &mut Timers<Mapped>, now_ns| {
            while timers.expire(now_ns, 1, |_| {}) {}
            timers.flush(|_, _| {});
        };
        // On time, and looked for at once.
        for time in 0..3 {
            expire(&mut timers, 1_000_000 + time * PERIOD.get());
            assert_eq!(poll(&mut driver), (time + 1, 0));
        }
        // The host is on time, the guest looks after three.
        for time in 3..6 {
            expire(&mut timers, 1_000_010 + time * PERIOD.get());
        }
        let (_, after_guest) = poll(&mut driver);
        // The host comes four periods late.
        expire(&mut timers, 1_000_010 + 9 * PERIOD.get());
        for _ in 0..3 {
            timers.flush(|_, _| {});
            timers.look(owner(0), 0, 8);
            poll(&mut driver);
        }
        let (told, after_host) = poll(&mut driver);
        assert_eq!(told, 10, "{carrier:?}");
        assert!(after_host >= after_guest + 3, "{carrier:?}");
        assert_eq!(timers.counters().overruns, 3);
        assert_eq!(driver.deadline_ns(1), Some(1_000_000 + 10 * PERIOD.get()));

        // Moved, it goes on with what was not told of.
        let lanes = TimerLanes::on_heap(carrier, 2).unwrap();
        let _ = driver.move_to(lanes.clone()).unwrap();
        timers.add(owner(0), lanes, 2).unwrap();
        timers.look(owner(0), 0, 8);
        timers.flush(|_, _| {});
        assert_eq!(driver.deadline_ns(1), Some(1_000_000 + 10 * PERIOD.get()));
        let _ = driver.cancel(1).unwrap();
        assert_eq!(driver.deadline_ns(1), None);
    }
}

/// A period of one nanosecond does not keep the host busy.
#[test]
fn a_short_period_is_counted_not_served() {
    let mut timers = Timers::default();
    let mut driver = guest(&mut timers, 0, 1);
    let _ = driver.set_periodic(0, 0, NonZeroU64::MIN).unwrap();
    timers.look(owner(0), 1_000, 8);
    let mut fired = 0;
    for now_ns in (1_000..1_000_000).step_by(1_000) {
        assert!(!timers.expire(now_ns, 8, |_| fired += 1));
    }
    assert!((19..=21).contains(&fired), "{fired} in a millisecond");
    let mut told = 0;
    let _ = driver.poll(|one| told += 1 + one.overruns).unwrap();
    assert!(told >= 949_000, "{told}");
    // The end of time is not passed.
    let far = NonZeroU64::MAX;
    let _ = driver.set_periodic(0, 2_000_000, far).unwrap();
    timers.look(owner(0), 1_000_000, 8);
    timers.expire(2_000_000, 8, |_| {});
    assert_eq!(timers.next_deadline_ns(), None);
}

/// What a host may claim of a periodic timer that is due at 100 ns and every 10 ns from then on.
#[test]
fn an_expiration_that_cannot_be_is_reported() {
    let claim = |claims: &[(u64, u64, u64)]| {
        let lanes = TimerLanes::on_heap(Carrier::Table, 1).unwrap();
        let Lane::Table(window) = lanes.expirations.clone() else {
            unreachable!("it was asked for");
        };
        let mut driver = TimerDriver::new(lanes, 1).unwrap();
        let period = NonZeroU64::new(10).unwrap();
        let _ = driver.set_periodic(0, 100, period).unwrap();
        let mut host = TypedWriter::create(window, 1, Epoch::FIRST, vec![0]).unwrap();
        let mut told = 0;
        for &(deadline_ns, fired_ns, count) in claims {
            let expiration = Expiration {
                answers: Generation::new(Epoch::FIRST, 1).unwrap(),
                deadline_ns,
                fired_ns,
                count: NonZeroU64::new(count).unwrap(),
            };
            let _ = host.publish(0, &expiration).unwrap();
            let polled = driver.poll(|fired| told += 1 + fired.overruns);
            if let Err(fault) = polled {
                assert_eq!(driver.poll(|_| {}), Err(fault), "latched");
                return Err(fault);
            }
        }
        Ok(told)
    };
    assert_eq!(claim(&[(100, 100, 1), (120, 125, 3)]), Ok(3));
    assert_eq!(claim(&[(120, 125, 3), (120, 125, 3)]), Ok(3), "told before");
    for claims in [
        &[(120, 125, 3), (110, 125, 2)][..], // It counts back.
        &[(130, 129, 4)],
        &[(131, 200, 4)],
        &[(u64::MAX, u64::MAX, u64::MAX)],
    ] {
        let fault = claim(claims).unwrap_err();
        assert!(
            matches!(fault, TimerFault::FalseExpiration { .. }),
            "{fault}"
        );
    }
}
