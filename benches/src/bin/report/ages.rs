//! The plots of tables beside rings over the load.

use std::collections::BTreeMap;

use shmbus_benches::{AgeLine, AgePoint};

use super::plot::{Mark, Panel, Plot, Scale, Series, duration, plain};

/// A plot, and what it shows in words.
pub(crate) struct Figure {
    pub(crate) title: &'static str,
    pub(crate) svg: String,
    pub(crate) words: String,
}

/// The lines of a ring size.
type OfSize<'l> = Vec<&'l AgeLine>;

const X_LABEL: &str = "load: deadlines offered, in those that the host can serve (logarithmic)";

fn by_size(lines: &[AgeLine]) -> BTreeMap<u32, OfSize<'_>> {
    let mut sizes: BTreeMap<u32, OfSize<'_>> = BTreeMap::new();
    for line in lines {
        let size = line.line.bench.strip_prefix("age-");
        if let Some(size) = size.and_then(|size| size.parse().ok()) {
            sizes.entry(size).or_default().push(line);
        }
    }
    sizes
}

fn panel(size: u32, lines: &OfSize<'_>, figure: fn(&AgePoint) -> f64) -> Panel {
    let of = |peer: &'static str, side: fn(&AgeLine) -> &AgePoint| {
        let mut points: Vec<_> = lines
            .iter()
            .filter(|line| line.line.peer == peer)
            .map(|line| (line.load, figure(side(line))))
            .collect();
        points.sort_by(|one, next| one.0.total_cmp(&next.0));
        points
    };
    let series = |name, class, mark, points| Series {
        name,
        class,
        mark,
        points,
    };
    let entries = if size == 1 { "entry" } else { "entries" };
    Panel {
        title: format!("rings of {size} {entries}"),
        series: vec![
            series(
                "ring, every element is acted on",
                "every",
                Mark::Triangle,
                of("ring-every", |line| &line.theirs),
            ),
            series(
                "ring, the last is acted on",
                "last",
                Mark::Square,
                of("ring-last", |line| &line.theirs),
            ),
            // It was measured beside both.
            series(
                "table",
                "table",
                Mark::Circle,
                of("ring-last", |line| &line.ours),
            ),
        ],
    }
}

fn plot(
    sizes: &BTreeMap<u32, OfSize<'_>>,
    y_label: &'static str,
    y_scale: Scale,
    y_tick: fn(f64) -> String,
    figure: fn(&AgePoint) -> f64,
) -> String {
    let panels = sizes
        .iter()
        .map(|(size, lines)| panel(*size, lines, figure));
    Plot {
        x_label: X_LABEL,
        y_label,
        y_scale,
        y_tick,
        x_mark: Some((1.0, "load 1")),
        panels: panels.collect(),
    }
    .svg()
}

/// The figures at the highest load, of the largest ring.
struct Extreme {
    load: f64,
    size: u32,
    table: AgePoint,
    every: AgePoint,
    last: AgePoint,
    /// The smallest ring, and what is acted on of it.
    least: u32,
    least_last: AgePoint,
}

impl Extreme {
    fn of(sizes: &BTreeMap<u32, OfSize<'_>>) -> Option<Self> {
        let (size, lines) = sizes.last_key_value()?;
        let (least, of_least) = sizes.first_key_value()?;
        let highest = |lines: &OfSize<'_>, peer: &str| {
            let of_peer = lines.iter().filter(|line| line.line.peer == peer);
            let highest = of_peer.max_by(|one, next| one.load.total_cmp(&next.load));
            highest.map(|line| (line.load, line.ours, line.theirs))
        };
        let (_, _, every) = highest(lines, "ring-every")?;
        let (load, table, last) = highest(lines, "ring-last")?;
        let (_, _, least_last) = highest(of_least, "ring-last")?;
        Some(Self {
            load,
            size: *size,
            table,
            every,
            last,
            least: *least,
            least_last,
        })
    }
}

