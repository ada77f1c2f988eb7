//! `KIND[:COUNT]`, as `host --device` takes it.

use std::str::FromStr;

use shmbus_virtio::DeviceId;

/// Some devices of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceSpec {
    pub(crate) kind: DeviceId,
    pub(crate) count: u16,
}

/// Why it is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceSpecError {
    #[error("expected net, clock or timer, found {found:?}")]
    Kind { found: String },
    #[error("expected a count from 1 to {MOST}, found {found:?}")]
    Count { found: String },
    #[error("there is one net device on a bus: its switch has a port for each guest")]
    OneNet,
}

/// How many devices of a kind a bus takes.
const MOST: u16 = 10_000;

impl FromStr for DeviceSpec {
    type Err = DeviceSpecError;

    fn from_str(text: &str) -> Result<Self, DeviceSpecError> {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
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
        if kind == DeviceId::NET && count != 1 {
            return Err(DeviceSpecError::OneNet);
        }
        Ok(Self { kind, count })
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
    fn says_what_is_wrong() {
        for text in ["disk", "timer:0", "timer:x", "timer:10001", "net:2", ""] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text}");
        }
    }
}
