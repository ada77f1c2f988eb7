//! How late timers fire.

/// A histogram of lateness in nanoseconds, in fixed memory: 16 buckets for each power of two, so that a percentile is
/// at most 1/16 too large, over the whole range of 64 bits. One that has counted nothing takes no memory for them: there
/// may be ten thousand timer devices, most of them idle.
#[derive(Clone, Debug, Default)]
pub struct LatenessHistogram {
    /// Empty, or all there are.
    buckets: Box<[u64]>,
    count: u64,
    max_ns: u64,
}

const SUB_BITS: u32 = 4;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Values below 16 have a bucket each; then come 16 for each of the 60 powers of two from 2^4 on.
const BUCKETS: usize = SUB_BUCKETS * (64 - SUB_BITS as usize + 1);

impl LatenessHistogram {
    fn all_buckets(&mut self) -> &mut [u64] {
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS].into();
        }
        &mut self.buckets
    }

    /// Counts one timer that fired `ns` late.
    pub fn record(&mut self, ns: u64) {
        let bucket = &mut self.all_buckets()[bucket_of(ns)];
        *bucket = bucket.saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many timers were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest lateness, exactly; 0 if there was none.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The lateness that `percent` of the timers did not exceed, rounded up to its bucket's end; none if nothing was
    /// counted.
    pub fn percentile_ns(&self, percent: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = (self.count as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64;
        let mut seen = 0u64;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(*bucket);
            if seen >= rank.max(1) {
                return Some(last_of(index).min(self.max_ns));
            }
        }
        Some(self.max_ns)
    }

    /// Adds what another histogram counted.
    pub fn merge(&mut self, other: &LatenessHistogram) {
        if other.count > 0 {
            for (mine, theirs) in self.all_buckets().iter_mut().zip(&other.buckets) {
                *mine = mine.saturating_add(*theirs);
            }
        }
        self.count = self.count.saturating_add(other.count);
        self.max_ns = self.max_ns.max(other.max_ns);
    }
}

fn bucket_of(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    // The leading one is in the power; the four bits behind it choose the bucket.
    SUB_BUCKETS * (shift as usize + 1) + (value >> shift) as usize - SUB_BUCKETS
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    let first = ((bucket % SUB_BUCKETS + SUB_BUCKETS) as u64) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_cover_all_values_without_gaps() {
        let mut next = 0u64;
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(next), bucket);
            let last = last_of(bucket);
            assert_eq!(bucket_of(last), bucket);
            next = last.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends at u64::MAX");
    }

    #[test]
    fn an_empty_histogram_has_no_percentiles() {
        assert_eq!(LatenessHistogram::default().percentile_ns(50.0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_percentile_is_at_most_a_sixteenth_too_large(
            mut values in prop::collection::vec(prop_oneof![0u64..100_000, any::<u64>()], 1..200),
            percent in 0.0f64..=100.0,
        ) {
            let (mut whole, mut other) = (LatenessHistogram::default(), LatenessHistogram::default());
            for (index, value) in values.iter().enumerate() {
                if index % 2 == 0 { whole.record(*value) } else { other.record(*value) }
            }
            whole.merge(&other);
            values.sort_unstable();
            let rank = (values.len() as f64 * percent / 100.0).ceil().max(1.0) as usize;
            let exact = values[rank - 1];
            let shown = whole.percentile_ns(percent).unwrap();
            prop_assert!(shown >= exact && shown - exact <= exact / 16);
            prop_assert_eq!((whole.count(), whole.max_ns()), (values.len() as u64, *values.last().unwrap()));
        }
    }
}
