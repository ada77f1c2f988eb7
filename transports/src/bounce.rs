//! Bounce buffers: a pool that a function may access, and nothing else.
//!
//! A confidential guest's memory is out of its devices' reach but for what it shares with them. So does a [`Bounce`]: it
//! takes its pool from any [`DmaMemory`] once, copies what a function is to read into it, and what the function wrote out of
//! it. Rings come from the pool, too ([`Bounce`] is a [`DmaMemory`]), so a driver that has nothing else lets its
//! function reach nothing else.

use core::fmt;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use range_alloc::RangeAllocator;
use shmbus_shm::{Bytes, Mapped, Window};

use crate::pci::{DmaError, DmaMemory, DmaRegion};

/// Buffers start at multiples of this many bytes, so that no two share a cache line.
const LINE: usize = 64;

/// Memory for rings starts at multiples of this many bytes.
const PAGE: usize = 4096;

/// Who writes to a shared buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The function reads what the driver wrote.
    ToDevice,
    /// The function writes; it finds zeros.
    FromDevice,
    /// The function reads, and writes.
    Both,
}

/// A buffer cannot be shared, or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BounceError {
    /// There is nothing to share.
    #[error("a buffer of no bytes cannot be shared")]
    Empty,
    /// The pool has no room.
    #[error("{bytes} bytes are not free in one piece: of {pool} bytes in the pool, {free} are")]
    Exhausted {
        /// How many are wanted.
        bytes: usize,
        /// How many are free, in pieces of any size.
        free: usize,
        /// How large the pool is, in bytes.
        pool: usize,
    },
    /// No buffer was shared at this address, or it was taken back already.
    #[error("no buffer is shared at address {address:#x}")]
    NotShared {
        /// The address.
        address: u64,
    },
    /// The buffer is another one than was shared.
    #[error("the buffer that is shared at address {address:#x} has {expected} bytes, not {found}")]
    Length {
        /// The address.
        address: u64,
        /// How many bytes were shared.
        expected: usize,
        /// How many are to be taken back.
        found: usize,
    },
}

/// A fixed pool of memory that a function may access. Clones share it.
#[derive(Clone)]
pub struct Bounce(Arc<Pool>);

struct Pool {
    region: DmaRegion,
    state: Mutex<State>,
}

struct State {
    free: RangeAllocator<usize>,
    /// By their offset in the pool; what the function writes there has no say in it.
    buffers: BTreeMap<usize, Buffer>,
}

#[derive(Clone, Copy)]
struct Buffer {
    bytes: usize,
    direction: Direction,
}

impl Bounce {
    /// Takes a pool of at least `bytes` bytes from `memory`.
    ///
    /// # Errors
    ///
    /// [`DmaError`].
    pub fn new<M: DmaMemory + ?Sized>(memory: &M, bytes: usize) -> Result<Self, DmaError> {
        if bytes == 0 {
            return Err(DmaError::Size { bytes });
        }
        let region = memory.allocate(bytes)?;
        let state = Mutex::new(State {
            free: RangeAllocator::new(0..region.window.len()),
            buffers: BTreeMap::new(),
        });
        Ok(Self(Arc::new(Pool { region, state })))
    }

    /// All addresses that the function can reach.
    pub fn addresses(&self) -> Range<u64> {
        let DmaRegion { window, address } = &self.0.region;
        *address..*address + window.len() as u64
    }

    /// Shares a buffer of as many bytes as `bytes` has, and copies these into it, unless only the function writes to it.
    /// Returns where the function finds it.
    ///
    /// # Errors
    ///
    /// [`BounceError::Empty`], [`BounceError::Exhausted`].
    pub fn share(&self, bytes: &[u8], direction: Direction) -> Result<u64, BounceError> {
        let pool = &*self.0;
        let mut state = pool.lock();
        let offset = state.take(bytes.len(), LINE)?;
        if direction == Direction::FromDevice {
            // What lay there before is nothing that the function wrote into this buffer.
            pool.clear(offset, bytes.len());
        } else {
            pool.copy_in(offset, bytes);
        }
        let buffer = Buffer {
            bytes: bytes.len(),
            direction,
        };
        state.buffers.insert(offset, buffer);
        Ok(pool.region.address + offset as u64)
    }

