//! The page of `cargo xtask bench report`: tables beside rings, in plots and figures, from the JSON lines of the
//! benchmarks `tables` and `ages`.

mod ages;
mod page;
mod plot;
mod tables;
#[path = "../../../benches/tables/targets.rs"]
mod targets;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::Parser;
use shmbus_benches::{AgeLine, Line};

#[derive(Parser)]
#[command(about = "A page of plots and figures from the benchmarks' JSON lines")]
struct Arguments {
    /// A file of JSON lines; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    from: Vec<PathBuf>,
    /// Where the page goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (mut tables, mut ages) = (Vec::new(), Vec::new());
    for path in &arguments.from {
        read(path, &mut tables, &mut ages)?;
    }
    if let Some(directory) = arguments.out.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&arguments.out, page::page(&tables, &ages))
        .map_err(|error| io::Error::other(format!("{}: {error}", arguments.out.display())))?;
    eprintln!(
        "{}: {} lines of tables, {} of ages",
        arguments.out.display(),
        tables.len(),
        ages.len()
    );
    Ok(())
}

/// Sorts a file's lines: those of ages have a load.
fn read(
    path: &Path,
    tables: &mut Vec<Line>,
    ages: &mut Vec<AgeLine>,
) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |error| format!("{}, line {number}: {error}", path.display());
        if line.contains("\"load\":") {
            ages.push(serde_json::from_str(line).map_err(wrong)?);
        } else if !line.is_empty() {
            tables.push(serde_json::from_str(line).map_err(wrong)?);
        }
    }
    Ok(())
}
