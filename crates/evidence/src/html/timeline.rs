use maud::{Markup, html};

use anbiq_domain::Timestamp;

use super::numbers::{grouped, tick, ticks};
use super::shown::{Shown, escaped};
use crate::{OperatorRow, Timeline, Tone};

/// Series that get a colour of their own; the rest are drawn as one.
const COLOURS: usize = 8;
/// More bars than this are merged.
const BARS: i64 = 180;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 34.0;

struct Bars {
    first: i64,
    /// Milliseconds that one bar covers.
    length: i64,
    /// Counts by bar, then by series.
    counts: Vec<Vec<u64>>,
}

/// Stacked bars over time, with marks and a legend.
pub(super) fn draw(timeline: &Timeline, operators: &[OperatorRow], others: &str) -> Markup {
    let mut names: Vec<&str> = timeline.series.iter().map(String::as_str).collect();
    if names.len() > COLOURS {
        names.truncate(COLOURS - 1);
        names.push(others);
    }
    let colours = colours(&names, operators);
    let Some(bars) = Bars::new(timeline, names.len()) else { return html! {} };
    let top = bars
        .counts
        .iter()
        .map(|counts| counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count)))
        .max()
        .unwrap_or(0);
    let ticks = ticks(top as f64, 4);
    let highest = ticks.last().copied().unwrap_or(1.0);
    let y = |count: f64| HEIGHT - BOTTOM - count / highest * (HEIGHT - TOP - BOTTOM);
    let width = (WIDTH - LEFT - RIGHT) / bars.counts.len() as f64;
    let x = |bar: f64| LEFT + bar * width;
    let at = |moment: Timestamp| x(moment.milliseconds().saturating_sub(bars.first) as f64 / bars.length as f64);
    html! {
        div.scroll { svg.chart.wide viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(escaped(&timeline.unit)) {
            text.axis x="0" y="11" { (escaped(&timeline.unit)) }
            @for value in &ticks {
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(y(*value))) y2=(short(y(*value))) {}
                text.tick.end x=(LEFT - 6.0) y=(short(y(*value) + 3.5)) { (tick(*value)) }
            }
            @for (bar, counts) in bars.counts.iter().enumerate() {
                @if counts.iter().any(|count| *count > 0) {
                    g {
                        title { (bars.label(bar)) @for (name, count) in names.iter().zip(counts) {
                            @if *count > 0 { "\n" (escaped(name)) ": " (grouped(*count)) }
                        } }
                        @for (series, from, to) in stack(counts) {
                            rect class=(colours[series]) x=(short(x(bar as f64))) y=(short(y(to as f64)))
                                width=(short((width - 0.6).max(0.4))) height=(short(y(from as f64) - y(to as f64))) {}
                        }
                    }
                }
            }
            @for step in 0..=5_u32 {
                @let bar = bars.counts.len() as f64 * f64::from(step) / 5.0;
                text.tick.(match step { 0 => "start", 5 => "end", _ => "middle" }) x=(short(x(bar))) y=(HEIGHT - BOTTOM + 16.0) {
                    (bars.moment(bar))
                }
            }
            @for (number, mark) in (1..).zip(&timeline.marks) {
                @let position = at(mark.at).clamp(LEFT, WIDTH - RIGHT);
                g.mark {
                    title { (escaped(&mark.label)) }
                    line x1=(short(position)) x2=(short(position)) y1=(TOP) y2=(HEIGHT - BOTTOM) {}
                    circle cx=(short(position)) cy=(TOP) r="7" {}
                    text x=(short(position)) y=(TOP + 3.2) { (number) }
                }
            }
        }
        }
        ul.legend {
            @for (series, name) in names.iter().enumerate() {
                li { svg viewBox="0 0 10 10" aria-hidden="true" { rect class=(colours[series]) width="10" height="10" rx="2" {} } " " (Shown(name)) }
            }
        }
    }
}

/// A colour for each series: those of the finding and of what is in order for operators with that standing, as in the
/// graph of accounts; for the others whatever is left.
fn colours(names: &[&str], operators: &[OperatorRow]) -> Vec<&'static str> {
    let mut left = ["s0", "s1", "s4", "s5", "s6", "s7"].into_iter().cycle();
    let mut colour = |name: &&str| match operators.iter().find(|operator| operator.name == **name).map(|one| one.tone) {
        Some(Tone::Finding) => "s3",
        Some(Tone::Good) => "s2",
        _ => left.next().unwrap_or("s0"),
    };
    names.iter().map(&mut colour).collect()
}

impl Bars {
    fn new(timeline: &Timeline, series: usize) -> Option<Self> {
        let first = timeline.buckets.iter().map(|bucket| bucket.start.milliseconds()).min()?;
        let last = timeline.buckets.iter().map(|bucket| bucket.start.milliseconds()).max()?;
        let gaps = timeline.buckets.windows(2).map(|pair| pair[1].start.since(pair[0].start)).filter(|gap| *gap > 0);
        let bucket = gaps.min().unwrap_or(3_600_000);
        let span = last.saturating_sub(first) / bucket;
        let merged = span / BARS + 1;
        let length = bucket.saturating_mul(merged);
        let mut counts = vec![vec![0_u64; series]; usize::try_from(span / merged + 1).ok()?];
        for bucket in &timeline.buckets {
            let bar = bucket.start.milliseconds().saturating_sub(first) / length;
            let bar = usize::try_from(bar).ok().and_then(|bar| counts.get_mut(bar));
            let Some(bar) = bar else { continue };
            for (place, name) in timeline.series.iter().enumerate() {
                let count = bucket.counts.get(name).copied().unwrap_or(0);
                if let Some(sum) = bar.get_mut(place.min(series.saturating_sub(1))) {
                    *sum = sum.saturating_add(count);
                }
            }
        }
        Some(Self { first, length, counts })
    }

    fn label(&self, bar: usize) -> String {
        self.start(bar as f64).to_string()
    }

    /// Under the axis: the day where the whole is long, the hour too where it is short.
    fn moment(&self, bar: f64) -> String {
        let text = self.start(bar).to_string();
        let long = self.length.saturating_mul(self.counts.len() as i64) > 6 * 86_400_000;
        let shown = if long { text.get(..10) } else { text.get(5..16) };
        shown.map_or(text.clone(), |shown| shown.replace('T', " "))
    }

    fn start(&self, bar: f64) -> Timestamp {
        Timestamp::from_milliseconds(self.first.saturating_add((bar * self.length as f64) as i64))
    }
}

/// Series, lower end and upper end of each part of a bar.
fn stack(counts: &[u64]) -> Vec<(usize, u64, u64)> {
    let mut below = 0_u64;
    let mut parts = Vec::new();
    for (series, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let above = below.saturating_add(*count);
        parts.push((series, below, above));
        below = above;
    }
    parts
}

/// A coordinate to a tenth.
pub(super) fn short(coordinate: f64) -> String {
    let text = format!("{coordinate:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
