//! The formats of rings, by the names that commands take.

use shmbus::ring::RingKind;

/// There is no such format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a ring format ({}), found {found:?}", names().join(", "))]
pub(crate) struct UnknownFormat {
    found: String,
}

/// The format of a name.
pub(crate) fn ring_kind(name: &str) -> Result<RingKind, UnknownFormat> {
    RingKind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| UnknownFormat {
            found: name.to_owned(),
        })
}

fn names() -> [&'static str; RingKind::ALL.len()] {
    RingKind::ALL.map(RingKind::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_name_and_what_has_none_is_told_them() {
        for kind in RingKind::ALL {
            assert_eq!(ring_kind(kind.name()), Ok(kind));
        }
        let error = ring_kind("round").unwrap_err().to_string();
        assert!(
            error.contains("packed-inorder") && error.contains("round"),
            "{error}"
        );
    }
}
