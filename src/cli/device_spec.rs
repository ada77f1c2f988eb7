//! `KIND[:COUNT][,OPTION=VALUE]...`, as `host --device` takes it.

use std::str::FromStr;

use shmbus::devices::lane::{Carrier, Reading, RingCarrier};
use shmbus::devices::timer::device::MOST_VCPUS;
use shmbus::ring::RingKind;
use shmbus::shm::{RegionKind, RingFormat};
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
    /// What carries their values, if these can be carried over tables or rings.
    pub(crate) carrier: Carrier,
    /// How many virtual CPUs each guest has.
    pub(crate) vcpus: u16,
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
    #[error(
        "expected one of the options over, ring, size, vcpus and lines with a value, found {found:?}"
    )]
    Option { found: String },
    #[error("the option {name} is given twice")]
    Twice { name: String },
    #[error("expected over=table, over=ring-every or over=ring-last, found {found:?}")]
    Over { found: String },
    #[error("a {format} ring cannot have {found:?} entries")]
    Size { format: RingKind, found: String },
    #[error("expected a number of virtual CPUs from 1 to {most}, found {found:?}", most = MOST_VCPUS)]
    Vcpus { found: String },
    #[error("expected lines from 1 to {most}, found {found:?}", most = TableLayout::MAX_SLOTS)]
    Lines { found: String },
    #[error(transparent)]
    Ring(#[from] UnknownFormat),
    #[error("{name} is no option of a {kind} device over tables")]
    OverTables { name: &'static str, kind: DeviceId },
    #[error("{name} is no option of a {kind} device")]
    NoOption { name: &'static str, kind: DeviceId },
    #[error("there is one net device on a bus: its switch has a port for each guest")]
    OneNet,
}

/// How many devices of a kind a bus takes.
const MOST: u16 = 10_000;

/// Entries of a twin's rings, unless it is said.
const SIZE: u16 = 256;

/// Lines of an interrupt controller, for each guest, if nothing is said.
const LINES: u32 = 256;

/// The options, as they are written.
#[derive(Default)]
struct Options<'a> {
    over: Option<&'a str>,
    ring: Option<&'a str>,
    size: Option<&'a str>,
    vcpus: Option<&'a str>,
    lines: Option<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(text: Option<&'a str>) -> Result<Self, DeviceSpecError> {
        let mut options = Self::default();
        for option in text.into_iter().flat_map(|text| text.split(',')) {
            let unknown = || DeviceSpecError::Option {
                found: option.to_owned(),
            };
            let (name, value) = option.split_once('=').ok_or_else(unknown)?;
            let place = match name {
                "over" => &mut options.over,
                "ring" => &mut options.ring,
                "size" => &mut options.size,
                "vcpus" => &mut options.vcpus,
                "lines" => &mut options.lines,
                _ => return Err(unknown()),
            };
            if place.replace(value).is_some() {
                return Err(DeviceSpecError::Twice {
                    name: name.to_owned(),
                });
            }
        }
        Ok(options)
    }

    fn refuse(
        kind: DeviceId,
        options: &[(&'static str, Option<&str>)],
    ) -> Result<(), DeviceSpecError> {
        let given = options.iter().find(|(_, value)| value.is_some());
        match given {
            Some(&(name, _)) => Err(DeviceSpecError::NoOption { name, kind }),
            None => Ok(()),
        }
    }

    fn rings(&self) -> Result<RingKind, DeviceSpecError> {
        match self.ring {
            Some(name) => Ok(ring_kind(name)?),
            None => Ok(RingKind::plain(RingFormat::Split)),
        }
    }

    fn carrier(&self, device: DeviceId) -> Result<Carrier, DeviceSpecError> {
        let reading = match self.over {
            None | Some("table") => {
                for (name, option) in [("ring", self.ring), ("size", self.size)] {
                    if option.is_some() {
                        let kind = device;
                        return Err(DeviceSpecError::OverTables { name, kind });
                    }
                }
                return Ok(Carrier::Table);
            }
            Some("ring-every") => Reading::Every,
            Some("ring-last") => Reading::Last,
            Some(found) => {
                return Err(DeviceSpecError::Over {
                    found: found.to_owned(),
                });
            }
        };
        let kind = self.rings()?;
        let format = kind.format;
        let size = match self.size {
            None => SIZE,
            Some(found) => found
                .parse()
                .ok()
                .filter(|&size| RegionKind::Ring { format, size }.validate(0).is_ok())
                .ok_or_else(|| DeviceSpecError::Size {
                    format: kind,
                    found: found.to_owned(),
                })?,
        };
        Ok(Carrier::Ring(RingCarrier {
            kind,
            size,
            reading,
        }))
    }

    fn lines(&self) -> Result<u32, DeviceSpecError> {
        let Some(found) = self.lines else {
            return Ok(LINES);
        };
        found
            .parse()
            .ok()
            .filter(|lines| (1..=TableLayout::MAX_SLOTS).contains(lines))
            .ok_or_else(|| DeviceSpecError::Lines {
                found: found.to_owned(),
            })
    }

    fn vcpus(&self) -> Result<u16, DeviceSpecError> {
        let Some(found) = self.vcpus else {
            return Ok(1);
        };
        found
            .parse()
            .ok()
            .filter(|vcpus| (1..=MOST_VCPUS).contains(vcpus))
            .ok_or_else(|| DeviceSpecError::Vcpus {
                found: found.to_owned(),
            })
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceSpecError;

    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        let (devices, options) = match text.split_once(',') {
            Some((devices, options)) => (devices, Some(options)),
            None => (text, None),
        };
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
        if kind == DeviceId::NET && count != 1 {
            return Err(DeviceSpecError::OneNet);
        }
        let options = Options::parse(options)?;
        let mut carrier = Carrier::Table;
        if kind == DeviceId::NET {
            let Options { over, size, .. } = options;
            Options::refuse(kind, &[("over", over), ("size", size)])?;
        } else {
            carrier = options.carrier(kind)?;
        }
        if kind != DeviceId::TIMER {
            Options::refuse(kind, &[("vcpus", options.vcpus)])?;
        }
        if kind != DeviceId::INTC {
            Options::refuse(kind, &[("lines", options.lines)])?;
        }
        Ok(Self {
            kind,
            count,
            rings: options.rings()?,
            carrier,
            vcpus: options.vcpus()?,
            lines: options.lines()?,
        })
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
    fn parses_what_carries_a_device_s_values() {
        let carrier = |text: &str| text.parse::<DeviceSpec>().unwrap().carrier;
        assert_eq!(carrier("timer"), Carrier::Table);
        assert_eq!(carrier("timer:7,over=table"), Carrier::Table);
        assert_eq!(
            carrier("clock,over=ring-last"),
            carrier("timer,over=ring-last")
        );
        let twin = |kind, size, reading| {
            Carrier::Ring(RingCarrier {
                kind,
                size,
                reading,
            })
        };
        let split = RingKind::plain(RingFormat::Split);
        assert_eq!(
            carrier("timer,over=ring-every"),
            twin(split, SIZE, Reading::Every)
        );
        let packed = RingKind::in_order(RingFormat::Packed);
        assert_eq!(
            carrier("timer,size=3,over=ring-last,ring=packed-inorder"),
            twin(packed, 3, Reading::Last)
        );
        assert_eq!(
            carrier("intc,lines=9,over=ring-last,ring=packed-inorder,size=3"),
            twin(packed, 3, Reading::Last)
        );
        assert_eq!("timer,vcpus=4".parse::<DeviceSpec>().unwrap().vcpus, 4);
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
            "intc,over=ring-every,size=x",
            "timer,size=16",
            "timer,over=ring",
            "timer,over=ring-last,size=3",
            "timer,over=ring-last,size=0",
            "timer,over=ring-last,over=table",
            "timer,vcpus=0",
            "clock,vcpus=2",
            "net,over=ring-last",
        ] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text}");
        }
    }
}
