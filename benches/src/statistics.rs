//! Medians of ratios, and how far they can be trusted.

/// Nanoseconds per operation of ours and of the peer, measured one right after the other.
pub type Pair = (f64, f64);

/// How ours compares with a peer: below 1 ours takes less time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Median over all repetitions of our time by the peer's.
    pub median: f64,
    /// Lower bound of the median's 95 % confidence interval.
    pub low: f64,
    /// Upper bound of the median's 95 % confidence interval.
    pub high: f64,
    /// How many repetitions there were, over all processes.
    pub repetitions: usize,
}

/// How often the bootstrap draws: enough for two digits of a 95 % bound.
const DRAWS: usize = 2000;

/// The median ratio over the `runs`, a list of repetitions for each process.
///
/// The bounds come from a bootstrap with two stages: processes are drawn first, then repetitions within each, since the
/// repetitions of one process resemble each other (Davison and Hinkley, *Bootstrap Methods and their Application*, 3.8).
/// It draws the same numbers each time. Without repetitions everything is NaN.
pub fn ratio(runs: &[Vec<Pair>]) -> Ratio {
    let ratios: Vec<Vec<f64>> = runs
        .iter()
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().map(|(ours, peer)| ours / peer).collect())
        .collect();
    let mut all: Vec<f64> = ratios.concat();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut medians = Vec::with_capacity(DRAWS);
    let mut drawn = Vec::with_capacity(all.len());
    if !ratios.is_empty() {
        for _ in 0..DRAWS {
            drawn.clear();
            for _ in 0..ratios.len() {
                let run = &ratios[random.below(ratios.len())];
                drawn.extend((0..run.len()).map(|_| run[random.below(run.len())]));
            }
            medians.push(median(&mut drawn));
        }
    }
    medians.sort_by(f64::total_cmp);
    let bound = |share: f64| {
        let index = (share * medians.len() as f64) as usize;
        medians.get(index).copied().unwrap_or(f64::NAN)
    };
    Ratio {
        median: median(&mut all),
        low: bound(0.025),
        high: bound(0.975),
        repetitions: all.len(),
    }
}

/// The median; reorders the values. NaN if there are none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// Marsaglia's xorshift generator with a multiplication: reproducible, and good enough to draw with.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(value) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_nothing_is_no_number() {
        assert!(median(&mut []).is_nan());
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        let none = ratio(&[vec![]]);
        assert!(none.median.is_nan() && none.low.is_nan());
    }

    #[test]
    fn drift_cancels_in_the_ratio() {
        // Both get slower all the time; ours takes 0.8 of the peer's time throughout.
        let run: Vec<Pair> = (1..100)
            .map(|t| (0.8 * f64::from(t), f64::from(t)))
            .collect();
        let ratio = ratio(&[run]);
        assert!((ratio.median - 0.8).abs() < 1e-9);
        assert!((ratio.high - ratio.low).abs() < 1e-9);
    }

    #[test]
    fn processes_that_differ_widen_the_bounds() {
        let calm = vec![vec![(1.0, 1.0); 50]; 6];
        let mut bimodal = calm.clone();
        bimodal[3..].fill(vec![(2.0, 1.0); 50]);
        assert_eq!((ratio(&calm).low, ratio(&calm).high), (1.0, 1.0));
        let wide = ratio(&bimodal);
        assert_eq!((wide.low, wide.high, wide.repetitions), (1.0, 2.0, 300));
    }
}
