//! Line plots as SVG: a panel for each ring size, side by side, with one scale.

use std::fmt::Write;

/// How an axis maps values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// By decades. What is below `least` is drawn there.
    Log { least: f64 },
    /// The same, but from the least value to the greatest.
    Tight,
    /// From zero.
    Linear,
}

/// A line.
pub(crate) struct Series {
    /// Its name in the legend.
    pub(crate) name: &'static str,
    /// Its class in the page's style: colour, dashes.
    pub(crate) class: &'static str,
    /// The shape of its points.
    pub(crate) mark: Mark,
    /// In the order of x.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The shape of a point: lines that cross are told apart without their colours.
#[derive(Clone, Copy)]
pub(crate) enum Mark {
    Circle,
    Square,
    Triangle,
}

/// Lines over one x axis.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) series: Vec<Series>,
}

/// A row of panels.
pub(crate) struct Plot {
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    pub(crate) y_scale: Scale,
    /// How a tick of the y axis is written.
    pub(crate) y_tick: fn(f64) -> String,
    /// A vertical line at this x, with a word.
    pub(crate) x_mark: Option<(f64, &'static str)>,
    pub(crate) panels: Vec<Panel>,
}

const PANEL_WIDTH: f64 = 268.0;
const PANEL_HEIGHT: f64 = 230.0;
const LEFT: f64 = 72.0;
const GAP: f64 = 22.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 50.0;

/// A line of the axis: where values lie, from one end of the panel to the other.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        let (low, high) = match scale {
            _ if low > high => (1.0, 10.0),
            Scale::Log { least } => {
                let down = 10_f64.powf(low.max(least).log10().floor());
                let up = 10_f64.powf(high.max(least * 10.0).log10().ceil());
                (down, up.max(down * 10.0))
            }
            Scale::Tight => (low / 1.25, high * 1.25),
            Scale::Linear => (0.0, if high > 0.0 { high * 1.08 } else { 1.0 }),
        };
        Self { scale, low, high }
    }

    /// From 0 at the axis's beginning to 1 at its end.
    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Log { .. } | Scale::Tight => {
                (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
            }
            Scale::Linear => (value - self.low) / (self.high - self.low),
        };
        part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Log { .. } => {
                let decades = (self.high / self.low).log10().round() as i32;
                // No more than seven words.
                let step = (decades / 7 + 1) as usize;
                let tick = |decade| self.low * 10_f64.powi(decade);
                (0..=decades).step_by(step).map(tick).collect()
            }
            Scale::Tight => {
                let first = self.low.log10().ceil() as i32;
                let last = self.high.log10().floor() as i32;
                (first..=last).map(|decade| 10_f64.powi(decade)).collect()
            }
            Scale::Linear => {
                let step = [0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0]
                    .into_iter()
                    .find(|step| self.high / step <= 6.0)
                    .unwrap_or(self.high / 5.0);
                let count = (self.high / step) as usize;
                (0..=count).map(|tick| tick as f64 * step).collect()
            }
        }
    }
}

impl Plot {
    /// The plot as an element of a page.
    pub(crate) fn svg(&self) -> String {
        let all = || self.panels.iter().flat_map(|panel| &panel.series);
        let points = || all().flat_map(|series| &series.points);
        let x = Axis::of(Scale::Tight, points().map(|point| point.0));
        let y = Axis::of(self.y_scale, points().map(|point| point.1));
        let panels = self.panels.len() as f64;
        let width = LEFT + panels * PANEL_WIDTH + (panels - 1.0) * GAP + 12.0;
        let height = TOP + PANEL_HEIGHT + BOTTOM;
        let mut svg = format!(
            r#"<svg viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{}">"#,
            self.y_label
        );
        self.legend(&mut svg);
        for (index, panel) in self.panels.iter().enumerate() {
            let left = LEFT + index as f64 * (PANEL_WIDTH + GAP);
            self.panel(&mut svg, panel, left, index == 0, &x, &y);
        }
        let middle = TOP + PANEL_HEIGHT / 2.0;
        let _ = write!(
            svg,
            r#"<text class="label" text-anchor="middle" transform="translate(16 {middle}) rotate(-90)">{}</text>"#,
            self.y_label
        );
        let centre = LEFT + (width - LEFT) / 2.0;
        let _ = write!(
            svg,
            r#"<text class="label" text-anchor="middle" x="{centre:.0}" y="{:.0}">{}</text></svg>"#,
            height - 8.0,
            self.x_label
        );
        svg
    }

    fn legend(&self, svg: &mut String) {
        let mut left = LEFT;
        for series in self.panels.first().map_or(&[][..], |panel| &panel.series) {
            let _ = write!(
                svg,
                r#"<g class="{}"><path d="M{left:.0} 14h34"/>"#,
                series.class
            );
            mark(svg, series.mark, left + 17.0, 14.0);
            let _ = write!(
                svg,
                r#"</g><text class="key" x="{:.0}" y="18">{}</text>"#,
                left + 42.0,
                series.name
            );
            left += 70.0 + 7.2 * series.name.len() as f64;
        }
    }

