//! The contrastive style score: which candidate teacher's answers do a suspect's given answers look like, and is any
//! model that is known to be independent as much like them?
//!
//! This is evidence that rests on controls (*E_model*). It is never added to the exact evidence of twins, and never shows
//! more than *moderate*. Its unit is the model, and where models come in families the family: thousands of prompts do not
//! make one control more. [`Answers`] holds what was read, [`roles`](crate::controls::roles) says who is who, [`compare`] makes a [`StyleReport`].
//!
//! Why the score is as it is: the *share of answers that hold a common word* is what survives training on others' answers
//! to other prompts, while rare words are what the prompts are about. The *arcsine of the root* gives every share the same
//! noise. *Damping* takes length and verbosity, in which all models differ, down to the size of the rest without a
//! number to tune. The *nearest* model of a family counts, since a student has one teacher and not a vendor's average.
//! Nothing is fitted to which models are students.

mod answers;
mod report;
mod space;
mod text;

use crate::controls::{Among, ControlScore, ControlsError, Part, Role, rounded, weights};
use crate::gaps::dot;

pub use answers::Answers;
pub use report::{Closeness, Finding, Matched, StyleReport, StyleVerdict};
use space::{Shares, Space};
pub use text::render_style;

/// Fewest prompts that all models answered. Shares of fewer answers are mostly noise.
const FEWEST_PROMPTS: usize = 50;

/// Compares every suspect of `parts` with the candidate teachers, and asks whether it is more like the family `accused`
/// than the controls are. Models without a role play no part.
///
/// # Errors
///
/// A model has no answers, a role is taken by nobody, or too few prompts were answered by all.
pub fn compare(answers: &Answers, parts: &[Part], accused: &str) -> Result<StyleReport, ControlsError> {
    let rows = parts
        .iter()
        .map(|part| answers.row(&part.model).ok_or_else(|| ControlsError::NoAnswers { model: part.model.clone() }));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let prompts = answers.shared(&rows);
    if prompts.len() < FEWEST_PROMPTS {
        return Err(ControlsError::TooFewPrompts { found: prompts.len(), needed: FEWEST_PROMPTS });
    }
    let shares = Shares::of(answers, &rows, &prompts);
    let everyone: Vec<Placed<'_>> = parts.iter().enumerate().collect();
    let suspects: Vec<Placed<'_>> = everyone.iter().copied().filter(|(_, part)| part.role == Role::Suspect).collect();
    if suspects.is_empty() {
        return Err(ControlsError::Nobody { what: "no model has the role `suspect`".to_owned() });
    }
    let cases = suspects.iter().map(|suspect| Case::of(&shares, &everyone, *suspect, accused));
    let mut findings = cases.map(|case| Ok(case?.finding())).collect::<Result<Vec<_>, ControlsError>>()?;
    report::conclude(&mut findings, accused);
    Ok(StyleReport::of(accused, prompts.len(), parts, answers.repeated(), findings))
}

impl Answers {
    /// Arcsine of the root of the share of answers that hold each word common with any of `models`: a row for each of
    /// them that has answers. It is what a pooled-profile classifier, a baseline, starts from.
    pub fn profiles(&self, models: &[&str]) -> Vec<Vec<f64>> {
        let rows: Vec<usize> = models.iter().filter_map(|model| self.row(model)).collect();
        let shares = Shares::of(self, &rows, &self.shared(&rows));
        (0..rows.len()).map(|row| shares.row(row).iter().map(|share| share.sqrt().asin()).collect()).collect()
    }
}

/// A part with its row.
type Placed<'parts> = (usize, &'parts Part);

/// One suspect and those it is compared with: nobody of its own family.
struct Case<'a> {
    shares: &'a Shares,
    suspect: Placed<'a>,
    others: Vec<Placed<'a>>,
    accused: &'a str,
}

impl<'a> Case<'a> {
    fn of(
        shares: &'a Shares,
        everyone: &[Placed<'a>],
        suspect: Placed<'a>,
        accused: &'a str,
    ) -> Result<Self, ControlsError> {
        let apart = |(_, part): &Placed<'_>| part.role != Role::Suspect && part.family != suspect.1.family;
        let case = Self { shares, suspect, accused, others: everyone.iter().copied().filter(apart).collect() };
        let of_suspect =
            format!("for the suspect `{}`, whose own family `{}` is left out", suspect.1.model, suspect.1.family);
        if case.teachers().next().is_none() {
            return Err(ControlsError::Nobody {
                what: format!("no model has the role `teacher` in the family `{accused}` {of_suspect}"),
            });
        }
        if case.controls().next().is_none() {
            return Err(ControlsError::Nobody { what: format!("no model has the role `control` {of_suspect}") });
        }
        Ok(case)
    }

    fn teachers(&self) -> impl Iterator<Item = Placed<'a>> {
        self.others.iter().copied().filter(|(_, part)| part.role == Role::Teacher && part.family == self.accused)
    }

    fn controls(&self) -> impl Iterator<Item = Placed<'a>> {
        self.others.iter().copied().filter(|(_, part)| part.role == Role::Control && part.family != self.accused)
    }

    fn finding(&self) -> Finding {
        let nearest = self.closeness();
        let controls = self.controls().map(|control| ControlScore::of(control.1, self.score(control)));
        Finding::of(self.suspect.1, Among::of(self.score(self.suspect), controls.collect()), nearest)
    }

    /// The space in which `one` is looked at. All others are in its reference, the suspect too where a control is looked
    /// at, so that suspect and controls are treated alike: changing their places changes the scores' places only, and
    /// that is what makes the rank's p-value exact.
    fn space(&self, one: Placed<'_>) -> Space<'a> {
        let everyone = self.others.iter().copied().chain([self.suspect]);
        let apart: Vec<Placed<'_>> = everyone.filter(|(_, part)| part.family != one.1.family).collect();
        let weights = weights(&apart.iter().map(|(_, part)| *part).collect::<Vec<_>>());
        let reference: Vec<_> = apart.iter().map(|(row, _)| *row).zip(weights).collect();
        Space::of(self.shares, &reference)
    }

    /// The cosine with the nearest teacher of the accused family, to nine decimals.
    fn score(&self, one: Placed<'_>) -> f64 {
        let space = self.space(one);
        let point = space.point(one.0);
        let likeness = |(row, _): Placed<'_>| rounded(dot(&point, &space.point(row)));
        self.teachers().map(likeness).fold(-1.0, f64::max)
    }

    /// The nearest model of each candidate family, the nearest family first.
    fn closeness(&self) -> Vec<Closeness> {
        let space = self.space(self.suspect);
        let point = space.point(self.suspect.0);
        let mut found: Vec<Closeness> = Vec::new();
        for (row, part) in &self.others {
            let score = rounded(dot(&point, &space.point(*row)));
            let closeness = Closeness { family: part.family.clone(), model: part.model.clone(), score };
            match found.iter_mut().find(|best| best.family == part.family) {
                Some(best) if best.score >= score => {}
                Some(best) => *best = closeness,
                None => found.push(closeness),
            }
        }
        found.sort_by(|one, other| other.score.total_cmp(&one.score));
        found
    }
}
