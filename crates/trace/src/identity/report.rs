use std::fmt::Write;

use anbiq_domain::Seeded;
use serde::{Deserialize, Serialize};

use super::{Answered, bank};
use crate::controls::{Among, ControlScore, ControlsError, Part, Role, adjust, rounded};
use crate::text::{list, p_value};
use crate::{Kind, Strength};

/// The version of the report's form.
const FORMAT: u32 = 1;
/// Share of the bank that a model must have answered.
const ANSWERED: f64 = 0.8;
/// Draws of clusters with replacement for an interval.
const DRAWS: usize = 2_000;

/// What a suspect takes itself for, among controls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdentityFinding {
    /// The model in question.
    pub suspect: String,
    /// Its family: controls of it are left out.
    pub family: String,
    /// 95 % interval of its score by drawing clusters with replacement: how it would vary with other questions.
    pub interval: (f64, f64),
    /// The share by language.
    pub by_language: Vec<(String, f64)>,
    /// Its score among the controls': the share of answers that name what is looked for, as a mean over clusters.
    #[serde(flatten)]
    pub among: Among,
    /// *Moderate* at most.
    pub strength: Strength,
    /// One sentence.
    pub sentence: String,
}

/// What models take themselves for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdentityReport {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The words that were looked for.
    pub names: Vec<String>,
    /// Questions of the bank.
    pub questions: usize,
    /// The suspects.
    pub findings: Vec<IdentityFinding>,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// How often it says so of somebody to whom it does not apply: by its construction, and as far as it was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// What is random under it.
    pub random: String,
    /// How the p-values are made.
    pub tests: String,
    /// What else could explain it.
    pub rival_explanations: Vec<String>,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

/// Compares every suspect of `parts` with the controls. Teachers play no part: they name themselves.
///
/// # Errors
///
/// There is no suspect or no control of another family, or a model answered too little of the bank.
pub fn compare(answered: &Answered, parts: &[Part]) -> Result<IdentityReport, ControlsError> {
    let questions = bank().len();
    let needed = (ANSWERED * questions as f64).ceil() as usize;
    for part in parts.iter().filter(|part| part.role != Role::Teacher) {
        let found = answered.count(&part.model);
        if found == 0 {
            return Err(ControlsError::NoAnswers { model: part.model.clone() });
        }
        if found < needed {
            return Err(ControlsError::TooFewPrompts { found, needed });
        }
    }
    let suspects = parts.iter().filter(|part| part.role == Role::Suspect);
    let mut findings =
        suspects.map(|suspect| finding(answered, suspect, parts)).collect::<Result<Vec<_>, ControlsError>>()?;
    if findings.is_empty() {
        return Err(ControlsError::Nobody { what: "no model has the role `suspect`".to_owned() });
    }
    conclude(&mut findings);
    Ok(IdentityReport {
        format: FORMAT,
        software: crate::plan::SOFTWARE.to_owned(),
        names: answered.names.clone(),
        questions,
        findings,
        null_hypothesis: NULL_HYPOTHESIS.to_owned(),
        error_rate: Kind::Identity.error_rate().to_owned(),
        random: RANDOM.to_owned(),
        tests: TESTS.to_owned(),
        rival_explanations: RIVAL_EXPLANATIONS.map(str::to_owned).to_vec(),
        does_not_show: DOES_NOT_SHOW.map(str::to_owned).to_vec(),
    })
}

/// Holm's adjustment over the suspects, and what is shown of each.
fn conclude(findings: &mut [IdentityFinding]) {
    adjust(findings.iter_mut().map(|finding| &mut finding.among));
    let suspects = findings.len();
    findings.iter_mut().for_each(|finding| finding.conclude(suspects));
}

impl IdentityReport {
    /// The strongest that is shown of a suspect.
    pub fn strength(&self) -> Strength {
        self.findings.iter().map(|finding| finding.strength).max().unwrap_or(Strength::NotShown)
    }

    /// All that follows from the scores of suspects and controls, computed again.
    pub(crate) fn again(&self) -> Self {
        let finding = |finding: &IdentityFinding| {
            let among = Among::of(finding.among.score, finding.among.controls.clone());
            IdentityFinding { among, ..finding.clone() }
        };
        let mut findings: Vec<IdentityFinding> = self.findings.iter().map(finding).collect();
        conclude(&mut findings);
        // Words may change with the software; numbers may not.
        for (again, then) in findings.iter_mut().zip(&self.findings) {
            again.sentence.clone_from(&then.sentence);
        }
        Self { findings, ..self.clone() }
    }
}

