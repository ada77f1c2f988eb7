//! Every foreign implementation in every version that there is, and the table of it in `docs/interop.md`.

mod table;

use std::fs;

use clap::Args;

use super::tests::has_nextest;
use crate::command::Command;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;
use crate::vm;
use table::Row;

const DOCUMENT: &str = "docs/interop.md";

#[derive(Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this, such as `boot` or `virtio_net`; may be given several times. The table is printed,
    /// and docs/interop.md is left as it is
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Print the table, and leave docs/interop.md as it is
    #[arg(long)]
    print: bool,
}

/// All of it, without options: what a step of `cargo xtask` has to be.
pub(super) fn all(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let options = Options {
        only: Vec::new(),
        print: false,
    };
    interop(project, &options, tally)
}

/// Runs the tests in guests with every pair of QEMU and kernel, one after the other, and makes the table of what they report.
pub(crate) fn interop(project: &Project, options: &Options, tally: &mut Tally) -> Result<(), Stop> {
    vm::set_up(project, tally)?;
    vm::build_programs(project, tally)?;
    let mut rows = Vec::new();
    let result = tests(project, options).run_reading(tally, |line| match Row::parse(line) {
        Some(row) => {
            println!("{}", row.line());
            rows.push(row);
            false
        }
        None => true,
    });
    if rows.is_empty() {
        return result.and(Err(Stop::Skipped("no test reported anything".to_owned())));
    }
    rows.sort();
    let table = table::markdown(&rows);
    if options.print || !options.only.is_empty() {
        println!("\n{table}");
    } else {
        let path = project.root.join(DOCUMENT);
        let document = fs::read_to_string(&path)
            .map_err(|error| Stop::Failed(format!("cannot read {DOCUMENT}: {error}")))?;
        let document = table::replace(&document, &table)
            .ok_or_else(|| Stop::Failed(format!("{DOCUMENT} has no place for the table")))?;
        fs::write(&path, document)
            .map_err(|error| Stop::Failed(format!("cannot write {DOCUMENT}: {error}")))?;
        println!("\n{} rows are in {DOCUMENT}", rows.len());
    }
    result
}

fn tests(project: &Project, options: &Options) -> Command {
    let command = vm::with_parts(project, Command::cargo(project)).env("SHMBUS_VM_MATRIX", "all");
    if has_nextest(project) {
        // What a test reports is shown when the test ends, whether it passes or not.
        let output = [
            "--success-output",
            "immediate",
            "--failure-output",
            "immediate",
        ];
        command
            .args(["nextest", "run", "--package", "shmbus-vm"])
            .args(["--cargo-profile", "checked", "--profile", "interop"])
            .args(["--test", "*"])
            .args(output)
            .args(&options.only)
    } else {
        command
            .args(["test", "--package", "shmbus-vm", "--profile", "checked"])
            .args(["--no-fail-fast", "--test", "*", "--"])
            .args(["--nocapture", "--test-threads", "1"])
            .args(&options.only)
    }
}
