//! Mutations of rings, slots, tables and signals: each changes one thing in the code that a test is there to notice, and
//! is *caught* when the test named with it fails.
//!
//! They are listed in each crate's `mutants.toml`; for the rings, `ring/CONFORMANCE.md` says which requirement stands
//! behind each. They are applied to a copy of the sources, one at a time.

mod agreement;
mod catalogue;
mod tree;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clap::Args;

use self::catalogue::{Catalogue, DIRECTORIES, Mutant, TestName};
use self::tree::Tree;
use self::trial::Verdict;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// How long a test may run; unmutated ones take seconds.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Args)]
pub(crate) struct Options {
    /// Only this mutation, and how the tests fail; may be given several times
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// Only mutations of this crate; may be given several times
    #[arg(long = "crate", value_name = "CRATE", value_parser = DIRECTORIES)]
    of: Vec<String>,
    /// List the mutations, the tests that catch them and why they should, and stop
    #[arg(long)]
    pub(crate) list: bool,
}

pub(super) fn all(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let options = Options {
        only: Vec::new(),
        of: Vec::new(),
        list: false,
    };
    mutants(project, &options, tally)
}

pub(crate) fn list(project: &Project, options: &Options) -> Result<(), Stop> {
    let catalogues = Catalogue::read_all(project)?;
    for (catalogue, chosen) in chosen(&catalogues, options)? {
        for mutant in chosen {
            println!("{}: {}\n    {}", catalogue.directory, mutant.id, mutant.why);
            for test in &mutant.tests {
                println!("    {test}");
            }
        }
    }
    Ok(())
}

pub(crate) fn mutants(project: &Project, options: &Options, tally: &mut Tally) -> Result<(), Stop> {
    let catalogues = Catalogue::read_all(project)?;
    agreement::check(project, &catalogues)?;
    let chosen = chosen(&catalogues, options)?;
    let count: usize = chosen.iter().map(|(_, mutants)| mutants.len()).sum();
    let tree = Tree::copy_of(project)?;

    let mut missed = Vec::new();
    let mut number = 0;
    for (Catalogue { directory, .. }, mutants) in &chosen {
        let usual = run_unmutated(&tree, directory, mutants)?;
        for mutant in mutants {
            let start = Instant::now();
            let result = try_out(&tree, directory, mutant, &usual)?;
            let verdict = if result.is_ok() { "caught" } else { "MISSED" };
            number += 1;
            println!(
                "[{number:3}/{count}] {verdict}  {:5.1} s  {directory}: {}",
                start.elapsed().as_secs_f64(),
                mutant.id
            );
            match result {
                Ok(failures) => {
                    tally.passed += 1;
                    // Whoever asks for one wants to see how it fails.
                    if !options.only.is_empty() {
                        println!("{failures}");
                    }
                }
                Err(why) => {
                    println!("{why}");
                    tally.failed += 1;
                    missed.push(mutant.id.as_str());
                }
            }
        }
    }
    if missed.is_empty() {
        Ok(())
    } else {
        Err(Stop::Failed(format!("missed: {}", missed.join(", "))))
    }
}

/// The catalogues of which something was chosen, with what.
fn chosen<'c>(
    catalogues: &'c [Catalogue],
    options: &Options,
) -> Result<Vec<(&'c Catalogue, Vec<&'c Mutant>)>, Stop> {
    let of_crate = |name: &str| options.of.is_empty() || options.of.iter().any(|of| of == name);
    let catalogues = catalogues
        .iter()
        .filter(|catalogue| of_crate(catalogue.directory));
    let all = || catalogues.clone().flat_map(|catalogue| &catalogue.mutants);
    if let Some(unknown) = options
        .only
        .iter()
        .find(|only| !all().any(|mutant| mutant.id == **only))
    {
        let ids: Vec<_> = all().map(|mutant| mutant.id.as_str()).collect();
        return Err(Stop::Failed(format!(
            "no mutation is called {unknown}; there are: {}",
            ids.join(", ")
        )));
    }
    let is_chosen = |mutant: &&Mutant| options.only.is_empty() || options.only.contains(&mutant.id);
    Ok(catalogues
        .map(|catalogue| {
            (
                catalogue,
                catalogue.mutants.iter().filter(is_chosen).collect(),
            )
        })
        .filter(|(_, mutants): &(_, Vec<_>)| !mutants.is_empty())
        .collect())
}

/// Runs every test of a crate that is named, on the code as it is; returns how long each took.
fn run_unmutated(
    tree: &Tree,
    directory: &str,
    mutants: &[&Mutant],
) -> Result<BTreeMap<TestName, Duration>, Stop> {
    let tests: BTreeSet<_> = mutants.iter().flat_map(|mutant| &mutant.tests).collect();
    println!(
        "{directory}: building {} tests, and running them unmutated",
        tests.len()
    );
    let programs = trial::build(tree, directory, tests.iter().copied())
        .map_err(|why| Stop::Failed(format!("the unmutated tests do not build:\n{why}")))?;
    let mut usual = BTreeMap::new();
    for test in tests {
        let start = Instant::now();
        match programs.run(test, LIMIT) {
            Ok(Verdict::Passed) => usual.insert(test.clone(), start.elapsed()),
            Ok(verdict) => {
                return Err(Stop::Failed(format!("{test}, unmutated: {verdict}")));
            }
            Err(why) => return Err(Stop::Failed(why)),
        };
    }
    Ok(usual)
}

/// Applies a mutation, and takes it back. Its tests must fail, every one; answers how they do, or which does not and why.
fn try_out(
    tree: &Tree,
    directory: &str,
    mutant: &Mutant,
    usual: &BTreeMap<TestName, Duration>,
) -> Result<Result<String, String>, Stop> {
    let _applied = tree.apply(directory, mutant)?;
    let programs = match trial::build(tree, directory, &mutant.tests) {
        Ok(programs) => programs,
        Err(why) => return Ok(Err(format!("it does not build:\n{why}"))),
    };
    let mut failures = String::new();
    for test in &mutant.tests {
        let limit = match usual.get(test) {
            // It is not worth waiting for a hang as long as for a test that may yet end.
            Some(usual) if mutant.hangs => Duration::from_secs(5).max(*usual * 10),
            _ => LIMIT,
        };
        let verdict = programs.run(test, limit).map_err(Stop::Failed)?;
        let is_caught = match verdict {
            Verdict::Passed => false,
            Verdict::Failed(_) => true,
            Verdict::Hung(_) => mutant.hangs,
        };
        let report = format!("{test}: {verdict}\n");
        if !is_caught {
            return Ok(Err(report));
        }
        failures.push_str(&report);
    }
    Ok(Ok(failures))
}
