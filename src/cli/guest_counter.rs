//! What the command line says of counters and clocks.

use std::str::FromStr;

use shmbus::devices::clock::{ClockKind, CounterDomain, CounterTransform, TransformSource};

/// How the guests' counters relate to the host's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum GuestCounter {
    Same,
    Unknown,
    Supplied { scale: f64, offset: i64 },
}

impl GuestCounter {
    /// What guests are told, of a host that counts with `domain`.
    pub(crate) fn transform(self, domain: CounterDomain) -> CounterTransform {
        let identity = CounterTransform::identity(domain);
        match self {
            Self::Same => identity,
            Self::Unknown => CounterTransform::unknown(domain, domain),
            Self::Supplied { scale, offset } => CounterTransform {
                source: TransformSource::Supplied,
                scale: fixed_point(scale),
                offset: offset as u64,
                ..identity
            },
        }
    }
}

/// A scale with 48 fractional bits.
pub(crate) fn fixed_point(scale: f64) -> u64 {
    (scale * CounterTransform::SCALE_ONE as f64) as u64
}

/// Why a text says nothing of a counter or a clock.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CounterArgError {
    #[error("expected same, unknown or SCALE:OFFSET, found {found:?}")]
    Relation { found: String },
    #[error("expected a scale from 0.001 to 1000, found {found:?}")]
    Scale { found: String },
    #[error("expected an offset of whole ticks, found {found:?}")]
    Offset { found: String },
    #[error("expected utc, tai or monotonic, found {found:?}")]
    Clock { found: String },
}

impl FromStr for GuestCounter {
    type Err = CounterArgError;

    fn from_str(text: &str) -> Result<Self, CounterArgError> {
        match text {
            "same" => Ok(Self::Same),
            "unknown" => Ok(Self::Unknown),
            _ => {
                let found = text.to_owned();
                let (factor, offset) = text
                    .split_once(':')
                    .ok_or(CounterArgError::Relation { found })?;
                let found = offset.to_owned();
                Ok(Self::Supplied {
                    scale: scale(factor)?,
                    offset: offset
                        .parse()
                        .map_err(|_| CounterArgError::Offset { found })?,
                })
            }
        }
    }
}

/// A factor between two counters.
pub(crate) fn scale(text: &str) -> Result<f64, CounterArgError> {
    let found = text.to_owned();
    let factor = text.parse().ok();
    factor
        .filter(|factor| (0.001..=1000.0).contains(factor))
        .ok_or(CounterArgError::Scale { found })
}

pub(crate) fn clock_kind(text: &str) -> Result<ClockKind, CounterArgError> {
    match text {
        "utc" => Ok(ClockKind::Utc),
        "tai" => Ok(ClockKind::Tai),
        "monotonic" => Ok(ClockKind::Monotonic),
        _ => Err(CounterArgError::Clock {
            found: text.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_is_a_transform() {
        let transform = |text: &str| {
            let relation: GuestCounter = text.parse().unwrap();
            relation.transform(CounterDomain::Tsc)
        };
        assert_eq!(
            transform("same"),
            CounterTransform::identity(CounterDomain::Tsc)
        );
        assert_eq!(transform("unknown").source, TransformSource::Invalid);
        assert_eq!(transform("0.5:-7").to_host(100), 43);
        for text in ["", "0.5", "0:1", "1e9:1", "1:x", "known"] {
            assert!(text.parse::<GuestCounter>().is_err(), "{text}");
        }
        assert!(clock_kind("smeared").is_err());
    }
}
