//! The free space of one memory.

use std::ops::Range;

use range_alloc::RangeAllocator;

use super::BackingError;

/// Pieces start and end on cache lines, so that no two regions share one.
const LINE: u64 = 64;

/// Which bytes of a memory are free.
#[derive(Debug)]
pub(super) struct Space {
    ranges: RangeAllocator<u64>,
    bytes: u64,
    in_use: u64,
    /// Nothing from here on was ever given out.
    untouched: u64,
}

impl Space {
    /// A memory of `bytes` bytes, all free.
    pub(super) fn new(bytes: u64) -> Result<Self, BackingError> {
        if bytes < LINE || isize::try_from(bytes).is_err() {
            return Err(BackingError::Size { bytes });
        }
        Ok(Self {
            // A piece's rounded end must lie inside.
            ranges: RangeAllocator::new(0..bytes / LINE * LINE),
            bytes,
            in_use: 0,
            untouched: 0,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_free(&self) -> bool {
        self.in_use == 0
    }

    /// Takes `bytes` bytes; returns where they start.
    pub(super) fn take(&mut self, bytes: u64, alignment: u64) -> Result<u64, BackingError> {
        let full = BackingError::Full {
            bytes,
            free: self.bytes - self.in_use,
            capacity: self.bytes,
        };
        if bytes == 0 || bytes > self.bytes {
            return Err(full);
        }
        let piece = bytes.next_multiple_of(LINE);
        match self
            .ranges
            .allocate_range_aligned(piece, alignment.max(LINE))
        {
            Ok(range) => {
                self.in_use += piece;
                Ok(range.start)
            }
            Err(_) => Err(full),
        }
    }

    /// Gives back what `take` gave.
    pub(super) fn give_back(&mut self, offset: u64, bytes: u64) {
        let range = piece(offset, bytes);
        self.in_use -= range.end - range.start;
        self.untouched = self.untouched.max(range.end);
        self.ranges.free_range(range);
    }

    /// Whether bytes from `offset` on may have been given back before.
    pub(super) fn is_used(&self, offset: u64) -> bool {
        offset < self.untouched
    }
}

fn piece(offset: u64, bytes: u64) -> Range<u64> {
    offset..offset + bytes.next_multiple_of(LINE)
}
