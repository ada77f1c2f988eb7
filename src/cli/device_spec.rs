//! `KIND[:COUNT][,ring=FORMAT][,lines=N]`, as `host --device` takes it.

use std::str::FromStr;

use shmbus::ring::RingKind;
use shmbus::shm::RingFormat;
use shmbus::table::TableLayout;
use shmbus_virtio::DeviceId;

use super::ring_format::{UnknownFormat, ring_kind};

/// Some devices of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceSpec {
    pub(crate) kind: DeviceId,
    pub(crate) count: u16,
    /// What their rings are, if they have rings.
    pub(crate) rings: RingKind,
    /// How many lines each guest has, if they are interrupt controllers.
    pub(crate) lines: u32,
}

/// Why it is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceSpecError {
    #[error("expected net, clock, timer or intc, found {found:?}")]
    Kind { found: String },
    #[error("expected a count from 1 to {MOST}, found {found:?}")]
    Count { found: String },
    #[error("expected ring=FORMAT or lines=N, once, found {found:?}")]
    Option { found: String },
    #[error("expected lines from 1 to {most}, found {found:?}", most = TableLayout::MAX_SLOTS)]
    Lines { found: String },
    #[error("a {kind} device has no lines")]
    NoLines { kind: DeviceId },
    #[error(transparent)]
    Ring(#[from] UnknownFormat),
    #[error("a {kind} device has tables and no rings")]
    NoRings { kind: DeviceId },
    #[error("there is one net device on a bus: its switch has a port for each guest")]
    OneNet,
}

/// How many devices of a kind a bus takes.
const MOST: u16 = 10_000;

/// Lines of an interrupt controller, for each guest, if nothing is said.
const LINES: u32 = 256;

impl FromStr for DeviceSpec {
    type Err = DeviceSpecError;

    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        let mut parts = text.split(',');
        let devices = parts.next().unwrap_or_default();
        let (name, count) = devices.split_once(':').unwrap_or((devices, "1"));
        let kind = [
            DeviceId::NET,
            DeviceId::CLOCK,
            DeviceId::TIMER,
            DeviceId::INTC,
        ]
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
        let (mut rings, mut lines) = (None, None);
        for option in parts {
            match option.split_once('=') {
                Some(("ring", _)) if kind != DeviceId::NET => {
                    return Err(DeviceSpecError::NoRings { kind });
                }
                Some(("ring", format)) if rings.is_none() => rings = Some(ring_kind(format)?),
                Some(("lines", _)) if kind != DeviceId::INTC => {
                    return Err(DeviceSpecError::NoLines { kind });
                }
                Some(("lines", number)) if lines.is_none() => lines = Some(lines_of(number)?),
                _ => {
                    return Err(DeviceSpecError::Option {
                        found: option.to_owned(),
                    });
                }
            }
        }
        if kind == DeviceId::NET && count != 1 {
            return Err(DeviceSpecError::OneNet);
        }
        Ok(Self {
            kind,
            count,
            rings: rings.unwrap_or(RingKind::plain(RingFormat::Split)),
            lines: lines.unwrap_or(LINES),
        })
    }
}

fn lines_of(number: &str) -> Result<u32, DeviceSpecError> {
    let lines = number.parse().ok();
    lines
        .filter(|lines| (1..=TableLayout::MAX_SLOTS).contains(lines))
        .ok_or_else(|| DeviceSpecError::Lines {
            found: number.to_owned(),
        })
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
    fn parses_how_many_lines_there_are() {
        let lines = |text: &str| text.parse::<DeviceSpec>().unwrap().lines;
        assert_eq!((lines("intc"), lines("intc:2,lines=1024")), (256, 1024));
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
            "timer,lines=4",
            "intc,lines=0",
            "intc,lines=65537",
            "intc,lines=4,lines=4",
            "intc,ring=split",
        ] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text}");
        }
    }
}
