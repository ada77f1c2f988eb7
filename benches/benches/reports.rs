//! Each contender by itself, under criterion: for following a figure over time. For comparing with a peer, `rings` and
//! `tables`.

#[path = "contenders/positions.rs"]
mod positions;
#[path = "contenders/rings/mod.rs"]
mod rings;
#[path = "contenders/tables/mod.rs"]
mod tables;

use std::process::ExitCode;
use std::time::Duration;

use criterion::{Criterion, criterion_group};
use shmbus_benches::{Comparison, companion_of};

fn comparisons() -> Vec<Comparison> {
    let all = [rings::all(), tables::all(), positions::all()];
    all.into_iter().flatten().collect()
}

fn all(criterion: &mut Criterion) {
    for comparison in comparisons() {
        // A quantile, of many reads, is no sum that criterion could divide.
        if comparison.name.starts_with("p999") {
            continue;
        }
        let contenders = match (comparison.set_up)() {
            Ok(contenders) => contenders,
            Err(error) => {
                eprintln!("SKIPPED: {}: {error}", comparison.name);
                continue;
            }
        };
        let mut group = criterion.benchmark_group(&comparison.name);
        for mut contender in contenders {
            group.bench_function(contender.name, |bencher| {
                bencher.iter_custom(&mut contender.run);
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = reports;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .sample_size(20);
    targets = all
}

fn main() -> ExitCode {
    match companion_of(comparisons) {
        None => {
            reports();
            Criterion::default().configure_from_args().final_summary();
        }
        Some(Ok(())) => {}
        Some(Err(error)) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