    /// Takes a buffer back that the function is done with. What it wrote is copied into `bytes`, once: what it writes later
    /// changes nothing there. If it was only to read, `bytes` stays as it is.
    ///
    /// # Errors
    ///
    /// [`BounceError::NotShared`]; [`BounceError::Length`], and then it is still shared.
    pub fn unshare(&self, address: u64, bytes: &mut [u8]) -> Result<(), BounceError> {
        let pool = &*self.0;
        let mut state = pool.lock();
        let (offset, buffer) = address
            .checked_sub(pool.region.address)
            .and_then(|offset| usize::try_from(offset).ok())
            .and_then(|offset| Some((offset, *state.buffers.get(&offset)?)))
            .ok_or(BounceError::NotShared { address })?;
        if bytes.len() != buffer.bytes {
            return Err(BounceError::Length {
                address,
                expected: buffer.bytes,
                found: bytes.len(),
            });
        }
        if buffer.direction != Direction::ToDevice {
            pool.copy_out(offset, bytes);
        }
        state.buffers.remove(&offset);
        state.give_back(offset, buffer.bytes, LINE);
        Ok(())
    }
}

/// Memory for rings, out of the pool; it goes back with the last window on it.
impl DmaMemory for Bounce {
    fn allocate(&self, bytes: usize) -> Result<DmaRegion, DmaError> {
        let taken = self.0.lock().take(bytes, PAGE);
        let offset = taken.map_err(|error| match error {
            BounceError::Empty => DmaError::Size { bytes },
            _ => DmaError::NoAddresses { bytes },
        })?;
        let lease = Lease {
            pool: Arc::clone(&self.0),
            offset,
            bytes,
        };
        self.0.clear(offset, bytes);
        let window = self.0.region.window.narrow(offset, bytes);
        Ok(DmaRegion {
            window: window.map_err(|_| DmaError::Size { bytes })?.leased(lease),
            address: self.0.region.address + offset as u64,
        })
    }
}

impl fmt::Debug for Bounce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounce")
            .field("addresses", &self.addresses())
            .field("shared", &self.0.lock().buffers.len())
            .finish()
    }
}

impl Pool {
    /// No thread panics with the lock; were it so, the state would still be whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copy_in(&self, offset: usize, from: &[u8]) {
        self.all().map(|all| all.copy_from(offset, from));
    }

    fn copy_out(&self, offset: usize, to: &mut [u8]) {
        self.all().map(|all| all.copy_to(offset, to));
    }

    fn clear(&self, offset: usize, bytes: usize) {
        let end = offset + bytes;
        for at in (offset..end).step_by(PAGE) {
            self.copy_in(at, &[0; PAGE][..PAGE.min(end - at)]);
        }
    }

    /// All of the window, which lies inside itself.
    fn all(&self) -> Option<Bytes<'_, Mapped>> {
        Bytes::new(&self.region.window, 0, self.region.window.len()).ok()
    }
}

impl State {
    /// Takes `bytes` bytes, and what follows them up to a multiple of `unit`.
    fn take(&mut self, bytes: usize, unit: usize) -> Result<usize, BounceError> {
        if bytes == 0 {
            return Err(BounceError::Empty);
        }
        let pool = self.free.initial_range().end;
        let taken = bytes
            .checked_next_multiple_of(unit)
            .filter(|len| *len <= pool)
            .and_then(|len| self.free.allocate_range_aligned(len, unit).ok());
        let exhausted = BounceError::Exhausted {
            bytes,
            free: self.free.total_available(),
            pool,
        };
        taken.map(|taken| taken.start).ok_or(exhausted)
    }

    fn give_back(&mut self, offset: usize, bytes: usize, unit: usize) {
        self.free
            .free_range(offset..offset + bytes.next_multiple_of(unit));
    }
}

