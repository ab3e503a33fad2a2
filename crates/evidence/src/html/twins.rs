use maud::{Markup, html};

use super::Say;
use super::numbers::{grouped, tick, ticks};
use super::timeline::short;
use crate::language::Label;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 42.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;
/// Bars on either side of zero.
const SIDE: usize = 14;
/// Decimal logarithm of the e-value from which on a verdict is established.
const ESTABLISHED: f64 = 6.0;
/// Points of the path that are drawn.
const POINTS: usize = 500;

/// Histogram of the pairs' differences, with the outline that chance would give.
pub(super) fn differences(differences: &[f64], say: Say) -> Markup {
    let finite: Vec<f64> = differences.iter().copied().filter(|difference| difference.is_finite()).collect();
    let widest = widest(&finite);
    let mut bars = [0_u32; 2 * SIDE];
    for difference in finite.iter().filter(|difference| **difference != 0.0) {
        // What lies beyond the ends is counted in the last bar.
        let bar = ((difference / widest + 1.0) * SIDE as f64).clamp(0.0, (2 * SIDE - 1) as f64) as usize;
        bars[bar] += 1;
    }
    let chance = |bar: usize| f64::from(bars[bar] + bars[2 * SIDE - 1 - bar]) / 2.0;
    let ticks = ticks(f64::from(bars.iter().copied().max().unwrap_or(0)), 4);
    let highest = ticks.last().copied().unwrap_or(1.0);
    let width = (WIDTH - LEFT - RIGHT) / bars.len() as f64;
    let x = |bar: usize| LEFT + bar as f64 * width;
    let y = |count: f64| HEIGHT - BOTTOM - count / highest * (HEIGHT - TOP - BOTTOM);
    let mut outline = format!("M{} {}", short(x(0)), short(y(0.0)));
    for bar in 0..bars.len() {
        outline += &format!("V{}H{}", short(y(chance(bar))), short(x(bar + 1)));
    }
    outline += &format!("V{}", short(y(0.0)));
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(say.the(Label::DifferencesPlot)) {
            (levels(&ticks, y))
            @for (bar, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
                rect.(if bar < SIDE { "twin" } else { "served" }) x=(short(x(bar) + 0.5)) y=(short(y(f64::from(*count))))
                    width=(short(width - 1.0)) height=(short(y(0.0) - y(f64::from(*count)))) {
                    title { (grouped(u64::from(*count))) }
                }
            }
            path.chance d=(outline) {}
            line.zero x1=(short(x(SIDE))) x2=(short(x(SIDE))) y1=(TOP - 6.0) y2=(HEIGHT - BOTTOM) {}
            text.tick.start x=(LEFT) y=(HEIGHT - BOTTOM + 14.0) { "−" (format!("{widest:.2}")) }
            text.tick.middle x=(short(x(SIDE))) y=(HEIGHT - BOTTOM + 14.0) { "0" }
            text.tick.end x=(WIDTH - RIGHT) y=(HEIGHT - BOTTOM + 14.0) { "+" (format!("{widest:.2}")) }
            text.axis.start x=(LEFT) y=(HEIGHT - 8.0) { "← " (say.the(Label::PrefersTwin)) }
            text.axis.end x=(WIDTH - RIGHT) y=(HEIGHT - 8.0) { (say.the(Label::PrefersServed)) " →" }
        }
    }
}

/// The size of difference that 98 in 100 pairs do not exceed: a few extreme ones must not flatten all others.
fn widest(differences: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = differences.iter().map(|difference| difference.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let place = (sizes.len() * 98).div_ceil(100).saturating_sub(1);
    sizes.get(place).copied().filter(|size| *size > 0.0).unwrap_or(1.0)
}

/// The e-process as a line, with the threshold.
pub(super) fn path(log10_e: &[f64], say: Say) -> Markup {
    let finite: Vec<f64> = log10_e.iter().copied().filter(|value| value.is_finite()).collect();
    let highest = finite.iter().copied().fold(ESTABLISHED + 1.0, f64::max);
    let lowest = finite.iter().copied().fold(-1.0, f64::min);
    let step = ticks(highest - lowest, 5).get(1).copied().unwrap_or(1.0).max(1.0);
    let bottom = (lowest / step).floor() * step;
    let levels = (0..12).map(|level| bottom + step * f64::from(level)).filter(|level| *level <= highest);
    let x = |pair: f64| LEFT + pair / (finite.len().max(1) as f64) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - bottom) / (highest - bottom) * (HEIGHT - TOP - BOTTOM);
    let mut line = format!("M{} {}", short(x(0.0)), short(y(0.0)));
    for (pair, value) in thinned(&finite) {
        line += &format!("L{} {}", short(x(pair as f64)), short(y(value)));
    }
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(say.the(Label::PathPlot)) {
            @for level in levels {
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(y(level))) y2=(short(y(level))) {}
                text.tick.end x=(LEFT - 6.0) y=(short(y(level) + 3.5)) { "10" tspan.power dy="-4" { (tick(level)) } }
            }
            line.zero x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(y(0.0))) y2=(short(y(0.0))) {}
            line.threshold x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(y(ESTABLISHED))) y2=(short(y(ESTABLISHED))) {}
            text.threshold.end x=(WIDTH - RIGHT - 2.0) y=(short(y(ESTABLISHED) - 4.0)) { (say.the(Label::Threshold)) }
            path.evidence d=(line) {}
            text.tick.start x=(LEFT) y=(HEIGHT - BOTTOM + 14.0) { "0" }
            text.tick.end x=(WIDTH - RIGHT) y=(HEIGHT - BOTTOM + 14.0) { (grouped(finite.len() as u64)) }
            text.axis.middle x=(short(x(finite.len() as f64 / 2.0))) y=(HEIGHT - 8.0) { (say.the(Label::Pairs)) }
        }
    }
}

/// At most about [`POINTS`] points, the last among them: pairs counted from 1.
fn thinned(values: &[f64]) -> impl Iterator<Item = (usize, f64)> {
    let every = values.len().div_ceil(POINTS).max(1);
    let kept = move |place: &usize| place.is_multiple_of(every);
    let last = values.len();
    (1..=last).filter(move |place| kept(place) || *place == last).map(|place| (place, values[place - 1]))
}

fn levels(ticks: &[f64], y: impl Fn(f64) -> f64) -> Markup {
    html! {
        @for value in ticks {
            line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(y(*value))) y2=(short(y(*value))) {}
            text.tick.end x=(LEFT - 6.0) y=(short(y(*value) + 3.5)) { (tick(*value)) }
        }
    }
}
