//! Installs what the other steps use. They check for themselves what they cannot do without.

use std::collections::BTreeSet;

use crate::packages;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;
use crate::toolchain::{BARE_METAL_TARGETS, LINUX_TARGET, need_nightly, need_target};
use crate::vm;

pub(super) fn set_up(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let targets = BARE_METAL_TARGETS.into_iter().chain([LINUX_TARGET]);
    let mut results = vec![
        packages::install_missing(project, tally),
        need_nightly(project, tally),
        vm::set_up(project, tally),
    ];
    results.extend(targets.map(|target| need_target(project, target, tally)));

    let missing: BTreeSet<_> = results
        .into_iter()
        .filter_map(|result| match result {
            Ok(()) => None,
            Err(Stop::Failed(why) | Stop::Skipped(why)) => Some(why),
        })
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        let missing: Vec<_> = missing.into_iter().collect();
        Err(Stop::Skipped(missing.join("; ")))
    }
}
