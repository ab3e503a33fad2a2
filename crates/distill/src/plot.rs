//! The course of training as a picture: a panel a stage.

use std::fmt::Write;

use crate::course::Stage;
use crate::report::grouped;

/// Its name in the student's folder.
pub(crate) const FILE: &str = "training.svg";

const WIDTH: f64 = 640.0;
const PANEL: f64 = 190.0;
/// Room around the plot within a panel.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 30.0;

const STYLE: &str = "text{font:12px sans-serif;fill:#333}.end{text-anchor:end}.grid{stroke:#ddd}.loss{fill:none;stroke:#0b6e99;stroke-width:1.5}";

/// The losses of `stages` as SVG, one below the other; each has an axis of its own, since what they minimise differs.
pub(crate) fn losses(stages: &[Stage]) -> String {
    let height = PANEL * stages.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"loss of each stage of training\">\n\
         <style>{STYLE}</style>\n"
    );
    for (number, stage) in stages.iter().enumerate() {
        panel(&mut svg, stage, PANEL * number as f64);
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, stage: &Stage, above: f64) {
    let (top, bottom) = (above + TOP, above + PANEL - BOTTOM);
    let finite = stage.losses.iter().copied().filter(|loss| loss.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| (low.min(loss), high.max(loss)));
    let axis = if low <= high { Axis::over(low, high) } else { Axis::over(0.0, 1.0) };
    let y = |loss: f64| bottom - (bottom - top) * (loss - axis.low) / (axis.high - axis.low);
    let x = |share: f64| LEFT + (WIDTH - LEFT - RIGHT) * share;
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\">{}: loss a {}, {} steps, {} tokens</text>",
        above + 18.0,
        stage.name,
        if stage.name == "prefer" { "pair" } else { "target" },
        grouped(stage.steps),
        grouped(stage.tokens)
    );
    for line in axis.lines() {
        let at = y(line);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"end\" x=\"{:.1}\" \
             y=\"{:.1}\">{line:.*}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            axis.digits
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{0:.1}\">0</text><text class=\"end\" x=\"{1:.1}\" y=\"{0:.1}\">step {2}</text>",
        bottom + 16.0,
        WIDTH - RIGHT,
        grouped(stage.steps)
    );
    // Each mean stands in the middle of its part.
    let count = stage.losses.len().max(1) as f64;
    let points = stage.losses.iter().enumerate().filter(|(_, loss)| loss.is_finite());
    let points: Vec<String> =
        points.map(|(part, &loss)| format!("{:.1},{:.1}", x((part as f64 + 0.5) / count), y(loss))).collect();
    let _ = writeln!(svg, "<polyline class=\"loss\" points=\"{}\"/>", points.join(" "));
}

/// An axis whose lines stand at round numbers.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
    /// Digits behind the point.
    digits: usize,
}

impl Axis {
    fn over(low: f64, high: f64) -> Self {
        let span = (high - low).max(1e-3 * high.abs()).max(1e-9);
        let power = 10_f64.powf((span / 4.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| span / step <= 5.0);
        let step = step.unwrap_or(10.0 * power);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Self { low, high: if high > low { high } else { low + step }, step, digits }
    }

    fn lines(&self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(|line| self.low + line as f64 * self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_at_round_numbers_around_all_losses() {
        for (low, high, lines) in [
            (0.38, 0.47, vec!["0.38", "0.40", "0.42", "0.44", "0.46", "0.48"]),
            (0.78, 4.55, vec!["0", "1", "2", "3", "4", "5"]),
            (2.0, 2.0, vec!["2.0000", "2.0005"]),
            (-3.0, 95.0, vec!["-20", "0", "20", "40", "60", "80", "100"]),
        ] {
            let axis = Axis::over(low, high);
            let said: Vec<String> = axis.lines().map(|line| format!("{line:.*}", axis.digits)).collect();
            assert_eq!(said, lines);
        }
    }
}
