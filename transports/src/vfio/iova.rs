//! Which I/O virtual addresses are free.

use core::ops::{Range, RangeInclusive};

use range_alloc::RangeAllocator;

/// Addresses from here on are not used: sums of two stay numbers.
const LIMIT: u64 = 1 << 62;

/// What an IOMMU can map by one entry, above a page. Mappings of this size and more start at a multiple of it.
const HUGE: u64 = 2 << 20;

/// The free I/O virtual addresses of a container.
///
/// Low addresses go first, for functions that cannot reach high ones. Address 0 is never given away, which is no address to
/// many functions.
#[derive(Debug)]
pub(super) struct Iovas {
    page: u64,
    spaces: Vec<RangeAllocator<u64>>,
}

impl Iovas {
    /// Allocates from `addresses`, in pages of `page` bytes.
    pub(super) fn new(addresses: &[RangeInclusive<u64>], page: u64) -> Self {
        let mut spaces: Vec<_> = addresses
            .iter()
            .filter_map(|range| whole_pages(range, page))
            .collect();
        spaces.sort_by_key(|space| space.start);
        // What overlaps, which it should not, is given away once.
        let mut from = 0;
        let spaces = spaces
            .into_iter()
            .filter_map(|space| {
                let space = space.start.max(from)..space.end;
                from = from.max(space.end);
                (!space.is_empty()).then(|| RangeAllocator::new(space))
            })
            .collect();
        Self { page, spaces }
    }

    /// Takes addresses for `bytes` bytes, a multiple of the page's size and not zero, and those of one more page, which
    /// are part of what is returned and not to be mapped.
    pub(super) fn take(&mut self, bytes: u64) -> Option<Range<u64>> {
        let len = bytes.checked_add(self.page).filter(|len| *len < LIMIT)?;
        let alignment = if bytes >= HUGE {
            HUGE.max(self.page)
        } else {
            self.page
        };
        self.spaces
            .iter_mut()
            .find_map(|space| space.allocate_range_aligned(len, alignment).ok())
    }

    /// Gives back what [`Iovas::take`] returned.
    pub(super) fn give_back(&mut self, taken: Range<u64>) {
        let space = self.spaces.iter_mut().find(|space| {
            let all = space.initial_range();
            all.start <= taken.start && taken.end <= all.end
        });
        if let Some(space) = space {
            space.free_range(taken);
        }
    }

    /// Whether all of these addresses, free or taken, are among `addresses`.
    pub(super) fn lie_in(&self, addresses: &[RangeInclusive<u64>]) -> bool {
        self.spaces
            .iter()
            .map(RangeAllocator::initial_range)
            .all(|space| {
                addresses
                    .iter()
                    .any(|range| *range.start() <= space.start && space.end - 1 <= *range.end())
            })
    }
}

/// The whole pages in a range, without page 0.
fn whole_pages(range: &RangeInclusive<u64>, page: u64) -> Option<Range<u64>> {
    let first = (*range.start()).max(page).checked_next_multiple_of(page)?;
    let end = (*range.end()).min(LIMIT).checked_add(1)?;
    let end = end - end % page;
    (first < end).then_some(first..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;
    /// With the window of message interrupts cut out.
    const RANGES: [RangeInclusive<u64>; 2] = [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff];

    #[test]
    fn low_addresses_go_first_but_not_the_first_page() {
        let mut iovas = Iovas::new(&RANGES, PAGE);
        assert_eq!(
            iovas.take(PAGE),
            Some(PAGE..3 * PAGE),
            "with a page behind it"
        );
        assert_eq!(
            iovas.take(HUGE),
            Some(HUGE..2 * HUGE + PAGE),
            "aligned to huge pages"
        );
        assert_eq!(
            iovas.take(PAGE),
            Some(3 * PAGE..5 * PAGE),
            "in the gap before"
        );
        let above = iovas.take(0xff00_0000).unwrap();
        assert!(
            above.start >= 0xfef0_0000,
            "never across the interrupts' window"
        );
        assert_eq!(iovas.take(0x80_0000_0000), None);
        assert_eq!(iovas.take(u64::MAX - PAGE + 1), None);
    }

    #[test]
    fn odd_ranges_become_whole_pages_and_the_ends_do_not_overflow() {
        let mut iovas = Iovas::new(&[1..=3 * PAGE, 5 * PAGE..=5 * PAGE], PAGE);
        assert_eq!(iovas.take(PAGE), Some(PAGE..3 * PAGE));
        assert_eq!(iovas.take(PAGE), None);
        let mut iovas = Iovas::new(&[u64::MAX - PAGE + 1..=u64::MAX], PAGE);
        assert_eq!(iovas.take(PAGE), None);
        let mut iovas = Iovas::new(&[0..=u64::MAX], PAGE);
        assert!(iovas.take(1 << 61).is_some());
        let mut iovas = Iovas::new(&[0..=3 * PAGE - 1, PAGE..=3 * PAGE - 1], PAGE);
        assert!(iovas.take(PAGE).is_some());
        assert_eq!(iovas.take(PAGE), None, "what overlaps is given away once");
    }

    #[test]
    fn a_group_that_comes_later_must_have_all_addresses_in_use() {
        let iovas = Iovas::new(&RANGES, PAGE);
        assert!(iovas.lie_in(&RANGES));
        assert!(iovas.lie_in(&[0..=u64::MAX]));
        assert!(!iovas.lie_in(&RANGES[..1]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: if cfg!(miri) { 2 } else { 256 }, ..ProptestConfig::default() })]
        /// Whatever is taken and given back: no two overlap, none lies outside, and in the end all are free.
        #[test]
        fn what_is_taken_is_taken_once(steps in prop::collection::vec((1_u64..2048, any::<usize>()), 1..100)) {
            let mut iovas = Iovas::new(&RANGES, PAGE);
            let mut taken: Vec<Range<u64>> = Vec::new();
            for (pages, pick) in steps {
                if pick % 3 == 0 && !taken.is_empty() {
                    iovas.give_back(taken.swap_remove(pick % taken.len()));
                    continue;
                }
                let new = iovas.take(pages * PAGE).unwrap();
                prop_assert!(new.start >= PAGE && new.start.is_multiple_of(PAGE));
                prop_assert_eq!(new.end - new.start, (pages + 1) * PAGE);
                prop_assert!(RANGES.iter().any(|range| range.contains(&new.start) && range.contains(&(new.end - 1))));
                prop_assert!(taken.iter().all(|old| old.end <= new.start || new.end <= old.start));
                taken.push(new);
            }
            for range in taken {
                iovas.give_back(range);
            }
            prop_assert!(iovas.spaces.iter().all(RangeAllocator::is_empty));
        }
    }
}
