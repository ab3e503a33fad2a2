use serde::{Deserialize, Serialize};

use crate::Gaps;

/// What is tested of each pair. Either is computed in the order of drawing, without knowing which draw was served, and then
/// takes the coin's sign; so under the null hypothesis its sign is fair whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The residual of the suspect's gap in a regression without intercept on the gaps of the teacher and the controls and on
    /// the difference in length.
    ///
    /// The regression never sees the coins. Nor would it matter if it did: to exchange the draws of a pair turns the sign of
    /// its row of regressors and of its gap, which leaves all sums of products, hence the coefficients, as they were, and
    /// turns the sign of its residual alone.
    #[default]
    Residual,
    /// The suspect's gap less the teacher's.
    MinusTeacher,
    /// As [`Statistic::Residual`], where the suspect's gap is by how much nearer it comes to the teacher's distributions along
    /// the first draw than along the second: it is asked through a model that says so.
    Nearness,
    /// As [`Statistic::Residual`], where the suspect's gap is by how much more of the first draw than of the second stands in its
    /// texts: see [`crate::overlap`]. The teacher is not asked.
    Overlap,
    /// As [`Statistic::Residual`], where the gap of every model is by how much more often it would go on as the first draw does than as
    /// the second: see [`crate::probe`]. Needs no log-probabilities.
    Probe,
}

impl Statistic {
    /// What it is, for the protocol.
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::Residual => {
                "Gap: a model's log-probability of one draw less that of the other. Residual of the suspect's gap in a \
                 least-squares regression without intercept, over all pairs in the order of drawing, on the teacher's gap, \
                 the difference in length in the teacher's tokens, and each control's gap; with the sign turned where the \
                 second draw was served."
            }
            Self::Nearness => {
                "Gap of the suspect: the sum of KL(teacher || suspect) over the tokens of the second draw less that over the \
                 first. Gap of another model: its log-probability of the first draw less that of the second. Residual of the \
                 suspect's gap in a least-squares regression without intercept, over all pairs in the order of drawing, on \
                 the teacher's gap, the difference in length in the teacher's tokens, and each control's gap; with the sign \
                 turned where the second draw was served."
            }
            Self::Overlap => {
                "Gap of the suspect: over all places of a draw, the words of the longest run from there that stands in its texts, \
                 from 3 words on and 32 at most, of the first draw less those of the second; among its answers to the same \
                 prompt where it was asked that, or else among all of its texts. Residual of that gap in a least-squares \
                 regression without intercept, over all pairs in the order of drawing, on the difference in length in words; \
                 with the sign turned where the second draw was served. The teacher is not asked."
            }
            Self::Probe => {
                "Gap of every model: over places of a draw, given the draw up to there, how far it goes on word for word at temperature 0 \
                 (of a model in a folder, over all tokens, whether it finds the token likeliest), of the first draw less that of the \
                 second. Residual of the suspect's gap in a least-squares regression without intercept, over all pairs in the order of \
                 drawing, on the teacher's gap, the difference in the number of the teacher's places, and each control's gap; with the \
                 sign turned where the second draw was served."
            }
            Self::MinusTeacher => {
                "Gap: a model's log-probability of one draw less that of the other. The suspect's gap less the teacher's; \
                 with the sign turned where the second draw was served."
            }
        }
    }

    /// The statistic of each pair in the order of drawing.
    pub(crate) fn of(self, gaps: &[&Gaps]) -> Vec<f64> {
        let mut suspect: Vec<f64> = gaps.iter().map(|gaps| gaps.suspect).collect();
        match self {
            Self::MinusTeacher => {
                for (value, gaps) in suspect.iter_mut().zip(gaps) {
                    *value -= gaps.teacher;
                }
            }
            Self::Residual | Self::Nearness | Self::Overlap | Self::Probe => {
                let controls = gaps.iter().map(|gaps| gaps.controls.len()).min().unwrap_or(0);
                let mut columns: Vec<Vec<f64>> = vec![
                    gaps.iter().map(|gaps| gaps.teacher).collect(), //
                    gaps.iter().map(|gaps| gaps.length).collect(),
                ];
                for control in 0..controls {
                    columns.push(gaps.iter().map(|gaps| gaps.controls[control]).collect());
                }
                project_out(&mut suspect, columns);
            }
        }
        for value in &mut suspect {
            *value = rounded(*value);
        }
        suspect
    }
}

/// To a millionth of a nat. Numbers are rounded before they are used and written, so that whoever reads them back from a
/// report ranks them alike.
pub(crate) fn rounded(value: f64) -> f64 {
    let rounded = (value * 1e6).round() / 1e6;
    // Not minus zero.
    rounded + 0.0
}

/// Takes from `target` its least-squares projection on `columns`: modified Gram-Schmidt, each column first freed of those
/// before it. A column that the others already contain is left out.
fn project_out(target: &mut [f64], mut columns: Vec<Vec<f64>>) {
    for place in 0..columns.len() {
        let (before, rest) = columns.split_at_mut(place);
        let column = &mut rest[0];
        let length = dot(column, column);
        for other in before {
            subtract(column, other);
        }
        if dot(column, column) <= 1e-12 * length {
            column.fill(0.0);
        }
        subtract(target, column);
    }
}

/// Takes from `target` its projection on `column`.
fn subtract(target: &mut [f64], column: &[f64]) {
    let square = dot(column, column);
    if square > 0.0 {
        let share = dot(target, column) / square;
        for (value, column) in target.iter_mut().zip(column) {
            *value -= share * column;
        }
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    #[test]
    fn residuals_are_orthogonal_and_flip_with_their_pair() {
        let mut random = Seeded::new(6);
        let mut gaps: Vec<Gaps> = (0..50)
            .map(|_| {
                let (teacher, length) = (random.normal(), random.normal());
                let control = teacher - 2.0 * length + random.normal();
                // The second control repeats the first: a collinear column.
                let controls = vec![control, 3.0 * control];
                Gaps { suspect: 5.0 * teacher + control + random.normal(), teacher, controls, length }
            })
            .collect();
        let of = |gaps: &[Gaps]| Statistic::Residual.of(&gaps.iter().collect::<Vec<_>>());
        let before = of(&gaps);
        for column in [|gaps: &Gaps| gaps.teacher, |gaps: &Gaps| gaps.length, |gaps: &Gaps| gaps.controls[0]] {
            let product: f64 = gaps.iter().zip(&before).map(|(gaps, value)| column(gaps) * value).sum();
            assert!(product.abs() < 1e-3, "{product}");
        }
        let one = &mut gaps[7];
        *one = Gaps {
            suspect: -one.suspect,
            teacher: -one.teacher,
            controls: one.controls.iter().map(|control| -control).collect(),
            length: -one.length,
        };
        let after = of(&gaps);
        for (place, (before, after)) in before.iter().zip(&after).enumerate() {
            let expected = if place == 7 { -before } else { *before };
            assert!((after - expected).abs() < 2e-6);
        }
    }
}