fn finding(answered: &Answered, suspect: &Part, parts: &[Part]) -> Result<IdentityFinding, ControlsError> {
    let clusters = answered.clusters(&suspect.model);
    let score = rounded(mean(&clusters));
    let control = |part: &Part| ControlScore::of(part, rounded(mean(&answered.clusters(&part.model))));
    let apart = |part: &&Part| part.role == Role::Control && part.family != suspect.family;
    let controls: Vec<ControlScore> = parts.iter().filter(apart).map(control).collect();
    if controls.is_empty() {
        let what = format!("no model of another family than that of `{}` has the role `control`", suspect.model);
        return Err(ControlsError::Nobody { what });
    }
    let by_language = answered.shares(&suspect.model, |question| question.language);
    Ok(IdentityFinding {
        suspect: suspect.model.clone(),
        family: suspect.family.clone(),
        interval: interval(&clusters),
        by_language: by_language.into_iter().map(|(language, share)| (language.to_owned(), rounded(share))).collect(),
        among: Among::of(score, controls),
        strength: Strength::NotShown,
        sentence: String::new(),
    })
}

impl IdentityFinding {
    fn conclude(&mut self, suspects: usize) {
        let shown = self.among.is_shown();
        self.strength = if shown { Strength::Moderate } else { Strength::NotShown };
        let suspect = &self.suspect;
        self.sentence = match shown {
            true => format!(
                "There is moderate evidence that {suspect} was exposed to answers in which a model goes by these names."
            ),
            false => format!(
                "It is not shown that {suspect} goes by these names more than its controls do. That does not show the contrary.{}",
                self.among.too_few(suspects).unwrap_or_default()
            ),
        };
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The 2.5 and 97.5 % points of the mean over clusters that are drawn with replacement.
fn interval(clusters: &[f64]) -> (f64, f64) {
    if clusters.is_empty() {
        return (0.0, 1.0);
    }
    let mut random = Seeded::new(1).fork("clusters");
    let mut draw = || {
        let sum: f64 = (0..clusters.len()).map(|_| clusters[random.below(clusters.len())]).sum();
        sum / clusters.len() as f64
    };
    let mut means: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
    means.sort_by(f64::total_cmp);
    (rounded(means[DRAWS / 40]), rounded(means[DRAWS - 1 - DRAWS / 40]))
}

const NULL_HYPOTHESIS: &str =
    "The suspect and the controls are exchangeable in how often they go by the names that are looked for.";

const RANDOM: &str = "The draw of the models, and of their families. The questions are fixed and the same for all; their number makes no \
    p-value smaller.";

const TESTS: &str = "Share of answers that hold one of the names, as a mean over clusters of questions that ask the same in different \
    languages. Conformal p-value over models and over families of controls; the larger one counts, with Holm's adjustment over the suspects. \
    The interval of the share draws clusters with replacement and is no part of the test.";

const RIVAL_EXPLANATIONS: [&str; 3] = [
    "The web: pages in which a well-known model names itself are in everybody's training data, and more so in later ones.",
    "A public data set of that model's answers that was used under its licence.",
    "A system prompt of the endpoint, or one that was taken off for the controls only.",
];

const DOES_NOT_SHOW: [&str; 3] = [
    "Distillation through the teacher's API: it shows exposure to texts at most.",
    "That a name is claimed: an answer that denies it holds it too, for suspects as for controls.",
    "Innocence: names are filtered out easily.",
];

/// The report for a person at a terminal.
pub fn render_identity(report: &IdentityReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &IdentityReport) -> std::fmt::Result {
    writeln!(text, "Who names itself {}, in {} questions", report.names.join(", "), report.questions)?;
    for finding in &report.findings {
        writeln!(text)?;
        writeln!(text, "{}: {}", finding.suspect, finding.strength.in_words().to_uppercase())?;
        writeln!(text, "  {}", finding.sentence)?;
        let (low, high) = finding.interval;
        writeln!(
            text,
            "  names them in {:.3} of its answers ({low:.3} - {high:.3} over clusters)",
            finding.among.score
        )?;
        let languages: Vec<String> =
            finding.by_language.iter().map(|(language, share)| format!("{language} {share:.2}")).collect();
        writeln!(text, "  by language: {}", languages.join(", "))?;
        if let Some(control) = finding.among.controls.first() {
            writeln!(
                text,
                "  of {} controls most: {} {:.3}",
                finding.among.controls.len(),
                control.model,
                control.score
            )?;
        }
        writeln!(
            text,
            "  p over models {}, over {} families {} (least possible {}), adjusted {}",
            p_value(finding.among.p_models),
            finding.among.by_family.families,
            p_value(finding.among.by_family.p),
            p_value(finding.among.by_family.floor),
            p_value(finding.among.p_holm)
        )?;
    }
    writeln!(text)?;
    writeln!(text, "Null hypothesis: {}", report.null_hypothesis)?;
    writeln!(text, "Error rate: {}", report.error_rate)?;
    writeln!(text, "What is random in it: {}", report.random)?;
    writeln!(text, "Tests: {}", report.tests)?;
    list(text, "What else could explain it", &report.rival_explanations)?;
    list(text, "What it does not show", &report.does_not_show)
}
