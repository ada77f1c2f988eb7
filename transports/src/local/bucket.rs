//! How often something may happen: a burst after some quiet, and a steady rate in the long run.

use std::time::{Duration, Instant};

/// A token bucket: an event costs a token, and tokens come back one each `pause`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    burst: u32,
    pause: Duration,
    tokens: u32,
    /// When the next token comes back, unless all are there.
    next_token: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub(crate) const fn new(burst: u32, pause: Duration) -> Self {
        Self {
            burst,
            pause,
            tokens: burst,
            next_token: None,
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        while self.tokens < self.burst
            && let Some(due) = self.next_token.filter(|due| *due <= now)
        {
            self.tokens += 1;
            self.next_token = (self.tokens < self.burst).then(|| due + self.pause);
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        self.next_token.get_or_insert(now + self.pause);
        true
    }

    /// When the next token comes back, unless all are there.
    pub(crate) fn next_token(&self) -> Option<Instant> {
        self.next_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_comes_back_and_does_not_grow() {
        let (burst, pause) = (8, Duration::from_secs(1));
        let mut bucket = Bucket::new(burst, pause);
        let start = Instant::now();
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, start), burst as usize);
        assert_eq!(bucket.next_token(), Some(start + pause));
        assert_eq!(taken(&mut bucket, start + pause * 3), 3);
        assert_eq!(taken(&mut bucket, start + pause * 1000), burst as usize);
    }
}
