//! nextest's report, which keeps the output of tests that passed: a test that had to be skipped says so there.

use crate::tally::{Tally, skip_reason};

/// Adds what a JUnit report of nextest says.
pub(crate) fn read(report: &str, tally: &mut Tally) {
    let summary = report
        .split_once("<testsuites ")
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or("", |(attributes, _)| attributes);
    let tests = attribute(summary, "tests");
    let failed = attribute(summary, "failures") + attribute(summary, "errors");
    let skipped: Vec<_> = report.lines().filter_map(reason).collect();
    tally.failed += failed;
    tally.passed += tests.saturating_sub(failed + skipped.len());
    for why in skipped {
        tally.skip(&why);
    }
}

fn attribute(attributes: &str, name: &str) -> usize {
    attributes
        .split_ascii_whitespace()
        .find_map(|attribute| {
            attribute
                .strip_prefix(name)?
                .strip_prefix("=\"")?
                .strip_suffix('"')?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// The reason in a line of a test's output, which may share its line with tags.
fn reason(line: &str) -> Option<String> {
    let text = line.strip_suffix("</system-err>").unwrap_or(line);
    let text = text.rsplit_once('>').map_or(text, |(_, text)| text);
    let why = skip_reason(text)?;
    let plain = why
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&");
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_told_from_passed_ones() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" errors="0" time="0.035">
    <testsuite name="shmbus" tests="4" disabled="0" errors="0" failures="1">
        <testcase name="tap" classname="shmbus" time="0.004">
            <system-err>SKIPPED: &quot;ip netns&quot; needs root
</system-err>
        </testcase>
        <testcase name="kvm" classname="shmbus" time="0.004">
            <system-err>looking for /dev/kvm
SKIPPED: no /dev/kvm</system-err>
        </testcase>
    </testsuite>
</testsuites>"#;
        let mut tally = Tally::default();
        read(report, &mut tally);
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert_eq!(tally.skipped, ["\"ip netns\" needs root", "no /dev/kvm"]);
    }
}
