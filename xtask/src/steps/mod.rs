//! The steps of `cargo xtask test`, in their order: what is quick and fails often comes first.

mod bare;
mod barriers;
mod benches;
mod format;
pub(crate) mod fuzz;
pub(crate) mod interop;
mod lint;
mod miri;
pub(crate) mod mutants;
mod setup;
mod targets;
mod tests;
mod thread_sanitizer;
pub(crate) mod torture;

use crate::step::Step;

/// Also `cargo xtask setup`.
pub(crate) const SETUP: Step = Step {
    name: "setup",
    about: "Debian packages, nightly components and targets",
    slow: false,
    run: setup::set_up,
};

/// Also `cargo xtask fuzz`.
pub(crate) const FUZZ: Step = Step {
    name: "fuzz",
    about: "every fuzz target, for a while",
    slow: true,
    run: fuzz::fuzz_for_a_while,
};

/// Also `cargo xtask mutants`.
pub(crate) const MUTANTS: Step = Step {
    name: "mutants",
    about: "each mutation of the code is caught by the test that is there for it",
    slow: true,
    run: mutants::all,
};

/// Also `cargo xtask torture`.
pub(crate) const TORTURE: Step = Step {
    name: "torture",
    about: "tables between processes, of which writers are killed, in both builds of the copies",
    slow: true,
    run: torture::for_a_while,
};

/// `cargo xtask interop`; too long for `cargo xtask test`, which has a part of it among its tests.
pub(crate) const INTEROP: Step = Step {
    name: "interop",
    about: "foreign implementations in all versions, in guests",
    slow: true,
    run: interop::all,
};

/// All of them.
pub(crate) const ALL: [Step; 16] = [
    SETUP,
    Step {
        name: "format",
        about: "rustfmt would change nothing",
        slow: false,
        run: format::check,
    },
    Step {
        name: "lint",
        about: "clippy has nothing to say, with every choice of features",
        slow: false,
        run: lint::clippy,
    },
    Step {
        name: "docs",
        about: "the documentation builds without a warning",
        slow: false,
        run: lint::documentation,
    },
    Step {
        name: "targets",
        about: "aarch64, and bare metal for what is no_std",
        slow: false,
        run: targets::check,
    },
    Step {
        name: "bare",
        about: "a guest without an operating system drives rings",
        slow: false,
        run: bare::drive,
    },
    Step {
        name: "barriers",
        about: "aarch64 assembly of rings shared with processors and with devices",
        slow: false,
        run: barriers::check,
    },
    Step {
        name: "tests",
        about: "unit and integration tests",
        slow: false,
        run: tests::tests,
    },
    Step {
        name: "doctests",
        about: "the examples in the documentation",
        slow: false,
        run: tests::doctests,
    },
    Step {
        name: "loom",
        about: "the lock-free protocols under every interleaving that loom finds",
        slow: false,
        run: tests::loom,
    },
    TORTURE,
    MUTANTS,
    Step {
        name: "miri",
        about: "shm, signal, ring and table under Miri",
        slow: true,
        run: miri::miri,
    },
    Step {
        name: "tsan",
        about: "the two-thread tests under ThreadSanitizer",
        slow: true,
        run: thread_sanitizer::thread_sanitizer,
    },
    FUZZ,
    Step {
        name: "benches",
        about: "every benchmark runs once",
        slow: true,
        run: benches::run_once,
    },
];

/// What `--only` takes.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|step| step.name).collect()
}