/// Memory for rings that is in use.
struct Lease {
    pool: Arc<Pool>,
    offset: usize,
    bytes: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lock().give_back(self.offset, self.bytes, PAGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shmbus_shm::heap;

    const ADDRESS: u64 = 0x10_0000;

    /// Memory that remembers what it gave away: all that a function reaches.
    #[derive(Default)]
    struct Given(Mutex<Vec<DmaRegion>>);

    impl DmaMemory for Given {
        fn allocate(&self, bytes: usize) -> Result<DmaRegion, DmaError> {
            let window = heap(bytes.next_multiple_of(PAGE));
            let region = DmaRegion {
                window,
                address: ADDRESS,
            };
            self.0.lock().unwrap().push(region.clone());
            Ok(region)
        }
    }

    /// A function that can reach what was given away.
    impl Given {
        fn reach<T>(&self, address: u64, access: impl FnOnce(&Bytes<'_, Mapped>, usize) -> T) -> T {
            let regions = self.0.lock().unwrap();
            let [region] = &regions[..] else {
                panic!("{} pools", regions.len());
            };
            let all = Bytes::new(&region.window, 0, region.window.len()).unwrap();
            access(&all, (address - region.address) as usize)
        }

        fn writes(&self, address: u64, bytes: &[u8]) {
            self.reach(address, |all, at| {
                assert_eq!(all.copy_from(at, bytes), bytes.len())
            });
        }

        fn reads(&self, address: u64, len: usize) -> Vec<u8> {
            let mut bytes = vec![0; len];
            self.reach(address, |all, at| {
                assert_eq!(all.copy_to(at, &mut bytes), len)
            });
            bytes
        }
    }

    #[test]
    fn the_function_reads_and_writes_copies() {
        let given = Given::default();
        let bounce = Bounce::new(&given, 4096).unwrap();
        let mut request = *b"request";
        let mut answer = [0xaa; 100];
        let mut both = *b"both";
        let request_at = bounce.share(&request, Direction::ToDevice).unwrap();
        let answer_at = bounce.share(&answer, Direction::FromDevice).unwrap();
        let both_at = bounce.share(&both, Direction::Both).unwrap();
        assert_eq!(given.reads(request_at, 7), b"request");
        assert_eq!(
            given.reads(answer_at, 100),
            [0; 100],
            "not what the driver had there"
        );
        assert_eq!(given.reads(both_at, 4), b"both");
        given.writes(request_at, b"changed");
        given.writes(answer_at, b"answer");
        given.writes(both_at, b"back");
        assert_eq!(answer, [0xaa; 100], "nothing before it is taken back");
        bounce.unshare(request_at, &mut request).unwrap();
        bounce.unshare(answer_at, &mut answer).unwrap();
        bounce.unshare(both_at, &mut both).unwrap();
        assert_eq!((&request, &both), (b"request", b"back"));
        assert_eq!((&answer[..6], &answer[6..]), (&b"answer"[..], &[0; 94][..]));
        given.writes(answer_at, b"late!!");
        assert_eq!(&answer[..6], b"answer");
        // The next buffer in the same place shows nothing of what was there.
        let next = bounce.share(&answer, Direction::FromDevice).unwrap();
        bounce.unshare(next, &mut answer).unwrap();
        assert_eq!(answer, [0; 100]);
    }

    #[test]
    fn what_was_not_shared_is_not_taken_back() {
        let bounce = Bounce::new(&Given::default(), 4096).unwrap();
        let address = bounce.share(&[1; 64], Direction::Both).unwrap();
        let rings = bounce.allocate(100);
        assert!(rings.is_err(), "the page is begun");
        for wrong in [0, address - 1, address + 1, address + 64, u64::MAX] {
            let refused = bounce.unshare(wrong, &mut [0; 64]);
            assert_eq!(refused, Err(BounceError::NotShared { address: wrong }));
        }
        let refused = bounce.unshare(address, &mut [0; 63]).unwrap_err();
        assert!(
            refused.to_string().ends_with("has 64 bytes, not 63"),
            "{refused}"
        );
        bounce.unshare(address, &mut [0; 64]).unwrap();
        let again = bounce.unshare(address, &mut [0; 64]);
        assert_eq!(again, Err(BounceError::NotShared { address }));
        assert_eq!(bounce.share(&[], Direction::Both), Err(BounceError::Empty));
    }

    #[test]
    fn rings_lie_in_the_pool_and_go_back_to_it() {
        let given = Given::default();
        let bounce = Bounce::new(&given, 4 * PAGE).unwrap();
        let buffer = bounce.share(&[7; 5000], Direction::ToDevice).unwrap();
        let rings = bounce.allocate(5000).unwrap();
        assert!(rings.address.is_multiple_of(PAGE as u64) && rings.window.len() == 5000);
        assert!(matches!(
            bounce.allocate(1),
            Err(DmaError::NoAddresses { bytes: 1 })
        ));
        assert!(matches!(
            bounce.allocate(usize::MAX),
            Err(DmaError::NoAddresses { .. })
        ));
        assert!(matches!(
            bounce.allocate(0),
            Err(DmaError::Size { bytes: 0 })
        ));
        let not_a_buffer = bounce.unshare(rings.address, &mut [0; 5000]);
        assert!(matches!(not_a_buffer, Err(BounceError::NotShared { .. })));
        given.writes(rings.address, &[1; 5000]);
        bounce.unshare(buffer, &mut [0; 5000]).unwrap();
        let view = rings.window.narrow(8, 8).unwrap();
        drop(rings);
        assert!(
            bounce.allocate(3 * PAGE).is_err(),
            "a part of the window is left"
        );
        drop(view);
        let all = bounce.allocate(4 * PAGE).unwrap();
        assert_eq!(given.reads(all.address, 4 * PAGE), [0; 4 * PAGE]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: if cfg!(miri) { 2 } else { 256 }, ..ProptestConfig::default() })]
        /// Whatever is shared and taken back: no two buffers overlap, each lies in the one region that was ever asked for, a
        /// full pool says so, and in the end all of it is free.
        #[test]
        fn buffers_are_apart_and_in_the_pool(
            steps in prop::collection::vec((1_usize..2000, any::<usize>()), 1..if cfg!(miri) { 4 } else { 80 }),
        ) {
            let given = Given::default();
            let bounce = Bounce::new(&given, 4 * PAGE).unwrap();
            let pool = bounce.addresses();
            let mut shared: Vec<(u64, Vec<u8>)> = Vec::new();
            for (number, (len, pick)) in steps.into_iter().enumerate() {
                let fill = vec![number as u8 + 1; len];
                match bounce.share(&fill, Direction::Both) {
                    Ok(address) => {
                        prop_assert!(pool.start <= address && address + len as u64 <= pool.end);
                        let end = address + len as u64;
                        let apart = |(at, other): &(u64, Vec<u8>)| end <= *at || at + other.len() as u64 <= address;
                        prop_assert!(shared.iter().all(apart));
                        shared.push((address, fill));
                    }
                    Err(BounceError::Exhausted { bytes, pool, .. }) => {
                        prop_assert_eq!((bytes, pool), (len, 4 * PAGE));
                        prop_assert!(!shared.is_empty());
                    }
                    Err(error) => prop_assert!(false, "{error}"),
                }
                if pick % 2 == 0 && !shared.is_empty() {
                    let (address, expected) = shared.swap_remove(pick % shared.len());
                    let mut found = vec![0; expected.len()];
                    bounce.unshare(address, &mut found).unwrap();
                    prop_assert_eq!(found, expected);
                }
            }
            for (address, expected) in shared {
                bounce.unshare(address, &mut vec![0; expected.len()]).unwrap();
            }
            prop_assert!(bounce.allocate(4 * PAGE).is_ok());
            prop_assert_eq!(given.0.lock().unwrap().len(), 1);
        }
    }
}
