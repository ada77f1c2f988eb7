//! The demo's figures, put together and printed.

use std::io::{self, Write};

use crate::cli::report::{GuestReport, Summary};
use shmbus::inspect::BusCounters;

/// Puts the guests' own reports and the host's published counters together.
pub(super) fn summarize(reports: &[GuestReport], host: &BusCounters, replaced: u16) -> Summary {
    let sum = |of: fn(&GuestReport) -> u64| reports.iter().map(of).sum::<u64>();
    let fetchers = || reports.iter().filter(|report| report.files > 0);
    let bytes = sum(|report| report.bytes);
    let seconds = fetchers().map(|report| report.seconds).fold(0.0, f64::max);
    let mut medians: Vec<u64> = reports
        .iter()
        .map(|report| report.clock_error_median_ns)
        .collect();
    medians.sort_unstable();
    Summary {
        bytes,
        files: sum(|report| report.files),
        sha256_ok: fetchers().count() > 0 && fetchers().all(|report| report.sha256_ok),
        mib_per_s: if seconds > 0.0 {
            bytes as f64 / f64::from(1 << 20) / seconds
        } else {
            0.0
        },
        frames: host.frames,
        frames_dropped: host.frames_dropped,
        signals_sent: host.signals_sent + sum(|report| report.signals_sent),
        signals_suppressed: host.signals_suppressed + sum(|report| report.signals_suppressed),
        clock_error_ns: reports
            .iter()
            .map(|report| report.clock_error_max_ns)
            .max()
            .unwrap_or(0),
        clock_error_median_ns: medians.get(medians.len() / 2).copied().unwrap_or(0),
        clock_bound_ns: reports
            .iter()
            .map(|report| report.clock_bound_ns)
            .max()
            .unwrap_or(0),
        timer_set: host.timer_set,
        timer_superseded: host.timer_superseded,
        timer_fired: host.timer_fired,
        timer_late_ns: host.timer_late_ns,
        table_reads: sum(|report| report.table_reads),
        guests: reports.len() as u16,
        guests_replaced: replaced,
    }
}

/// The summary for people.
pub(super) fn print(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let verdict = if summary.sha256_ok {
        "SHA-256 as the original"
    } else {
        "SHA-256 DIFFERS FROM THE ORIGINAL"
    };
    let micros = |ns: u64| ns as f64 / 1000.0;
    let [median, p99, most] = summary.timer_late_ns;
    writeln!(
        out,
        "file    {} bytes in {} file(s) at {:.1} MiB/s; {verdict}",
        summary.bytes, summary.files, summary.mib_per_s
    )?;
    writeln!(
        out,
        "net     {} frames through the switch, {} dropped (receiver full; TCP sends again)",
        summary.frames, summary.frames_dropped
    )?;
    writeln!(
        out,
        "signals {} sent, {} suppressed (nobody was waiting for them)",
        summary.signals_sent, summary.signals_suppressed
    )?;
    writeln!(
        out,
        "clock   off by {} ns (median), {} ns (most) from the host's; it claimed {} ns at most",
        summary.clock_error_median_ns, summary.clock_error_ns, summary.clock_bound_ns
    )?;
    writeln!(
        out,
        "timer   {} deadlines set, {} superseded, {} fired; late by {:.1} us (median), {:.1} us (p99), {:.1} us (most)",
        summary.timer_set,
        summary.timer_superseded,
        summary.timer_fired,
        micros(median),
        micros(p99),
        micros(most)
    )?;
    writeln!(
        out,
        "tables  {} values read by {} guests without a system call",
        summary.table_reads, summary.guests
    )?;
    if summary.guests_replaced > 0 {
        writeln!(
            out,
            "guests  {} died and were replaced; the bus went on",
            summary.guests_replaced
        )?;
    }
    Ok(())
}