    fn panel(
        &self,
        svg: &mut String,
        panel: &Panel,
        left: f64,
        is_first: bool,
        x: &Axis,
        y: &Axis,
    ) {
        let right = left + PANEL_WIDTH;
        let bottom = TOP + PANEL_HEIGHT;
        let at_x = |value| left + x.place(value) * PANEL_WIDTH;
        let at_y = |value| bottom - y.place(value) * PANEL_HEIGHT;
        let _ = write!(
            svg,
            r#"<text class="title" x="{left:.0}" y="{:.0}">{}</text>"#,
            TOP - 10.0,
            panel.title
        );
        for tick in y.ticks() {
            let height = at_y(tick);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{left:.1} {height:.1}H{right:.1}"/>"#
            );
            if is_first {
                let _ = write!(
                    svg,
                    r#"<text class="tick" text-anchor="end" x="{:.1}" y="{:.1}">{}</text>"#,
                    left - 8.0,
                    height + 4.0,
                    (self.y_tick)(tick)
                );
            }
        }
        for tick in x.ticks() {
            let place = at_x(tick);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{place:.1} {TOP:.1}V{bottom:.1}"/><text class="tick" text-anchor="middle" x="{place:.1}" y="{:.1}">{}</text>"#,
                bottom + 17.0,
                plain(tick)
            );
        }
        if let Some((value, word)) = self.x_mark {
            let place = at_x(value);
            let _ = write!(
                svg,
                r#"<path class="mark" d="M{place:.1} {TOP:.1}V{bottom:.1}"/><text class="tick" text-anchor="end" x="{:.1}" y="{:.1}">{word}</text>"#,
                place - 5.0,
                TOP + 14.0
            );
        }
        for series in &panel.series {
            let _ = write!(svg, r#"<g class="{}"><path d=""#, series.class);
            for (index, (x, y)) in series.points.iter().enumerate() {
                let letter = if index == 0 { 'M' } else { 'L' };
                let _ = write!(svg, "{letter}{:.1} {:.1}", at_x(*x), at_y(*y));
            }
            let _ = write!(svg, r#""/>"#);
            for (x, y) in &series.points {
                mark(svg, series.mark, at_x(*x), at_y(*y));
            }
            let _ = write!(svg, "</g>");
        }
    }
}

fn mark(svg: &mut String, mark: Mark, x: f64, y: f64) {
    let _ = match mark {
        Mark::Circle => write!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4"/>"#),
        Mark::Square => write!(
            svg,
            r#"<rect x="{:.1}" y="{:.1}" width="7" height="7"/>"#,
            x - 3.5,
            y - 3.5
        ),
        Mark::Triangle => write!(
            svg,
            r#"<polygon points="{x:.1},{:.1} {:.1},{:.1} {:.1},{:.1}"/>"#,
            y - 4.8,
            x - 4.6,
            y + 3.6,
            x + 4.6,
            y + 3.6
        ),
    };
}

/// Three digits, without those that say nothing.
pub(crate) fn plain(value: f64) -> String {
    let (value, unit) = match value {
        _ if value >= 999_500.0 => (value / 1e6, " M"),
        _ if value >= 999.5 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let places = match value {
        _ if value >= 99.95 => return format!("{value:.0}{unit}"),
        _ if value >= 9.995 => 1,
        _ if value >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// A time in nanoseconds, in the unit that suits it.
pub(crate) fn duration(ns: f64) -> String {
    match ns {
        _ if ns >= 1e9 => format!("{} s", plain(ns / 1e9)),
        _ if ns >= 1e6 => format!("{} ms", plain(ns / 1e6)),
        _ if ns >= 1e3 => format!("{} us", plain(ns / 1e3)),
        _ => format!("{} ns", plain(ns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(y_scale: Scale, points: Vec<(f64, f64)>) -> String {
        let series = Series {
            name: "table",
            class: "table",
            mark: Mark::Circle,
            points,
        };
        Plot {
            x_label: "load",
            y_label: "age",
            y_scale,
            y_tick: duration,
            x_mark: Some((1.0, "all that the host can serve")),
            panels: vec![Panel {
                title: "ring of 16".to_owned(),
                series: vec![series],
            }],
        }
        .svg()
    }

    #[test]
    fn a_plot_holds_its_points_whatever_they_are() {
        let log = plot(
            Scale::Log { least: 1.0 },
            vec![(0.05, 0.0), (1.0, 1e3), (10.0, 1e7)],
        );
        assert_eq!(log.matches("<circle").count(), 3 + 1, "and in the legend");
        assert!(log.contains(">1 ms<") && log.contains(">1 ns<"), "{log}");
        let linear = plot(Scale::Linear, vec![(0.05, 0.0), (10.0, 0.97)]);
        assert!(linear.contains(">0.8 ns<"), "{linear}");
        for scale in [Scale::Linear, Scale::Log { least: 1.0 }] {
            for points in [vec![], vec![(1.0, 0.0)]] {
                let svg = plot(scale, points);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.05, 1.0, 12.34, 630.711, 1499.0, 47_712.0, 2.5e6].map(plain);
        let expected = ["0", "0.05", "1", "12.3", "631", "1.5 k", "47.7 k", "2.5 M"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let texts = [0.0, 1.0, 250.0, 1e3, 2.5e6, 1e9].map(duration);
        assert_eq!(texts, ["0 ns", "1 ns", "250 ns", "1 us", "2.5 ms", "1 s"]);
    }
}
