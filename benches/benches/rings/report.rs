//! What is printed: lines as they come, and at the end how they stand to the targets.

use std::io::{self, Write};

use shmbus_benches::Line;

use crate::targets::{self, Target, Verdict};

/// Lines go to standard output; verdicts too, unless that is for a program to read.
pub(crate) struct Report {
    form: Form,
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

impl Report {
    pub(crate) fn new(json: bool, markdown: bool) -> Self {
        let form = match (json, markdown) {
            (true, _) => Form::Json,
            (_, true) => Form::Markdown,
            _ => Form::Table,
        };
        Self {
            form,
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
            "\n{:24} {:20} {:>7} {:>15}  {:>6} {:10} {:>8} {:10}",
            "bench", "peer", "ratio", "95 %", "target", "", "moonshot", ""
        )?;
        for target in &targets::ALL {
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
            let why = missing.map_or("there is no such ring yet", |(_, why)| why.as_str());
            return format!("{bench:24} {peer:20} not measured: {why}");
        };
        let word = |bound| Verdict::of(line, bound).word();
        format!(
            "{bench:24} {peer:20} {:7.3} {:>15}  {:6.2} {:10} {:8.2} {:10}{}",
            line.ratio,
            interval(line),
            target.target,
            word(target.target),
            target.moonshot,
            word(target.moonshot),
            notifications(line),
        )
    }

    fn markdown(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "| bench | ours, ns | peer | peer, ns | ratio | 95 % | target | moonshot | |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
        for line in &self.lines {
            let (target, moonshot) = match targets::of(line) {
                Some(target) => (cell(line, target.target), cell(line, target.moonshot)),
                None => Default::default(),
            };
            writeln!(
                out,
                "| {} | {:.1} | {} | {:.1} | {:.3} | {} | {target} | {moonshot} |{} |",
                line.bench,
                line.ours_ns,
                line.peer,
                line.peer_ns,
                line.ratio,
                interval(line),
                notifications(line),
            )?;
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
        notifications(line),
    )
}

fn cell(line: &Line, bound: f64) -> String {
    format!("{bound}: {}", Verdict::of(line, bound).word())
}

fn interval(line: &Line) -> String {
    format!("{:.3} - {:.3}", line.low, line.high)
}

fn notifications(line: &Line) -> String {
    match line.notifications {
        Some(rung) => format!(
            " notifications an element: ours {:.4}, peer {:.4}",
            rung.ours_notifications, rung.peer_notifications
        ),
        None => String::new(),
    }
}
