//! The catalogues speak of tests and code that there are, and `ring/CONFORMANCE.md` speaks of the same tests and mutations
//! as `ring/mutants.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::catalogue::{self, Catalogue, TestName};
use crate::project::Project;
use crate::step::Stop;

/// The crate that has the document, and its name there.
const DIRECTORY: &str = "ring";
const FILE: &str = "CONFORMANCE.md";

/// How many rows there are of each kind, by the letter of their numbers: the MUST statements of virtio 1.4 on split and
/// on packed virtqueues, and the defects of the field notes.
const ROWS: [(char, usize); 3] = [('S', 39), ('P', 22), ('D', 14)];

/// A row of one of the document's tables that have the columns "Test" and "Mutation".
#[derive(Debug, PartialEq, Eq)]
struct Row {
    number: String,
    tests: Vec<TestName>,
    mutants: Vec<String>,
    /// Whether one of the two columns is without any word.
    is_silent: bool,
}

/// Refuses catalogues and a document that disagree with each other or with the code.
pub(super) fn check(project: &Project, catalogues: &[Catalogue]) -> Result<(), Stop> {
    for catalogue in catalogues {
        let directory = project.root.join(catalogue.directory);
        let mut complaints = stale(&directory, catalogue);
        if catalogue.directory == DIRECTORY {
            let text = fs::read_to_string(directory.join(FILE)).map_err(|error| {
                Stop::Failed(format!("cannot read {DIRECTORY}/{FILE}: {error}"))
            })?;
            match rows(&text) {
                Ok(rows) => {
                    complaints.extend(disagreements(&rows, catalogue));
                    let named = rows.iter().flat_map(|row| &row.tests);
                    complaints.extend(missing(&directory, named));
                }
                Err(why) => complaints.push(why),
            }
        }
        if !complaints.is_empty() {
            return Err(Stop::Failed(format!(
                "{}/{}:\n{}",
                catalogue.directory,
                catalogue::FILE,
                complaints.join("\n")
            )));
        }
    }
    Ok(())
}

/// The rows of tables whose first column is a number and whose last two are tests and mutations.
fn rows(text: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut is_table = false;
    for line in text.lines() {
        let Some(cells) = cells(line) else {
            is_table = false;
            continue;
        };
        match cells.as_slice() {
            [.., "Test", "Mutation"] => is_table = true,
            [number, .., tests, mutants] if is_table && !number.starts_with('-') => {
                rows.push(Row {
                    number: (*number).to_owned(),
                    tests: spans(tests)
                        .map(|span| TestName::try_from(span.to_owned()))
                        .collect::<Result<_, _>>()
                        .map_err(|why| format!("{number}: {why}"))?,
                    mutants: spans(mutants).map(str::to_owned).collect(),
                    is_silent: tests.is_empty() || mutants.is_empty(),
                });
            }
            _ => {}
        }
    }
    Ok(rows)
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(line.split('|').map(str::trim).collect())
}

/// What stands between backquotes.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Where the document and its catalogue disagree.
fn disagreements(rows: &[Row], catalogue: &Catalogue) -> Vec<String> {
    let mut complaints = Vec::new();
    for (letter, expected) in ROWS {
        let found = rows.iter().filter(|row| row.number.starts_with(letter));
        let numbers: BTreeSet<_> = found.map(|row| row.number.as_str()).collect();
        let missing = (1..=expected)
            .map(|number| format!("{letter}{number}"))
            .filter(|number| !numbers.contains(number.as_str()));
        complaints.extend(missing.map(|number| format!("row {number} is missing")));
        if numbers.len() > expected {
            complaints.push(format!("there are more than {expected} rows {letter}"));
        }
    }
    for row in rows {
        let number = &row.number;
        if row.is_silent {
            complaints.push(format!("{number} neither has both columns nor says why"));
        }
        let mut noticed = BTreeSet::new();
        for id in &row.mutants {
            let Some(mutant) = catalogue.mutants.iter().find(|mutant| mutant.id == *id) else {
                complaints.push(format!("{number}: there is no mutation {id}"));
                continue;
            };
            let common: Vec<_> = row
                .tests
                .iter()
                .filter(|test| mutant.tests.contains(test))
                .collect();
            if common.is_empty() {
                complaints.push(format!("{number}: {id} is caught by none of its tests"));
            }
            noticed.extend(common);
        }
        for test in &row.tests {
            if !row.mutants.is_empty() && !noticed.contains(test) {
                complaints.push(format!("{number}: {test} catches none of its mutations"));
            }
        }
    }
    let used: BTreeSet<_> = rows.iter().flat_map(|row| &row.mutants).collect();
    for mutant in &catalogue.mutants {
        if !used.contains(&mutant.id) {
            complaints.push(format!("no row has {}", mutant.id));
        }
    }
    complaints
}

