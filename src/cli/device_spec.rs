//! `KIND[:COUNT][,ring=FORMAT]`, as `host --device` takes it.

use std::str::FromStr;

use shmbus::ring::RingKind;
use shmbus::shm::RingFormat;
use shmbus_virtio::DeviceId;

use super::ring_format::{UnknownFormat, ring_kind};

/// Some devices of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceSpec {
    pub(crate) kind: DeviceId,
    pub(crate) count: u16,
    /// What their rings are, if they have rings.
    pub(crate) rings: RingKind,
}

/// Why it is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceSpecError {
    #[error("expected net, clock or timer, found {found:?}")]
    Kind { found: String },
    #[error("expected a count from 1 to {MOST}, found {found:?}")]
    Count { found: String },
    #[error("expected ring=FORMAT, found {found:?}")]
    Option { found: String },
    #[error(transparent)]
    Ring(#[from] UnknownFormat),
    #[error("a {kind} device has tables and no rings")]
    NoRings { kind: DeviceId },
    #[error("there is one net device on a bus: its switch has a port for each guest")]
    OneNet,
}

/// How many devices of a kind a bus takes.
const MOST: u16 = 10_000;

impl FromStr for DeviceSpec {
    type Err = DeviceSpecError;

    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        let (devices, option) = match text.split_once(',') {
            Some((devices, option)) => (devices, Some(option)),
            None => (text, None),
        };
        let (name, count) = devices.split_once(':').unwrap_or((devices, "1"));
        let kind = [DeviceId::NET, DeviceId::CLOCK, DeviceId::TIMER]
            .into_iter()
            .find(|kind| kind.name() == Some(name))
            .ok_or_else(|| DeviceSpecError::Kind {
                found: name.to_owned(),
            })?;
        let count = count
            .parse()
            .ok()
            .filter(|count| (1..=MOST).contains(count))
            .ok_or_else(|| DeviceSpecError::Count {
                found: count.to_owned(),
            })?;
        let mut rings = RingKind::plain(RingFormat::Split);
        if let Some(option) = option {
            let format = option
                .strip_prefix("ring=")
                .ok_or_else(|| DeviceSpecError::Option {
                    found: option.to_owned(),
                })?;
            if kind != DeviceId::NET {
                return Err(DeviceSpecError::NoRings { kind });
            }
            rings = ring_kind(format)?;
        }
        if kind == DeviceId::NET && count != 1 {
            return Err(DeviceSpecError::OneNet);
        }
        Ok(Self { kind, count, rings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_kind_and_a_count() {
        let spec = "timer:2000".parse::<DeviceSpec>().unwrap();
        assert_eq!((spec.kind, spec.count), (DeviceId::TIMER, 2000));
        assert_eq!("net".parse::<DeviceSpec>().unwrap().count, 1);
    }

    #[test]
    fn parses_what_the_rings_are() {
        let rings = |text: &str| text.parse::<DeviceSpec>().unwrap().rings;
        assert_eq!(rings("net"), RingKind::plain(RingFormat::Split));
        assert_eq!(
            rings("net:1,ring=packed"),
            RingKind::plain(RingFormat::Packed)
        );
        let in_order = RingKind::in_order(RingFormat::Split);
        assert_eq!(rings("net,ring=split-inorder"), in_order);
    }

    #[test]
    fn says_what_is_wrong() {
        for text in [
            "disk",
            "timer:0",
            "timer:x",
            "timer:10001",
            "net:2",
            "",
            "net,",
            "net,ring=",
            "net,ring=round",
            "net,packed",
            "net,ring=packed,ring=split",
            "timer,ring=split",
        ] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text}");
        }
    }
}
