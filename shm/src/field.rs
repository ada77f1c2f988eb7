//! Safe views carved out of a window. Carving proves the bounds, once; the accessors then check nothing, or one
//! range per bulk copy.
#![allow(unsafe_code)]

mod pairs;

pub use pairs::Pairs;

use core::marker::PhantomData;
use core::num::NonZeroUsize;
use core::sync::atomic::Ordering;

use crate::window::{FenceScope, Window, WindowError, Word, prove};

/// One word of shared memory, always accessed at its one width.
#[derive(Clone, Debug)]
pub struct Field<T, W> {
    /// Exactly the field's bytes, aligned.
    window: W,
    word: PhantomData<T>,
}

impl<T: Word, W: Window> Field<T, W> {
    /// The word at byte `offset` of `window`.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if it lies outside, or is not aligned to its size.
    pub fn new(window: &W, offset: usize) -> Result<Self, WindowError> {
        prove(window, offset, T::BYTES, T::BYTES)?;
        Ok(Self {
            window: window.narrow(offset, T::BYTES)?,
            word: PhantomData,
        })
    }

    /// Loads the word.
    #[inline(always)]
    pub fn load(&self, order: Ordering) -> T {
        // SAFETY: `new` proved that the window is this aligned word.
        unsafe { self.window.load(0, order) }
    }

    /// Stores the word.
    #[inline(always)]
    pub fn store(&self, value: T, order: Ordering) {
        // SAFETY: `new` proved that the window is this aligned word.
        unsafe { self.window.store(0, value, order) }
    }

    /// Orders this thread's accesses to the memory that the field lies in.
    #[inline(always)]
    pub fn fence(&self, order: Ordering) {
        self.window.fence(order);
    }

    /// Among whom such fences order.
    pub fn fence_scope(&self) -> FenceScope {
        self.window.fence_scope()
    }
}

/// An array of a power of two words whose index wraps, as ring indices do: no index is out of bounds.
#[derive(Clone, Debug)]
pub struct Entries<T, W> {
    /// Exactly the array's bytes, aligned.
    window: W,
    mask: usize,
    word: PhantomData<T>,
}

impl<T: Word, W: Window> Entries<T, W> {
    /// The `count` words from byte `offset` of `window` on.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if `count` is no power of two, or the array lies outside or is not aligned to its word's size.
    pub fn new(window: &W, offset: usize, count: usize) -> Result<Self, WindowError> {
        if !count.is_power_of_two() {
            return Err(WindowError::NotPowerOfTwo { count });
        }
        let bytes = count.saturating_mul(T::BYTES);
        prove(window, offset, bytes, T::BYTES)?;
        Ok(Self {
            window: window.narrow(offset, bytes)?,
            mask: count - 1,
            word: PhantomData,
        })
    }

    /// How many words the array has.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.mask + 1
    }

    /// Loads entry `index` modulo [`Entries::count`].
    #[inline(always)]
    pub fn load(&self, index: usize, order: Ordering) -> T {
        // SAFETY: `new` proved `count` aligned words; the mask keeps the index below that.
        unsafe { self.window.load((index & self.mask) * T::BYTES, order) }
    }

    /// Loads the `N` entries of row `row`, modulo as many rows as there are: each by a load of its own, unordered. `N` is a
    /// power of two. An array of fewer entries repeats itself.
    #[inline(always)]
    pub fn load_row<const N: usize>(&self, row: usize) -> [T; N] {
        const { assert!(N.is_power_of_two()) };
        if N > self.count() {
            return core::array::from_fn(|index| self.load(index, Ordering::Relaxed));
        }
        let first = (row * N) & self.mask;
        // SAFETY: `new` proved `count` aligned words, a multiple of `N`, as `first` is, which is below it.
        core::array::from_fn(|index| unsafe {
            self.window
                .load((first + index) * T::BYTES, Ordering::Relaxed)
        })
    }

    /// Stores entry `index` modulo [`Entries::count`].
    #[inline(always)]
    pub fn store(&self, index: usize, value: T, order: Ordering) {
        // SAFETY: `new` proved `count` aligned words; the mask keeps the index below that.
        unsafe {
            self.window
                .store((index & self.mask) * T::BYTES, value, order)
        }
    }

    /// Orders this thread's accesses to the memory that the array lies in.
    #[inline(always)]
    pub fn fence(&self, order: Ordering) {
        self.window.fence(order);
    }

    /// Among whom such fences order.
    pub fn fence_scope(&self) -> FenceScope {
        self.window.fence_scope()
    }
}

