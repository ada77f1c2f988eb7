//! What tests report, as lines of `tests/vm/src/interop.rs`, and the table that it makes.

use std::cmp::Ordering;

use serde::Deserialize;

/// At the start of a line that is a report; test runners indent it.
const MARK: &str = "INTEROP ";

/// Around the table in the document.
const START: &str = "<!-- table: cargo xtask interop -->\n";
const END: &str = "<!-- end of the table -->\n";

/// One report.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Row {
    peer: String,
    versions: String,
    features: Vec<String>,
    result: String,
    figures: Vec<(String, String)>,
}

impl Row {
    pub(super) fn parse(line: &str) -> Option<Self> {
        // A runner may have begun the line.
        let (_, report) = line.split_once(MARK)?;
        serde_json::from_str(report).ok()
    }

    /// For the terminal.
    pub(super) fn line(&self) -> String {
        format!(
            "    {}: {} ({}; {})",
            self.result,
            self.peer,
            self.versions,
            self.features.join(", ")
        )
    }
}

impl Ord for Row {
    /// By peer, then by what was used, then by version: so that the same thing in several versions stands together.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |row: &Self| {
            let versions = numbers(&row.versions);
            (row.peer.clone(), row.features.clone(), versions)
        };
        key(self).cmp(&key(other)).then_with(|| {
            let rest = |row: &Self| {
                (
                    row.versions.clone(),
                    row.result.clone(),
                    row.figures.clone(),
                )
            };
            rest(self).cmp(&rest(other))
        })
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// 7.2 comes before 11.1.
fn numbers(versions: &str) -> Vec<u64> {
    versions
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

pub(super) fn markdown(rows: &[Row]) -> String {
    let mut table = String::from(
        "| peer | versions | features | result | figures |\n| --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let figures: Vec<_> = row
            .figures
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let cells = [
            &row.peer,
            &row.versions,
            &row.features.join(", "),
            &row.result,
            &figures.join("; "),
        ];
        for cell in cells {
            let cell = if cell.is_empty() { "-" } else { cell };
            table.push_str("| ");
            table.push_str(&cell.replace('|', "\\|"));
            table.push(' ');
        }
        table.push_str("|\n");
    }
    table
}

/// The document with this table in place of the one that it has.
pub(super) fn replace(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(START)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{START}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"    INTEROP {"peer":"virtio-net-pci","versions":"QEMU 7.2, Linux 6.1.176","features":["split","MQ"],"result":"passed","figures":[["fetch","12 MB/s"]]}"#;

    #[test]
    fn reports_are_told_from_other_lines() {
        let row = Row::parse(LINE).unwrap();
        assert_eq!(row.features, ["split", "MQ"]);
        assert_eq!(
            markdown(&[row]).lines().nth(2),
            Some(
                "| virtio-net-pci | QEMU 7.2, Linux 6.1.176 | split, MQ | passed | fetch 12 MB/s |"
            )
        );
        assert_eq!(
            Row::parse("        PASS [   9.1s] INTEROP of nothing"),
            None
        );
    }

    #[test]
    fn versions_of_one_thing_stand_together() {
        let row = |peer: &str, versions: &str, feature: &str| Row {
            peer: peer.to_owned(),
            versions: versions.to_owned(),
            features: vec![feature.to_owned()],
            result: "passed".to_owned(),
            figures: Vec::new(),
        };
        let mut rows = [
            row("b", "1", "x"),
            row("a", "11.1", "y"),
            row("a", "7.2", "y"),
            row("a", "2", "x"),
        ];
        rows.sort();
        let order: Vec<_> = rows
            .iter()
            .map(|row| format!("{}{}{}", row.peer, row.features[0], row.versions))
            .collect();
        assert_eq!(order, ["ax2", "ay7.2", "ay11.1", "bx1"]);
    }

    #[test]
    fn a_table_takes_the_place_of_the_last_one() {
        let document = format!("text\n\n{START}\nold\n{END}\nmore\n");
        let once = replace(&document, "new\n").unwrap();
        assert_eq!(once, format!("text\n\n{START}\nnew\n\n{END}\nmore\n"));
        assert_eq!(replace(&once, "new\n").unwrap(), once);
        assert_eq!(replace("text\n", "new\n"), None);
    }
}
