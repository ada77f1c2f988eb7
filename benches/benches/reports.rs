//! Each contender by itself, under criterion: for following a figure over time. For comparing with a peer, `ratios` and
//! `rings`.

#[path = "contenders/positions.rs"]
mod positions;
#[path = "contenders/rings/mod.rs"]
mod rings;
#[path = "contenders/tables.rs"]
mod tables;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn all(criterion: &mut Criterion) {
    let all = [rings::all(), tables::all(), positions::all()];
    for comparison in all.into_iter().flatten() {
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
criterion_main!(reports);
