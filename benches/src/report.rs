//! What is printed: lines as they come, and at the end how they stand to the targets.

use std::io::{self, Write};

use crate::{Line, Options, Target, Verdict};

/// Lines go to standard output; verdicts too, unless that is for a program to read.
pub(crate) struct Report<'t> {
    form: Form,
    targets: &'t [Target],
    lines: Vec<Line>,
    /// Benchmarks that have no lines, and why.
    missing: Vec<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
    Markdown,
}

impl<'t> Report<'t> {
    pub(crate) fn new(options: &Options, targets: &'t [Target]) -> Self {
        let form = match (options.json, options.markdown) {
            (true, _) => Form::Json,
            (_, true) => Form::Markdown,
            _ => Form::Table,
        };
        Self {
            form,
            targets,
            lines: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Prints lines and keeps them for the verdicts.
    pub(crate) fn add(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for line in lines {
            match self.form {
                Form::Json => writeln!(out, "{}", serde_json::to_string(&line)?)?,
                Form::Table => {
                    if self.lines.is_empty() {
                        writeln!(
                            out,
                            "{:29} {:>9}  {:20} {:>9} {:>7} {:>15} {:>4}",
                            "bench", "ours ns", "peer", "peer ns", "ratio", "95 %", "n"
                        )?;
                    }
                    writeln!(out, "{}", row(&line))?;
                }
                Form::Markdown => {}
            }
            self.lines.push(line);
        }
        out.flush()
    }

    /// Says once what all that lack the same thing lack.
    pub(crate) fn skip(&mut self, bench: &str, why: &str) {
        if !self.missing.iter().any(|(_, known)| known == why) {
            eprintln!("SKIPPED: {why}");
        }
        self.missing.push((bench.to_owned(), why.to_owned()));
    }

    pub(crate) fn fail(&mut self, bench: &str, why: &str) {
        eprintln!("{bench} failed: {why}");
        self.missing
            .push((bench.to_owned(), "it failed".to_owned()));
    }

    /// Says how each target stands that was asked for.
    pub(crate) fn finish(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        let out: &mut dyn Write = match self.form {
            Form::Json => &mut io::stderr().lock(),
            Form::Table => &mut io::stdout().lock(),
            Form::Markdown => return self.markdown(&mut io::stdout().lock()),
        };
        writeln!(
            out,
            "\n{:24} {:20} {:>7} {:>15}  {:>6} {:10} {:17}",
            "bench",
            "peer",
            "ratio",
            "95 %",
            "target",
            "",
            if self.targets.iter().any(|target| target.moonshot.is_some()) {
                "moonshot"
            } else {
                ""
            }
        )?;
        for target in self.targets {
            if is_wanted(target.bench) {
                writeln!(out, "{}", self.verdict(target))?;
            }
        }
        Ok(())
    }

    fn verdict(&self, target: &Target) -> String {
        let Target { bench, peer, .. } = target;
        let line = self
            .lines
            .iter()
            .find(|line| line.bench == *bench && line.peer == *peer);
        let Some(line) = line else {
            let missing = self.missing.iter().find(|(name, _)| name == bench);
            let why = missing.map_or("there is no such benchmark yet", |(_, why)| why.as_str());
            return format!("{bench:24} {peer:20} not measured: {why}");
        };
        let stands = |bound| format!("{bound:6.2} {:10}", Verdict::of(line, bound).word());
        format!(
            "{bench:24} {peer:20} {:7.3} {:>15}  {} {}{}",
            line.ratio,
            interval(line),
            stands(target.target),
            target.moonshot.map(stands).unwrap_or_default(),
            remarks(line),
        )
    }

    fn markdown(&self, out: &mut impl Write) -> io::Result<()> {
        let has_moonshots = self.targets.iter().any(|target| target.moonshot.is_some());
        let (title, rule) = if has_moonshots {
            (" moonshot |", "---|")
        } else {
            ("", "")
        };
        writeln!(
            out,
            "| bench | ours, ns | peer | peer, ns | ratio | 95 % | target |{title} |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|{rule}---|")?;
        for line in &self.lines {
            let target = Target::of(line, self.targets);
            write!(
                out,
                "| {} | {:.1} | {} | {:.1} | {:.3} | {} | {} |",
                line.bench,
                line.ours_ns,
                line.peer,
                line.peer_ns,
                line.ratio,
                interval(line),
                cell(line, target.map(|target| target.target)),
            )?;
            if has_moonshots {
                let moonshot = target.and_then(|target| target.moonshot);
                write!(out, " {} |", cell(line, moonshot))?;
            }
            writeln!(out, "{} |", remarks(line))?;
        }
        Ok(())
    }
}

fn row(line: &Line) -> String {
    format!(
        "{:29} {:9.2}  {:20} {:9.2} {:7.3} {:>15} {:4}{}",
        line.bench,
        line.ours_ns,
        line.peer,
        line.peer_ns,
        line.ratio,
        interval(line),
        line.n,
        remarks(line),
    )
}

fn cell(line: &Line, bound: Option<f64>) -> String {
    bound.map_or_else(String::new, |bound| {
        format!("{bound}: {}", Verdict::of(line, bound).word())
    })
}

fn interval(line: &Line) -> String {
    format!("{:.3} - {:.3}", line.low, line.high)
}

/// What there is to say beside the times.
fn remarks(line: &Line) -> String {
    let mut remarks = String::new();
    if let Some(rung) = line.notifications {
        remarks += &format!(
            " notifications an element: ours {:.4}, peer {:.4}",
            rung.ours_notifications, rung.peer_notifications
        );
    }
    if let Some(misses) = line.misses {
        remarks += &format!(
            " without a value, for each that had one: ours {:.5}, peer {:.5}",
            misses.ours_misses, misses.peer_misses
        );
    }
    remarks
}