/// All plots.
pub(crate) fn figures(lines: &[AgeLine]) -> Vec<Figure> {
    let sizes = by_size(lines);
    let Some(extreme) = Extreme::of(&sizes) else {
        return Vec::new();
    };
    let Extreme {
        load,
        size,
        table,
        every,
        last,
        least,
        least_last,
    } = extreme;
    let load = plain(load);
    let age = Scale::Log { least: 100.0 };
    let count = Scale::Log { least: 1.0 };
    let processors = |part: f64| format!("{:.0} %", 100.0 * part);
    vec![
        Figure {
            title: "Age of the deadline acted on: the median",
            svg: plot(
                &sizes,
                "age, median (logarithmic)",
                age,
                duration,
                |point| point.p50_ns,
            ),
            words: format!(
                "How long ago the guest set the deadline that the host acts on; lower is better. While the host keeps up, all \
                 carriers are alike: the age is what it takes to wake the host, and to act on the one before. From load 1 on, \
                 deadlines come faster than they are served. A table holds the newest one, whatever came before: at load {load} \
                 its median is {}. A ring of which every element is acted on fills up, and each deadline waits for all before \
                 it: {} with {size} entries. A ring of which the last element is acted on is drained first, so its age is that of \
                 the last one that fitted in: {} with {size} entries, {} with {least}. The fewer entries it has, the longer ago \
                 that was.",
                duration(table.p50_ns),
                duration(every.p50_ns),
                duration(last.p50_ns),
                duration(least_last.p50_ns),
            ),
        },
        Figure {
            title: "Age of the deadline acted on: 99 of 100",
            svg: plot(
                &sizes,
                "age, 99th percentile (logarithmic)",
                age,
                duration,
                |point| point.p99_ns,
            ),
            words: format!(
                "The same for the oldest of a hundred: 99 of 100 deadlines were no older when the host acted on them. At load \
                 {load} that is {} over the table, {} over the ring of {size} whose every element is acted on, and {} over the \
                 one of which the last is. Beside the carrier it shows how the machine's scheduler interrupts either side.",
                duration(table.p99_ns),
                duration(every.p99_ns),
                duration(last.p99_ns),
            ),
        },
        Figure {
            title: "Signals",
            svg: plot(
                &sizes,
                "signals a second, both ways (logarithmic)",
                count,
                plain,
                AgePoint::signals,
            ),
            words: format!(
                "How often one side woke the other, both ways together; each is a system call, and between a virtual machine and \
                 its host an exit or an interrupt besides. What lies on the bottom line is none. A side is woken only while it \
                 waits, over tables as over rings. So there are as many signals as deadlines while the host is idle, and few when \
                 it is busy. A full ring adds those by which the host says that there is room: at load {load}, with {size} \
                 entries, {} a second where the guest waits for room, against {} over the table.",
                plain(every.signals()),
                plain(table.signals()),
            ),
        },
        Figure {
            title: "Processor time of the host",
            svg: plot(
                &sizes,
                "the host's part of a processor",
                Scale::Linear,
                processors,
                |point| point.host_cpu,
            ),
            words: format!(
                "Acting on a deadline takes the host a fixed time: it arms a timer of the kernel, and spins for what else it would \
                 do. So this line says how many deadlines it acted on, and what it spent on the carrier. Below load 1 all \
                 deadlines are acted on; above, the host is busy all the time, and a carrier is the better the more recent what \
                 it is busy with. At load {load} it acted on {} deadlines a second over the table, {} over the ring of {size} \
                 whose every element is acted on, and {} over the other.",
                plain(table.acted),
                plain(every.acted),
                plain(last.acted),
            ),
        },
        Figure {
            title: "Processor time of the guest",
            svg: plot(
                &sizes,
                "the guest's part of a processor",
                Scale::Linear,
                processors,
                |point| point.guest_cpu,
            ),
            words: format!(
                "What the guest spends in the driver and on signals; the time in which it waits for its next deadline, or for room, \
                 is not among it. Where every element is acted on the guest waits, and sets fewer deadlines than it was to: at \
                 load {load} and {size} entries it left out {} a second. Over the table, and where the last one counts, it never \
                 waits: of {} deadlines a second, {} were superseded before the host acted on them.",
                plain(every.held_back),
                plain(table.set),
                plain(table.superseded),
            ),
        },
    ]
}
