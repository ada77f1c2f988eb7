//! The machine's counter. The crate's only access to it is here.
#![allow(unsafe_code)]

use rustix::time::{ClockId, clock_gettime};

/// Which counter a value was read from. Values of two domains never compare.
///
/// The numbers are those of the published VMClock ABI, which are virtio-rtc's; the kernel's raw clock, which that ABI
/// does not know, has a number from its top half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CounterDomain {
    /// The virtual count of aarch64's generic timer (`CNTVCT_EL0`).
    Cntvct = 0,
    /// The time stamp counter of x86-64.
    Tsc = 1,
    /// `CLOCK_MONOTONIC_RAW` in nanoseconds: the fallback where there is no usable counter register.
    MonotonicRaw = 0x80,
    /// No counter: a sample of this domain cannot be extrapolated.
    Invalid = 0xff,
}

impl CounterDomain {
    /// The domain with this number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Cntvct, Self::Tsc, Self::MonotonicRaw, Self::Invalid]
            .into_iter()
            .find(|domain| *domain as u8 == number)
    }
}

/// A counter that ticks at a steady rate. [`Counter`] is the machine's; tests and emulators bring their own.
pub trait Ticks {
    /// What the counter is.
    fn domain(&self) -> CounterDomain;

    /// The counter's value now. Reads are ordered: a value is not older than any load that the thread made before.
    fn now(&self) -> u64;
}

impl<T: Ticks + ?Sized> Ticks for &T {
    fn domain(&self) -> CounterDomain {
        (**self).domain()
    }

    fn now(&self) -> u64 {
        (**self).now()
    }
}

/// A counter of this machine that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    domain: CounterDomain,
}

impl Counter {
    /// The best counter here: the register if it ticks at one rate in every power state, else the raw clock.
    pub fn detect() -> Self {
        if register::is_usable() {
            Self {
                domain: register::DOMAIN,
            }
        } else {
            Self::monotonic_raw()
        }
    }

    /// The kernel's raw clock, whatever else there is.
    pub fn monotonic_raw() -> Self {
        Self {
            domain: CounterDomain::MonotonicRaw,
        }
    }

    /// The counter of `domain`, if this machine has it: a reader takes the one that the samples were taken with.
    pub fn of(domain: CounterDomain) -> Option<Self> {
        match domain {
            CounterDomain::MonotonicRaw => Some(Self::monotonic_raw()),
            CounterDomain::Invalid => None,
            _ => Some(Self::detect()).filter(|counter| counter.domain == domain),
        }
    }
}

/// Miri knows no raw clock.
const RAW_CLOCK: ClockId = if cfg!(miri) {
    ClockId::Monotonic
} else {
    ClockId::MonotonicRaw
};

impl Ticks for Counter {
    #[inline]
    fn domain(&self) -> CounterDomain {
        self.domain
    }

    #[inline]
    fn now(&self) -> u64 {
        if self.domain == CounterDomain::MonotonicRaw {
            nanoseconds(RAW_CLOCK)
        } else {
            register::read()
        }
    }
}

/// A system clock in nanoseconds; 0 before its epoch, which no clock here can be.
pub(super) fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec as u64)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod register {
    use core::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};

    use super::CounterDomain;

    pub(super) const DOMAIN: CounterDomain = CounterDomain::Tsc;

    const ADVANCED_POWER_MANAGEMENT: u32 = 0x8000_0007;
    const INVARIANT_TSC: u32 = 1 << 8;

    pub(super) fn is_usable() -> bool {
        let highest_leaf = __cpuid(0x8000_0000).eax;
        highest_leaf >= ADVANCED_POWER_MANAGEMENT
            && __cpuid(ADVANCED_POWER_MANAGEMENT).edx & INVARIANT_TSC != 0
    }

    #[inline]
    pub(super) fn read() -> u64 {
        // RDTSC may run ahead of earlier loads; LFENCE waits for them.
        // SAFETY: every x86-64 processor has both instructions.
        unsafe {
            _mm_lfence();
            _rdtsc()
        }
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod register {
    use core::arch::asm;

    use super::CounterDomain;

    pub(super) const DOMAIN: CounterDomain = CounterDomain::Cntvct;

    /// The architecture promises one rate, and Linux lets processes read the register.
    pub(super) fn is_usable() -> bool {
        true
    }

    #[inline]
    pub(super) fn read() -> u64 {
        let count;
        // The count may be read ahead of earlier loads; ISB waits for them (Arm ARM, D12.2: speculative reads).
        // SAFETY: reads a register; without `nomem` the compiler keeps the order too.
        unsafe {
            asm!("isb", "mrs {}, cntvct_el0", out(reg) count, options(nostack, preserves_flags))
        };
        count
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod register {
    use super::CounterDomain;

    pub(super) const DOMAIN: CounterDomain = CounterDomain::Invalid;

    pub(super) fn is_usable() -> bool {
        false
    }

    pub(super) fn read() -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_do_not_run_backwards() {
        for counter in [Counter::detect(), Counter::monotonic_raw()] {
            let start = counter.now();
            let mut last = start;
            for _ in 0..if cfg!(miri) { 10 } else { 100_000 } {
                let now = counter.now();
                assert!(now >= last, "{counter:?}: {last} then {now}");
                last = now;
            }
            assert!(last > start, "{counter:?} stands still");
        }
    }

    #[test]
    fn a_domain_gives_its_own_counter_or_none() {
        for domain in [
            CounterDomain::Cntvct,
            CounterDomain::Tsc,
            CounterDomain::MonotonicRaw,
        ] {
            if let Some(counter) = Counter::of(domain) {
                assert_eq!(counter.domain(), domain);
            }
            assert_eq!(CounterDomain::from_number(domain as u8), Some(domain));
        }
        assert_eq!(Counter::of(CounterDomain::Invalid), None);
        assert_eq!(CounterDomain::from_number(7), None);
    }
}