/// An array of any number of words, for rings whose size need not be a power of two. Their positions are kept below
/// the count by whoever advances them; an index behind the end means the last word. So no index is out of bounds, and
/// none panics: the check is a comparison and a conditional move.
#[derive(Clone, Debug)]
pub struct Array<T, W> {
    /// Exactly the array's bytes, aligned.
    window: W,
    last: usize,
    word: PhantomData<T>,
}

impl<T: Word, W: Window> Array<T, W> {
    /// The `count` words from byte `offset` of `window` on.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if the array lies outside or is not aligned to its word's size.
    pub fn new(window: &W, offset: usize, count: NonZeroUsize) -> Result<Self, WindowError> {
        let bytes = count.get().saturating_mul(T::BYTES);
        prove(window, offset, bytes, T::BYTES)?;
        Ok(Self {
            window: window.narrow(offset, bytes)?,
            last: count.get() - 1,
            word: PhantomData,
        })
    }

    /// How many words the array has.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.last + 1
    }

    /// Loads word `index`, or the last one.
    #[inline(always)]
    pub fn load(&self, index: usize, order: Ordering) -> T {
        // SAFETY: `new` proved `last + 1` aligned words, and the index is at most `last`.
        unsafe { self.window.load(index.min(self.last) * T::BYTES, order) }
    }

    /// Stores word `index`, or the last one.
    #[inline(always)]
    pub fn store(&self, index: usize, value: T, order: Ordering) {
        // SAFETY: `new` proved `last + 1` aligned words, and the index is at most `last`.
        unsafe {
            self.window
                .store(index.min(self.last) * T::BYTES, value, order)
        }
    }

    /// Orders this thread's accesses to the memory that the array lies in.
    #[inline(always)]
    pub fn fence(&self, order: Ordering) {
        self.window.fence(order);
    }

    /// Among whom such fences order.
    pub fn fence_scope(&self) -> FenceScope {
        self.window.fence_scope()
    }
}

/// An array of any number of rows of `N` words, as [`Array`] is one of words. A row's words are found together: one check
/// serves accesses to all of them.
#[derive(Clone, Debug)]
pub struct Rows<T, W, const N: usize> {
    /// Exactly the rows' bytes, aligned.
    window: W,
    last: usize,
    word: PhantomData<T>,
}

impl<T: Word, W: Window, const N: usize> Rows<T, W, N> {
    /// The `count` rows from byte `offset` of `window` on.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if the rows lie outside or are not aligned to their words' size.
    pub fn new(window: &W, offset: usize, count: NonZeroUsize) -> Result<Self, WindowError> {
        const { assert!(N > 0, "rows have words") };
        let bytes = count.get().saturating_mul(N * T::BYTES);
        prove(window, offset, bytes, T::BYTES)?;
        Ok(Self {
            window: window.narrow(offset, bytes)?,
            last: count.get() - 1,
            word: PhantomData,
        })
    }

    /// How many rows there are.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.last + 1
    }

    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> usize {
        (row.min(self.last) * N + column.min(N - 1)) * T::BYTES
    }

    /// Loads the word at `column` of row `row`; behind the end of either means its last one.
    #[inline(always)]
    pub fn load(&self, row: usize, column: usize, order: Ordering) -> T {
        // SAFETY: `new` proved `last + 1` rows of `N` aligned words; the row is at most `last`, the column below `N`.
        unsafe { self.window.load(self.at(row, column), order) }
    }

    /// Stores the word at `column` of row `row`; behind the end of either means its last one.
    #[inline(always)]
    pub fn store(&self, row: usize, column: usize, value: T, order: Ordering) {
        // SAFETY: as in `load`.
        unsafe { self.window.store(self.at(row, column), value, order) }
    }

    /// Orders this thread's accesses to the memory that the rows lie in.
    #[inline(always)]
    pub fn fence(&self, order: Ordering) {
        self.window.fence(order);
    }

    /// Among whom such fences order.
    pub fn fence_scope(&self) -> FenceScope {
        self.window.fence_scope()
    }
}

/// A power of two of equally long records: a `u64` header word, then payload words. The record's index wraps.
///
/// A slot's copies are such records. The view borrows its window, so that carving it for one operation costs the
/// bounds proof and nothing else.
#[derive(Debug)]
pub struct Records<'w, W> {
    window: &'w W,
    offset: usize,
    mask: usize,
    stride: usize,
    payload_words: usize,
}

