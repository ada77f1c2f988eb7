//! Fence scopes in aarch64 assembly: a ring in memory that is shared with a device (`VIRTIO_F_ORDER_PLATFORM`) is
//! ordered by outer-shareable barriers alone, and one between processors by what the language gives.

mod assembly;
mod rule;
mod walk;

use std::fs;

use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;
use crate::toolchain::need_target;

use assembly::{Function, Scope};
use rule::Rule;

const TARGET: &str = "aarch64-unknown-none";

/// What the functions are called after: the ring's type, its side, and what it does.
const RINGS: [&str; 5] = [
    "split",
    "split_in_order",
    "packed",
    "packed_in_order",
    "tagged",
];

pub(super) fn check(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    need_target(project, TARGET, tally)?;
    for scope in [Scope::Smp, Scope::Dma] {
        let text = compile(project, scope, tally)?;
        let complaints = complaints(&text, scope);
        if complaints.is_empty() {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            return Err(Stop::Failed(complaints.join("; ")));
        }
    }
    Ok(())
}

fn compile(project: &Project, scope: Scope, tally: &mut Tally) -> Result<String, Stop> {
    let directory = super::bare::directory(project);
    let path = directory.join(format!("barriers-{}.s", scope.name()));
    let features: &[&str] = match scope {
        Scope::Dma => &["--features", "dma"],
        Scope::Smp => &[],
    };
    let emit = format!("asm={}", path.display());
    super::bare::cargo(project, "rustc", "release")
        .args(["--package", "shmbus-bare-barriers", "--target", TARGET])
        .args(features)
        // In one piece, so that nothing that orders memory is somewhere else.
        .args(["--", "-Ccodegen-units=1", "--emit", &emit])
        .run(tally)?;
    fs::read_to_string(&path)
        .map_err(|error| Stop::Failed(format!("cannot read {}: {error}", path.display())))
}

/// What is wrong with the assembly of all operations.
fn complaints(text: &str, scope: Scope) -> Vec<String> {
    let mut complaints = assembly::forbidden(text, scope);
    for ring in RINGS {
        for side in ["driver", "device"] {
            // A device that completes in order sorts its slots before it publishes, which no eye can tell from shared
            // memory in assembly.
            let sorts = ring.ends_with("in_order") && side == "device";
            let mut rules = vec![
                ("publish", Rule::Publish { sorts }),
                ("poll", Rule::Poll),
                ("enable", Rule::Enable),
            ];
            // The split ring's entries are loaded behind the index that `poll` looked at; and in the middle of a batch in
            // order it is a slot that is loaded first.
            if side == "driver" && matches!(ring, "packed" | "tagged") {
                rules.push(("take", Rule::Take));
            }
            for (operation, rule) in rules {
                let name = format!("{ring}_{side}_{operation}");
                let result = Function::find(text, &name)
                    .and_then(|function| walk::check(&function, scope, rule));
                if let Err(complaint) = result {
                    complaints.push(format!("{name}, {}: {complaint}", scope.name()));
                }
            }
        }
    }
    complaints
}
