//! The figures with targets.

use std::fmt::Write;

use shmbus_benches::{Line, Target, Verdict};

use super::plot::{duration, plain};
use super::targets;

/// A table of all lines, with how they stand to their targets, and of the targets that nothing was measured for.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut html = String::from(
        "<div class=\"wide\"><table><thead><tr><th>work</th><th class=\"number\">ours</th><th>peer</th>\
         <th class=\"number\">peer</th><th class=\"number\">ratio</th><th class=\"number\">95 %</th>\
         <th class=\"number\">target</th><th></th></tr></thead><tbody>",
    );
    for line in lines {
        let target = Target::of(line, &targets::ALL);
        let (bound, word) = match target {
            Some(target) => (
                plain(target.target),
                Verdict::of(line, target.target).word(),
            ),
            None => (String::new(), ""),
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"number\">{}</td><td>{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{:.2}</td><td class=\"number\">{:.2} to {:.2}</td>\
             <td class=\"number\">{bound}</td><td class=\"{word}\">{word}</td></tr>",
            escaped(&line.bench),
            duration(line.ours_ns),
            escaped(&line.peer),
            duration(line.peer_ns),
            line.ratio,
            line.low,
            line.high,
        );
    }
    let is_missing = |target: &&Target| {
        !lines
            .iter()
            .any(|line| line.bench == target.bench && line.peer == target.peer)
    };
    for target in targets::ALL.iter().filter(is_missing) {
        let _ = write!(
            html,
            "<tr><td>{}</td><td></td><td>{}</td><td></td><td></td><td></td><td class=\"number\">{}</td>\
             <td>not measured</td></tr>",
            target.bench,
            target.peer,
            plain(target.target),
        );
    }
    html + "</tbody></table></div>"
}

/// Text for a page; the lines come from a file.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_told_of_and_text_is_escaped() {
        let line = r#"{"bench":"oneway-64","ours_ns":1.0,"peer":"iceoryx2","peer_ns":2.0,"ratio":0.5,"low":0.4,"high":0.55,"n":9}"#;
        let mut line: Line = serde_json::from_str(line).unwrap();
        let html = table(std::slice::from_ref(&line));
        assert!(html.contains("<td class=\"met\">met</td>"), "{html}");
        assert_eq!(html.matches("not measured").count(), targets::ALL.len() - 1);
        line.peer = "<b>".to_owned();
        assert!(table(&[line]).contains("&lt;b&gt;"));
    }
}