impl<W> Clone for Records<'_, W> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

// A view, whether or not its window can be copied.
impl<W> Copy for Records<'_, W> {}

impl<'w, W: Window> Records<'w, W> {
    /// The `count` records of `payload_words` words behind a header each, `stride` bytes apart, from byte `offset` of
    /// `window` on.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if `count` is no power of two, the stride is too short for a record or no multiple of 8, or
    /// the records lie outside or are not aligned to 8 bytes.
    pub fn new(
        window: &'w W,
        offset: usize,
        count: usize,
        stride: usize,
        payload_words: usize,
    ) -> Result<Self, WindowError> {
        if !count.is_power_of_two() {
            return Err(WindowError::NotPowerOfTwo { count });
        }
        let record = payload_words.saturating_add(1).saturating_mul(8);
        if record > stride {
            return Err(WindowError::OutOfBounds {
                offset,
                bytes: record,
                len: stride,
            });
        }
        if !stride.is_multiple_of(8) {
            return Err(WindowError::Misaligned {
                offset: stride,
                alignment: 8,
            });
        }
        prove(window, offset, count.saturating_mul(stride), 8)?;
        Ok(Self {
            window,
            offset,
            mask: count - 1,
            stride,
            payload_words,
        })
    }

    #[inline(always)]
    fn header_at(&self, index: u64) -> usize {
        self.offset + (index as usize & self.mask) * self.stride
    }

    /// How many records there are.
    #[inline(always)]
    pub fn count(&self) -> u64 {
        self.mask as u64 + 1
    }

    /// How many payload words a record has.
    #[inline(always)]
    pub fn payload_words(&self) -> usize {
        self.payload_words
    }

    /// The same records without their headers: the first word of the payload is the header then. A payload without words
    /// has none, and stays what it is.
    #[inline(always)]
    pub fn payloads(&self) -> Self {
        // A record ends where it ended before, so it lies inside its stride, and that inside the window.
        match self.payload_words.checked_sub(1) {
            Some(payload_words) => Self {
                offset: self.offset + 8,
                payload_words,
                ..*self
            },
            None => *self,
        }
    }

    /// Loads the header of record `index` modulo the count.
    #[inline(always)]
    pub fn load_header(&self, index: u64, order: Ordering) -> u64 {
        // SAFETY: `new` proved `count` strides of aligned words; the mask keeps the record's index below `count`.
        unsafe { self.window.load(self.header_at(index), order) }
    }

    /// Stores the header of record `index` modulo the count.
    #[inline(always)]
    pub fn store_header(&self, index: u64, value: u64, order: Ordering) {
        // SAFETY: as in `load_header`.
        unsafe { self.window.store(self.header_at(index), value, order) }
    }

    /// Loads the payload's first words, unordered: as many as `to` and the payload both have.
    #[inline(always)]
    pub fn load_payload(&self, index: u64, to: &mut [u64]) {
        let words = to.len().min(self.payload_words);
        // SAFETY: as in `load_header`; a stride holds the header and `payload_words` words.
        unsafe {
            self.window
                .load_words(self.header_at(index) + 8, &mut to[..words])
        }
    }

    /// Loads the payload's words from `first` on, unordered: as many as `to` and the rest of the payload both have. Returns
    /// how many.
    #[inline(always)]
    pub fn load_payload_from(&self, index: u64, first: usize, to: &mut [u64]) -> usize {
        let first = first.min(self.payload_words);
        let words = to.len().min(self.payload_words - first);
        // SAFETY: as in `load_header`; a stride holds the header and `payload_words` words, of which these are some.
        unsafe {
            self.window
                .load_words(self.header_at(index) + 8 + 8 * first, &mut to[..words])
        };
        words
    }

    /// Stores the payload's first words, unordered: as many as `from` and the payload both have.
    #[inline(always)]
    pub fn store_payload(&self, index: u64, from: &[u64]) {
        let words = from.len().min(self.payload_words);
        // SAFETY: as in `load_payload`.
        unsafe {
            self.window
                .store_words(self.header_at(index) + 8, &from[..words])
        }
    }

    /// Orders this thread's accesses to the memory that the records lie in.
    #[inline(always)]
    pub fn fence(&self, order: Ordering) {
        self.window.fence(order);
    }
}

