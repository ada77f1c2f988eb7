//! What the tests over real processes share: a scratch directory, children that never outlive a test, a running bus.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test file is a crate of its own and uses a part"
)]

mod bus;
mod process;
mod random;
mod traffic;

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

pub(crate) use self::bus::{Bus, Scratch, ServingGuest, inspect, program};
pub(crate) use self::process::{Finished, Process};
pub(crate) use self::random::Random;
pub(crate) use self::traffic::Traffic;

/// How long anything may take before a test gives up: far longer than it takes on a machine that is busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Looks again and again until there is something, for what no event tells of.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "not so within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that do not repeat, alike each time.
pub(crate) fn contents(bytes: usize) -> Vec<u8> {
    let mut random = Random::new(bytes as u64);
    (0..bytes).map(|_| random.next() as u8).collect()
}

/// A SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
