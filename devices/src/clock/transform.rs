//! From the reader's counter to the host's, as the host tells it.

use shmbus_table::{InvalidValue, Value};

use super::counter::CounterDomain;

/// Where a transform comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TransformSource {
    /// There is none: the reader's counter says nothing about the host's.
    Invalid = 0,
    /// The two counters are one and the same.
    Identity = 1,
    /// The VMM knows it: it is what it programmed into the processor.
    Supplied = 2,
    /// It was estimated by timed exchanges.
    Estimated = 3,
}

impl TransformSource {
    fn from_number(number: u8) -> Option<Self> {
        [
            Self::Invalid,
            Self::Identity,
            Self::Supplied,
            Self::Estimated,
        ]
        .get(usize::from(number))
        .copied()
    }
}

/// How a reader's counter relates to the one that clock samples are taken with: `host = reader * scale + offset`,
/// modulo 2^64.
///
/// The scale has 48 fractional bits, and the product is cut to an integer before the offset is added, as processors
/// do it (VMX scales with 48 fractional bits, SVM with 32), so a supplied transform is exact. It belongs to a reader
/// and not to a clock: one table of clocks serves many guests, whose counters differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterTransform {
    /// Where it comes from.
    pub source: TransformSource,
    /// The counter that the reader has.
    pub reader: CounterDomain,
    /// The counter that the samples must have been taken with.
    pub host: CounterDomain,
    /// Ticks of the host's counter per tick of the reader's, with [`CounterTransform::FRACTION_BITS`] fractional bits.
    pub scale: u64,
    /// Ticks to add; wraps.
    pub offset: u64,
    /// How far off the transform may be, in nanoseconds either way.
    pub error_ns: u64,
}

impl CounterTransform {
    /// How many of the scale's bits are behind the point.
    pub const FRACTION_BITS: u32 = 48;
    /// A scale of one.
    pub const SCALE_ONE: u64 = 1 << Self::FRACTION_BITS;

    /// Nothing is known: a guest with such a counter estimates.
    pub fn unknown(reader: CounterDomain, host: CounterDomain) -> Self {
        Self {
            source: TransformSource::Invalid,
            host,
            ..Self::identity(reader)
        }
    }

    /// For a reader on the host's own processors, with the host's own counter.
    pub fn identity(domain: CounterDomain) -> Self {
        Self {
            source: TransformSource::Identity,
            reader: domain,
            host: domain,
            scale: Self::SCALE_ONE,
            offset: 0,
            error_ns: 0,
        }
    }

    /// The host's count at the reader's count `reader`.
    #[inline]
    pub fn to_host(&self, reader: u64) -> u64 {
        let scaled = (u128::from(reader) * u128::from(self.scale)) >> Self::FRACTION_BITS;
        (scaled as u64).wrapping_add(self.offset)
    }
}

/// What the host tells one guest of its counter and its clocks' continuity. A guest's slot is written when something of
/// it changes, and signalled: at most a few times in a life, not with each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterNotice {
    /// From the guest's counter to the host's.
    pub transform: CounterTransform,
    /// Changes when the guest's counter was disrupted: it was restored, or is another host's. Whatever the guest learnt
    /// of its counter is void.
    pub disruption: u64,
    /// How many disruptions the guest was told of, of its counter or of a clock.
    pub disruptions: u64,
}

impl Value for CounterNotice {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"CTRN");
    const WORDS: usize = 6;

    fn encode(&self, words: &mut [u64]) {
        let transform = &self.transform;
        let kinds = u64::from(transform.source as u8)
            | u64::from(transform.reader as u8) << 8
            | u64::from(transform.host as u8) << 16;
        words.copy_from_slice(&[
            kinds,
            transform.scale,
            transform.offset,
            transform.error_ns,
            self.disruption,
            self.disruptions,
        ]);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let invalid = |word: usize, expected| InvalidValue {
            word,
            found: words.get(word).copied().unwrap_or(0),
            expected,
        };
        let &[kinds, scale, offset, error_ns, disruption, disruptions] = words else {
            return Err(invalid(words.len(), "one of six words"));
        };
        let [source, reader, host, ..] = kinds.to_le_bytes();
        if scale == 0 {
            return Err(invalid(1, "a scale that is not zero"));
        }
        Ok(Self {
            transform: CounterTransform {
                source: TransformSource::from_number(source)
                    .ok_or_else(|| invalid(0, "a source of the transform in bits 0 to 7"))?,
                reader: CounterDomain::from_number(reader)
                    .ok_or_else(|| invalid(0, "the reader's counter domain in bits 8 to 15"))?,
                host: CounterDomain::from_number(host)
                    .ok_or_else(|| invalid(0, "the host's counter domain in bits 16 to 23"))?,
                scale,
                offset,
                error_ns,
            },
            disruption,
            disruptions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_and_offset_wrap_as_processors_do() {
        let transform = CounterTransform {
            source: TransformSource::Supplied,
            scale: CounterTransform::SCALE_ONE * 3 / 2,
            offset: 100u64.wrapping_neg(),
            ..CounterTransform::identity(CounterDomain::Tsc)
        };
        assert_eq!(transform.to_host(1_000), 1_400);
        assert_eq!(transform.to_host(0), u64::MAX - 99);
        assert_eq!(
            transform.to_host(u64::MAX),
            (u64::MAX / 2).wrapping_sub(101)
        );
        let hostile = CounterTransform {
            scale: u64::MAX,
            offset: u64::MAX,
            ..transform
        };
        hostile.to_host(u64::MAX);
    }

    #[test]
    fn words_come_back_or_are_refused() {
        let notice = CounterNotice {
            transform: CounterTransform {
                source: TransformSource::Estimated,
                reader: CounterDomain::Cntvct,
                host: CounterDomain::MonotonicRaw,
                scale: 7,
                offset: 8,
                error_ns: 9,
            },
            disruption: 10,
            disruptions: 11,
        };
        let mut words = [0; CounterNotice::WORDS];
        notice.encode(&mut words);
        assert_eq!(CounterNotice::decode(&words), Ok(notice));
        for (word, bits) in [(0, 0xff), (0, 0x3300), (0, 0x33_0000)] {
            let mut bad = words;
            bad[word] |= bits;
            assert_eq!(CounterNotice::decode(&bad).unwrap_err().word, word);
        }
        words[1] = 0;
        assert_eq!(CounterNotice::decode(&words).unwrap_err().word, 1);
    }
}
