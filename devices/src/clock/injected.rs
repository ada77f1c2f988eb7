//! A counter that differs from the machine's as a guest's does.

use super::counter::{CounterDomain, Ticks};
use super::transform::{CounterTransform, TransformSource};

/// A counter that runs at another rate and from another start than the one it is made of: what a guest sees whose VMM
/// scales and offsets its counter, for tests and demonstrations on one machine.
///
/// It shows `inner * scale + offset` modulo 2^64, the product cut to an integer.
#[derive(Clone, Copy, Debug)]
pub struct InjectedCounter<C> {
    inner: C,
    scale: u64,
    offset: u64,
}

impl<C: Ticks> InjectedCounter<C> {
    /// How many of the scale's bits are behind the point.
    pub const FRACTION_BITS: u32 = CounterTransform::FRACTION_BITS;

    /// A counter of `scale` ticks, with 48 fractional bits, for each of `inner`'s.
    pub fn new(inner: C, scale: u64, offset: u64) -> Self {
        Self {
            inner,
            scale,
            offset,
        }
    }

    /// What a VMM would supply that programmed this counter: the way back to `inner`'s count, which is off by less than
    /// `error_ns` where the scale has no exact inverse. None for a scale that has none in range.
    pub fn transform(&self, error_ns: u64) -> Option<CounterTransform> {
        let one = u128::from(CounterTransform::SCALE_ONE);
        let scale = u64::try_from((one * one).checked_div(u128::from(self.scale))?).ok()?;
        let domain = self.inner.domain();
        let transform = CounterTransform {
            source: TransformSource::Supplied,
            scale,
            offset: 0,
            error_ns,
            ..CounterTransform::identity(domain)
        };
        // The offset that leads a value of now back; exact for it, and so for all where the scale is.
        let inner = self.inner.now();
        let offset = inner.wrapping_sub(transform.to_host(self.at(inner)));
        Some(CounterTransform {
            offset,
            ..transform
        })
    }

    fn at(&self, inner: u64) -> u64 {
        let scaled = (u128::from(inner) * u128::from(self.scale)) >> Self::FRACTION_BITS;
        (scaled as u64).wrapping_add(self.offset)
    }
}

impl<C: Ticks> Ticks for InjectedCounter<C> {
    #[inline]
    fn domain(&self) -> CounterDomain {
        self.inner.domain()
    }

    #[inline]
    fn now(&self) -> u64 {
        self.at(self.inner.now())
    }
}