/// Where a catalogue disagrees with the code.
fn stale(directory: &Path, catalogue: &Catalogue) -> Vec<String> {
    let mut complaints = Vec::new();
    for mutant in &catalogue.mutants {
        let change = fs::read_to_string(directory.join(&mutant.file))
            .map_err(|error| format!("{}: {}: {error}", mutant.id, mutant.file))
            .and_then(|text| mutant.apply(&text));
        complaints.extend(change.err());
    }
    let failing = catalogue.mutants.iter().flat_map(|mutant| &mutant.tests);
    complaints.extend(missing(directory, failing));
    complaints
}

/// The tests that there are not.
fn missing<'t>(directory: &Path, tests: impl Iterator<Item = &'t TestName>) -> Vec<String> {
    let mut complaints = Vec::new();
    for test in tests.collect::<BTreeSet<_>>() {
        let text = fs::read_to_string(directory.join(test.file())).unwrap_or_default();
        if !has_test(&text, test.function()) {
            complaints.push(format!("there is no test {test}"));
        }
    }
    complaints
}

/// Whether there is a function of this name with the attribute `test`.
fn has_test(text: &str, function: &str) -> bool {
    let start = format!("fn {function}(");
    let mut attributes = Vec::new();
    // Of an attribute of several lines.
    let mut is_inside = false;
    for line in text.lines().map(str::trim) {
        if is_inside {
            is_inside = !line.ends_with(")]");
        } else if line.starts_with("#[") {
            is_inside = !line.contains(']');
            attributes.push(line);
        } else if line.starts_with(&start) {
            return attributes.contains(&"#[test]");
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        toml::from_str(
            r#"
            [[mutant]]
            id = "one"
            file = "src/x.rs"
            find = "a"
            replace = "b"
            tests = ["tests/x.rs::first", "tests/x.rs::second"]
            why = ""
            "#,
        )
        .unwrap()
    }

    fn complaints_of(table: &str) -> Vec<String> {
        let text =
            format!("| No. | Requirement | Test | Mutation |\n| --- | --- | --- | --- |\n{table}");
        let mut complaints = disagreements(&rows(&text).unwrap(), &catalogue());
        complaints.retain(|complaint| !complaint.starts_with("row "));
        complaints
    }

    #[test]
    fn this_projects_documents_agree() {
        let project = Project::find().unwrap();
        let catalogues = Catalogue::read_all(&project).unwrap();
        if let Err(stop) = check(&project, &catalogues) {
            panic!("{stop:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let none: [&str; 0] = [];
        assert_eq!(
            complaints_of("| S1 | - | `tests/x.rs::first`, `tests/x.rs::second` | `one` |\n"),
            none
        );
        assert_eq!(
            complaints_of(
                "| S1 | - | `tests/x.rs::first` | `one` |\n| S2 | - | none | the caller's |\n"
            ),
            none
        );
        for (table, complaint) in [
            (
                "| S1 | - | `tests/x.rs::first` | the caller's |\n",
                "no row has one",
            ),
            (
                "| S1 | - | `tests/x.rs::third` | `one` |\n",
                "S1: one is caught by none of its tests",
            ),
            (
                "| S1 | - | `tests/x.rs::first` | `one`, `two` |\n",
                "S1: there is no mutation two",
            ),
            (
                "| S1 | - | `tests/x.rs::first`, `tests/x.rs::third` | `one` |\n",
                "S1: tests/x.rs::third catches none of its mutations",
            ),
            (
                "| S1 | - | `tests/x.rs::first` | `one` |\n| S2 | - | | |\n",
                "S2 neither has both columns nor says why",
            ),
        ] {
            assert!(
                complaints_of(table).contains(&complaint.to_owned()),
                "{table} {:?}",
                complaints_of(table)
            );
        }
        let all = disagreements(&[], &catalogue());
        for row in ["S1", "S39", "P22", "D14"] {
            assert!(all.contains(&format!("row {row} is missing")));
        }
        assert!(rows("| No. | Test | Mutation |\n| S1 | `tests/x.rs` | `one` |").is_err());
    }

    #[test]
    fn tests_are_told_from_other_functions() {
        let text = "fn helper() {}\n#[test]\n// Why.\n#[cfg(unix)]\nfn works() {}\nproptest! {\n    #[test]\n    fn holds(\n\
            #[test]\n#[cfg_attr(\n    miri,\n    ignore\n)]\nfn waits() {}\n";
        for (function, is_test) in [
            ("helper", false),
            ("works", true),
            ("holds", true),
            ("waits", true),
            ("work", false),
        ] {
            assert_eq!(has_test(text, function), is_test, "{function}");
        }
    }
}