/// Groups of equally shaped [`Records`], one group after the other: the copies of a table's slots.
///
/// Carving proves the bounds of all of them, so that taking one group costs a comparison.
#[derive(Clone, Debug)]
pub struct RecordGroups<W> {
    /// Exactly the groups' bytes, aligned.
    window: W,
    groups: usize,
    group_bytes: usize,
    mask: usize,
    stride: usize,
    payload_words: usize,
}

impl<W: Window> RecordGroups<W> {
    /// The `groups` groups, each as in [`Records::new`], from byte `offset` of `window` on.
    ///
    /// # Errors
    ///
    /// [`WindowError`] as for [`Records::new`].
    pub fn new(
        window: &W,
        offset: usize,
        groups: usize,
        count: usize,
        stride: usize,
        payload_words: usize,
    ) -> Result<Self, WindowError> {
        let group_bytes = count.saturating_mul(stride);
        let bytes = groups.saturating_mul(group_bytes);
        prove(window, offset, bytes, 8)?;
        if groups > 0 {
            Records::new(window, offset, count, stride, payload_words)?;
        }
        Ok(Self {
            window: window.narrow(offset, bytes)?,
            groups,
            group_bytes,
            mask: count.wrapping_sub(1),
            stride,
            payload_words,
        })
    }

    /// How many groups there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.groups
    }

    /// Whether there are no groups.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.groups == 0
    }

    /// Group `index`, if there is one.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<Records<'_, W>> {
        (index < self.groups).then(|| Records {
            window: &self.window,
            offset: index * self.group_bytes,
            mask: self.mask,
            stride: self.stride,
            payload_words: self.payload_words,
        })
    }
}

/// A stretch of shared bytes, such as a packet buffer. It is never turned into a `&[u8]`: the peer may change it at
/// any moment, so its bytes are copied out once and looked at then.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'w, W> {
    window: &'w W,
    offset: usize,
    len: usize,
}

