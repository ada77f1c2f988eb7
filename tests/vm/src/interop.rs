//! What a test says about a foreign implementation, for the table in `docs/interop.md`.

use std::fmt::Display;

use serde::Serialize;

/// What `cargo xtask interop` looks for at the start of a line.
const MARK: &str = "INTEROP ";

/// A row of the table: printed when it is dropped, as passed only if that was said.
///
/// ```
/// use shmbus_vm::Interop;
///
/// let row = Interop::new("virtio-net-pci", "QEMU 7.2, Linux 6.1.176")
///     .feature("RING_PACKED")
///     .feature("EVENT_IDX");
/// // The test proper comes here.
/// row.figure("fetch", "12 MB/s").passed();
/// ```
#[derive(Debug, Serialize)]
#[must_use = "it is reported as failed when it is dropped"]
pub struct Interop {
    peer: String,
    versions: String,
    features: Vec<String>,
    result: &'static str,
    figures: Vec<(String, String)>,
}

impl Interop {
    /// `peer` is what our code is tried against, `versions` what that is made of ([`Guest::name`](crate::Guest::name)).
    pub fn new(peer: impl Display, versions: impl Display) -> Self {
        Self {
            peer: peer.to_string(),
            versions: versions.to_string(),
            features: Vec::new(),
            result: "failed",
            figures: Vec::new(),
        }
    }

    /// Something that was negotiated or used.
    pub fn feature(mut self, name: impl Display) -> Self {
        self.features.push(name.to_string());
        self
    }

    /// Something measured, with its unit.
    pub fn figure(mut self, name: impl Display, value: impl Display) -> Self {
        self.figures.push((name.to_string(), value.to_string()));
        self
    }

    /// It worked.
    pub fn passed(mut self) {
        self.result = "passed";
    }

    fn line(&self) -> String {
        let row = serde_json::to_string(self).unwrap_or_default();
        format!("{MARK}{row}")
    }
}

impl Drop for Interop {
    fn drop(&mut self) {
        println!("{}", self.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_and_fails_unless_told_otherwise() {
        let mut row = Interop::new("a \"peer\"", "1\n2").feature("F");
        assert_eq!(
            row.line(),
            r#"INTEROP {"peer":"a \"peer\"","versions":"1\n2","features":["F"],"result":"failed","figures":[]}"#
        );
        row = row.figure("round trip", "3 us");
        row.result = "passed";
        let end = r#""result":"passed","figures":[["round trip","3 us"]]}"#;
        assert!(row.line().ends_with(end), "{}", row.line());
    }
}
