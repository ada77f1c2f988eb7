//! The page around plots and tables: one file, which loads nothing and runs no script.

use std::fmt::Write;

use shmbus_benches::{AgeLine, Line};

use super::ages::figures;
use super::tables::table;

/// Colours that people with any sight tell apart (after Okabe and Ito), with dashes and marks besides.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #5a5a5a; --paper: #ffffff; --grid: #e4e4e4;
  --table: #0072b2; --last: #b86e00; --every: #9b2d6f; --good: #00694e; --bad: #a33b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --soft: #a8a8a8; --paper: #16181b; --grid: #33363b;
  --table: #56b4e9; --last: #e69f00; --every: #e48fc0; --good: #4cc9a0; --bad: #ff9a5c; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  padding: 2rem 1.25rem 4rem; max-width: 62rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .6rem; }
p { max-width: 46rem; margin: .6rem 0; }
p.note { color: var(--soft); font-size: .92rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg text.tick { fill: var(--soft); font-size: 11px; }
svg text.title { font-weight: 600; }
svg .grid { stroke: var(--grid); fill: none; }
svg .mark { stroke: var(--soft); stroke-dasharray: 2 3; fill: none; }
svg g path { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
svg g.table { stroke: var(--table); fill: var(--table); }
svg g.last { stroke: var(--last); fill: var(--last); }
svg g.last path { stroke-dasharray: 8 4; }
svg g.every { stroke: var(--every); fill: var(--every); }
svg g.every path { stroke-dasharray: 2 4; stroke-linecap: round; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--grid); white-space: nowrap; }
.number { text-align: right; }
td.met { color: var(--good); font-weight: 600; }
td.missed { color: var(--bad); font-weight: 600; }
";

/// The page.
pub(crate) fn page(tables: &[Line], ages: &[AgeLine]) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>shmbus: tables beside rings</title><style>{STYLE}</style></head><body>\n\
         <h1>Tables beside rings</h1>\n\
         <p>\"My deadline is X\", then \"my deadline is Y\": only Y counts. A table carries the latest value and nothing else; \
         a ring carries every value, in order. Here is what that does to a timer of a virtual machine, when its guest sets \
         deadlines faster and faster.</p>\n"
    );
    let figures = figures(ages);
    if figures.is_empty() {
        html.push_str("<p class=\"note\">The ages were not measured.</p>\n");
    } else {
        html.push_str(
            "<p class=\"note\">One device, three carriers: the same schedule, checks and doorbells over a table, over a packed \
             ring of which the host acts on every element, and over one that it drains to act on the last. A guest whose every \
             element counts waits when the ring is full; one of which the last counts keeps the newest deadline to itself until \
             there is room. Guest and host are pinned threads of one process. Load 1 is a deadline in the time in which the host \
             serves one: about 11 us, of which it spins for 10. Each point is the median of some runs, interleaved with the \
             other carriers'.</p>\n",
        );
    }
    for figure in figures {
        let _ = writeln!(
            html,
            "<section><h2>{}</h2>{}<p>{}</p></section>",
            figure.title, figure.svg, figure.words
        );
    }
    html.push_str(
        "<section><h2>Tables and signals beside their peers</h2>\n\
         <p>Times for one operation, and the ratio of ours to the peer's: below 1 ours takes less. A target is met if the whole \
         confidence interval lies below it, and missed if none of it does.</p>\n",
    );
    html.push_str(&table(tables));
    html.push_str("</section>\n</body></html>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stands_alone() {
        let html = page(&[], &[]);
        assert!(html.contains("not measured"));
        for foreign in ["<script", "http", "url(", "@import"] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }
}
