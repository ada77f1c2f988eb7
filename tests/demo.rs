//! `shmbus demo`: the main job in one command.

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use support::{Finished, Process, Scratch, contents, program};

/// Every figure that the demo promises.
const FIGURES: [&str; 11] = [
    "bytes",
    "sha256_ok",
    "mib_per_s",
    "frames",
    "signals_sent",
    "signals_suppressed",
    "clock_error_ns",
    "timer_set",
    "timer_superseded",
    "timer_fired",
    "guests",
];

fn demo(arguments: &[&str]) -> Process {
    Process::start(program().arg("demo").args(arguments))
}

/// One JSON object on one line, and nothing but it.
#[track_caller]
fn summary(finished: &Finished) -> Value {
    let text = finished.text();
    assert_eq!(text.trim_end().lines().count(), 1, "{finished}");
    let summary = finished.json();
    for figure in FIGURES {
        assert!(summary.get(figure).is_some(), "no {figure}: {finished}");
    }
    summary
}

/// The figures of a run in which every guest but one fetched a file of this many bytes at least once.
#[track_caller]
fn assert_plausible(summary: &Value, bytes: u64, guests: u64) {
    let number = |name: &str| {
        let value = summary[name].as_u64();
        value.unwrap_or_else(|| panic!("{name} is no number: {summary}"))
    };
    assert_eq!(summary["sha256_ok"], true, "{summary}");
    assert_eq!(number("guests"), guests, "{summary}");
    assert!(number("bytes") >= bytes * (guests - 1), "{summary}");
    assert!(summary["mib_per_s"].as_f64().unwrap() > 0.0, "{summary}");
    // No IP packet is longer, not even one that is cut up later.
    assert!(number("frames") >= number("bytes") / 65_536, "{summary}");
    for name in [
        "signals_sent",
        "signals_suppressed",
        "timer_set",
        "timer_fired",
        "table_reads",
    ] {
        assert!(number(name) > 0, "no {name}: {summary}");
    }
    assert!(
        number("timer_superseded") <= number("timer_set"),
        "{summary}"
    );
    assert!(number("timer_fired") <= number("timer_set"), "{summary}");
    // The clock's error is its own; a guest that was interrupted between two readings cannot tell.
    assert!(number("clock_error_median_ns") < 1_000_000, "{summary}");
}

#[test]
fn transfers_its_own_executable_between_two_guests_and_verifies_it() {
    let own = fs::metadata(env!("CARGO_BIN_EXE_shmbus")).unwrap().len();
    let finished = demo(&["--json", "--seconds", "1"])
        .finish()
        .expect_success();
    assert_plausible(&summary(&finished), own, 2);
    assert_eq!(finished.stderr, "", "nothing to warn of: {finished}");
}

#[test]
fn says_the_same_to_people() {
    let finished = demo(&["--seconds", "0"]).finish().expect_success();
    for word in [
        "file",
        "MiB/s",
        "SHA-256",
        "frames",
        "suppressed",
        "clock",
        "superseded",
        "p99",
    ] {
        assert!(finished.text().contains(word), "no {word}: {finished}");
    }
}

#[test]
fn transfers_a_given_file_to_two_guests_at_once() {
    let scratch = Scratch::new();
    let file = scratch.path("given");
    fs::write(&file, contents(3_000_001)).unwrap();
    let finished = demo(
        &["--json", "--guests", "3", "--seconds", "0", "--file"]
            .iter()
            .copied()
            .chain([file.to_str().unwrap()])
            .collect::<Vec<_>>(),
    )
    .finish()
    .expect_success();
    let summary = summary(&finished);
    assert_plausible(&summary, 3_000_001, 3);
    assert_eq!(summary["bytes"], 2 * 3_000_001, "once each: {summary}");
    assert_eq!(summary["files"], 2);
}

#[test]
fn transfers_through_rings_of_another_format() {
    let finished = demo(&["--json", "--seconds", "0", "--ring", "packed"]);
    let finished = finished.finish().expect_success();
    assert_eq!(summary(&finished)["sha256_ok"], true, "{finished}");
}

#[test]
fn refuses_a_file_that_is_not_there_empty_or_no_file() {
    let scratch = Scratch::new();
    let refuse = |path: &std::path::Path, words: &[&str]| {
        let finished = demo(&["--json", "--file", path.to_str().unwrap()]).finish();
        let finished = finished.expect_error(words);
        assert_eq!(finished.text(), "", "{finished}");
    };
    refuse(&scratch.path("missing"), &["missing", "No such file"]);
    let empty = scratch.path("empty");
    fs::write(&empty, []).unwrap();
    refuse(&empty, &["empty", "--file"]);
    refuse(&scratch.offer("inside", b"x"), &["files", "directory"]);
}

#[test]
fn refuses_arguments_that_make_no_sense() {
    for (arguments, words) in [
        (&["--guests", "1"][..], &["--guests", "2..=32"][..]),
        (&["--seconds", "soon"], &["--seconds"]),
        (&["--ring", "round"], &["--ring", "packed-inorder"]),
        (&["--tap", "no/interface"], &["no/interface", "letters"]),
    ] {
        demo(arguments).finish().expect_error(words);
    }
}

#[test]
fn works_with_standard_input_closed() {
    // `<&-` leaves no descriptor 0 at all, which the next one that is opened becomes.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" <&-", env!("CARGO_BIN_EXE_shmbus")]);
    command
        .args(["demo", "--json", "--seconds", "0"])
        .stdin(Stdio::null());
    let finished = Process::start(&mut command).finish().expect_success();
    assert_eq!(summary(&finished)["sha256_ok"], true, "{finished}");
}

#[test]
fn works_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: the other tests of this file are run by an ordinary user already");
        return;
    }
    const NOBODY: u32 = 65534;
    let scratch = Scratch::new();
    scratch.open_to_all();
    // The build's directory may be closed to others.
    let copy = scratch.path("shmbus");
    fs::copy(env!("CARGO_BIN_EXE_shmbus"), &copy).unwrap();
    let mut command = Command::new(copy);
    command.args(["demo", "--json", "--seconds", "0"]);
    command.env("TMPDIR", scratch.path("")).current_dir("/");
    command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
    let finished = Process::start(&mut command).finish().expect_success();
    assert_eq!(summary(&finished)["sha256_ok"], true, "{finished}");
}