impl<'w, W: Window> Bytes<'w, W> {
    /// The `len` bytes from `offset` of `window` on.
    ///
    /// # Errors
    ///
    /// [`WindowError::OutOfBounds`].
    pub fn new(window: &'w W, offset: usize, len: usize) -> Result<Self, WindowError> {
        prove(window, offset, len, 1)?;
        Ok(Self {
            window,
            offset,
            len,
        })
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes from `skip` on into `to`; returns how many: what both have.
    pub fn copy_to(&self, skip: usize, to: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(skip).min(to.len());
        if count > 0 {
            // SAFETY: `new` proved `len` bytes, and `skip + count <= len`.
            unsafe { self.window.load_bytes(self.offset + skip, &mut to[..count]) };
        }
        count
    }

    /// Copies `from` into the bytes from `skip` on; returns how many: what both have.
    pub fn copy_from(&self, skip: usize, from: &[u8]) -> usize {
        let count = self.len.saturating_sub(skip).min(from.len());
        if count > 0 {
            // SAFETY: `new` proved `len` bytes, and `skip + count <= len`.
            unsafe { self.window.store_bytes(self.offset + skip, &from[..count]) };
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap;

    #[test]
    fn carving_refuses_what_is_outside_or_misaligned() {
        let window = heap(64);
        assert!(Field::<u64, _>::new(&window, 56).is_ok());
        assert_eq!(
            Field::<u64, _>::new(&window, 60).unwrap_err(),
            WindowError::OutOfBounds {
                offset: 60,
                bytes: 8,
                len: 64
            }
        );
        assert_eq!(
            Field::<u32, _>::new(&window, 2).unwrap_err(),
            WindowError::Misaligned {
                offset: 2,
                alignment: 4
            }
        );
        assert!(Field::<u16, _>::new(&window, usize::MAX).is_err());
        assert!(Entries::<u16, _>::new(&window, 0, 32).is_ok());
        assert!(Entries::<u16, _>::new(&window, 2, 32).is_err());
        assert_eq!(
            Entries::<u16, _>::new(&window, 0, 3).unwrap_err(),
            WindowError::NotPowerOfTwo { count: 3 }
        );
        assert!(Entries::<u64, _>::new(&window, 0, 1 << 62).is_err());
        let count = |count| NonZeroUsize::new(count).unwrap();
        assert!(Array::<u64, _>::new(&window, 16, count(6)).is_ok());
        assert!(Array::<u64, _>::new(&window, 16, count(7)).is_err());
        assert!(Array::<u32, _>::new(&window, 2, count(1)).is_err());
        assert!(Array::<u64, _>::new(&window, 0, NonZeroUsize::MAX).is_err());
        assert!(Records::new(&window, 0, 4, 16, 1).is_ok());
        assert!(Records::new(&window, 0, 4, 16, 2).is_err());
        assert!(Records::new(&window, 8, 4, 16, 1).is_err());
        assert!(Records::new(&window, 0, 4, 12, 0).is_err());
        assert!(Records::new(&window, 0, 1 << 60, 1 << 10, usize::MAX).is_err());
        assert!(RecordGroups::new(&window, 0, 2, 2, 16, 1).is_ok());
        assert!(RecordGroups::new(&window, 8, 2, 2, 16, 1).is_err());
        assert!(RecordGroups::new(&window, 0, 2, 2, 16, 2).is_err());
        assert!(RecordGroups::new(&window, 0, 1, 3, 16, 1).is_err());
        assert!(RecordGroups::new(&window, 0, 1 << 60, 1 << 10, 16, 1).is_err());
        assert!(Bytes::new(&window, 1, 63).is_ok());
        assert!(Bytes::new(&window, 1, 64).is_err());
    }

    #[test]
    fn views_reach_their_own_bytes() {
        let window = heap(64);
        let inner = window.narrow(16, 48).unwrap();
        Field::<u32, _>::new(&inner, 4)
            .unwrap()
            .store(0x1122_3344, Ordering::Relaxed);
        let words = Entries::<u64, _>::new(&window, 0, 8).unwrap();
        assert_eq!(words.load(8 + 2, Ordering::Relaxed), 0x1122_3344 << 32);

        assert_eq!(words.load_row::<4>(0)[2], 0x1122_3344 << 32);
        assert_eq!(words.load_row::<4>(3), words.load_row(1));
        let few = Entries::<u64, _>::new(&window, 16, 2).unwrap();
        let word = few.load(0, Ordering::Relaxed);
        assert_eq!(few.load_row::<4>(1), [word, 0, word, 0]);

        let records = Records::new(&window, 0, 2, 32, 3).unwrap();
        records.store_payload(3, &[7, 8, 9, 10]);
        let mut payload = [0; 2];
        records.load_payload(1, &mut payload);
        assert_eq!(payload, [7, 8]);
        for (first, words) in [(1, 2), (2, 1), (3, 0), (usize::MAX, 0)] {
            let mut rest = [0; 2];
            assert_eq!(records.load_payload_from(1, first, &mut rest), words);
            assert_eq!(rest[..words], [8, 9][2 - words..]);
        }

        let groups = RecordGroups::new(&inner, 0, 3, 1, 16, 1).unwrap();
        groups.get(2).unwrap().store_payload(0, &[9]);
        assert_eq!(words.load(2 + 2 * 2 + 1, Ordering::Relaxed), 9);
        assert!(groups.get(3).is_none());
    }

    #[test]
    fn an_index_behind_an_arrays_end_means_its_last_word() {
        let window = heap(64);
        let array = Array::<u32, _>::new(&window, 8, NonZeroUsize::new(3).unwrap()).unwrap();
        assert_eq!(array.count(), 3);
        for index in 0..3 {
            array.store(index, 10 + index as u32, Ordering::Relaxed);
        }
        for index in [3, 4, 1 << 40, usize::MAX] {
            assert_eq!(array.load(index, Ordering::Relaxed), 12);
            array.store(index, 12, Ordering::Relaxed);
        }
        let words = Entries::<u32, _>::new(&window, 0, 16).unwrap();
        let found: Vec<u32> = (0..16)
            .map(|at| words.load(at, Ordering::Relaxed))
            .collect();
        assert_eq!(found[..6], [0, 0, 10, 11, 12, 0]);
        assert!(found[6..].iter().all(|word| *word == 0));
    }

    #[test]
    fn bytes_copy_what_both_have() {
        let window = heap(32);
        let bytes = Bytes::new(&window, 3, 10).unwrap();
        assert_eq!(bytes.copy_from(4, b"abcdefgh"), 6);
        assert_eq!(bytes.copy_from(11, b"x"), 0);
        let mut out = [0; 20];
        assert_eq!(bytes.copy_to(3, &mut out), 7);
        assert_eq!(&out[..8], b"\0abcdef\0");
    }
}
