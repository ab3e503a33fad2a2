//! Plots as SVG.

use maud::{Markup, html};

use crate::baseline::Method;
use crate::contest::CurveRow;
use crate::delay::DelayRow;
use crate::score::Share;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// The left end of the logarithmic axis of false alarms, as a power of ten.
const DECADES: i32 = -4;

fn short(value: f64) -> String {
    format!("{value:.1}")
}

/// The class that gives a method its colour.
fn colour(method: Method) -> String {
    format!("c{}", Method::ALL.iter().position(|other| *other == method).unwrap_or(0))
}

/// True against false alarms, the latter on a logarithmic axis; what is reached without any false alarm stands at its left end.
pub(crate) fn curves<'a>(rows: impl Iterator<Item = &'a CurveRow> + Clone, caption: &str) -> Markup {
    let across = WIDTH - LEFT - RIGHT;
    let x = |alarms: f64| {
        let decades = f64::from(-DECADES);
        LEFT + across * ((alarms.max(1e-9).log10() + decades) / decades).clamp(0.0, 1.0)
    };
    let y = |hits: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - hits);
    let path = |row: &CurveRow| {
        let mut path = format!("M {} {}", short(LEFT), short(y(row.curve.at(0.0))));
        let mut last = row.curve.at(0.0);
        for (alarms, hits) in row.curve.points.iter().filter(|point| point.0 > 0.0) {
            // A step: what is caught at so many false alarms is not caught at fewer.
            path += &format!(" L {} {} L {0} {}", short(x(*alarms)), short(y(last)), short(y(*hits)));
            last = *hits;
        }
        path
    };
    html! {
        figure {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(caption) {
                @for step in 0..=4_u32 {
                    @let hits = f64::from(step) / 4.0;
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(y(hits))) y2=(short(y(hits))) {}
                    text.end x=(LEFT - 6.0) y=(short(y(hits) + 4.0)) { (format!("{:.0} %", 100.0 * hits)) }
                }
                @for power in DECADES..=0 {
                    @let at = x(10_f64.powi(power));
                    line.grid x1=(short(at)) x2=(short(at)) y1=(TOP) y2=(HEIGHT - BOTTOM) {}
                    text.middle x=(short(at)) y=(HEIGHT - BOTTOM + 16.0) { (percents(power)) }
                }
                text.middle x=(short(LEFT + across / 2.0)) y=(HEIGHT - 6.0) { "honest ones flagged" }
                @for (place, row) in rows.enumerate() {
                    path.curve.(colour(row.method)) style="fill:none" d=(path(row)) {}
                    @let line = TOP + 14.0 + 17.0 * place as f64;
                    rect.(colour(row.method)) x=(WIDTH - RIGHT + 8.0) y=(short(line - 8.0)) width="12" height="4" {}
                    text.name x=(WIDTH - RIGHT + 25.0) y=(short(line - 2.0)) { (row.method.name()) }
                }
            }
            figcaption { (caption) }
        }
    }
}

/// Shares with their intervals, a line each, on an axis from 0 to 100 %.
pub(crate) fn shares(rows: &[(String, Share)], caption: &str) -> Markup {
    const NAMES: f64 = 250.0;
    const LINE: f64 = 19.0;
    let height = TOP + LINE * rows.len() as f64 + 24.0;
    let x = |share: f64| NAMES + (WIDTH + 120.0 - NAMES - 20.0) * share;
    html! {
        figure {
            svg viewBox={ "0 0 " (WIDTH + 120.0) " " (short(height)) } role="img" aria-label=(caption) {
                @for step in 0..=4_u32 {
                    @let at = x(f64::from(step) / 4.0);
                    line.grid x1=(short(at)) x2=(short(at)) y1=(TOP) y2=(short(height - 22.0)) {}
                    text.middle x=(short(at)) y=(short(height - 8.0)) { (25 * step) " %" }
                }
                @for (place, (name, share)) in rows.iter().enumerate() {
                    @let line = TOP + LINE * (place as f64 + 0.5);
                    text.name.end x=(NAMES - 8.0) y=(short(line + 4.0)) { (name) }
                    line.whisker.c0 x1=(short(x(share.interval.low))) x2=(short(x(share.interval.high))) y1=(short(line)) y2=(short(line)) {}
                    circle.c0 cx=(short(x(share.value()))) cy=(short(line)) r="4" {}
                }
            }
            figcaption { (caption) }
        }
    }
}

/// Exchanges that were gone when a campaign was found, against its accounts, both on logarithmic axes.
pub(crate) fn delays(rows: &[DelayRow], caption: &str) -> Markup {
    let found = rows.iter().filter(|row| row.review.found > 0 && row.review.exchanges.median >= 1.0);
    let across = WIDTH - LEFT - 20.0;
    let x = |accounts: f64| LEFT + across * (accounts.log10() / 5.0).clamp(0.0, 1.0);
    let y = |exchanges: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (exchanges.log10() / 6.0).clamp(0.0, 1.0));
    html! {
        figure {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(caption) {
                @for power in 0..=6_i32 {
                    @let line = y(10_f64.powi(power));
                    line.grid x1=(LEFT) x2=(WIDTH - 20.0) y1=(short(line)) y2=(short(line)) {}
                    text.end x=(LEFT - 6.0) y=(short(line + 4.0)) { (tens(power)) }
                }
                @for power in 0..=5_i32 {
                    @let at = x(10_f64.powi(power));
                    text.middle x=(short(at)) y=(HEIGHT - BOTTOM + 16.0) { (tens(power)) }
                }
                text.middle x=(short(LEFT + across / 2.0)) y=(HEIGHT - 6.0) { "accounts of the campaign" }
                @for row in found {
                    circle.(if row.campaign.shared { "c0" } else { "c4" }) cx=(short(x(row.campaign.accounts as f64))) cy=(short(y(row.review.exchanges.median))) r="4" {
                        title { (row.campaign.name()) ": " (format!("{:.0} exchanges, {:.0} tokens", row.review.exchanges.median, row.review.tokens.median)) }
                    }
                }
            }
            figcaption { (caption) }
        }
    }
}

fn percents(power: i32) -> String {
    format!("{} %", 10_f64.powi(power + 2))
}

fn tens(power: i32) -> String {
    match power {
        0..=2 => format!("{}", 10_i32.pow(power as u32)),
        _ => format!("{}k", 10_i32.pow(power.clamp(3, 9) as u32 - 3)),
    }
}
