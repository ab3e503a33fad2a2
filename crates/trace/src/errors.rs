//! Rare answers that a suspect shares with a teacher: those that few others give, and that are wrong where that is known.
//!
//! Right answers are shared by whoever can do the task. A wrong one is one of many, so whoever gives the same wrong answers as a
//! teacher, where others err differently or not at all, may have them from it. As with style the evidence rests on
//! controls: the unit is the model and its family, however many prompts there are, and it is *moderate* at most.
//!
//! A score must treat suspect and controls alike, or its rank among theirs is no p-value. Which answers are *rare* is
//! therefore asked anew for every model that is looked at, among all others that are no teachers, the suspect among them when a
//! control is looked at, and nobody of its own family; every family weighs the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::controls::{Among, ControlScore, ControlsError, Part, Role, adjust, rounded};
use crate::text::{list, p_value};
use crate::{Kind, Strength};

/// The version of the report's form.
const FORMAT: u32 = 1;
/// An answer is rare if families that weigh at most this much of all give it.
const RARE: f64 = 0.1;
/// Answers of more words are no short ones, and two of them are never the same by chance or for a reason that is looked for here.
const WORDS: usize = 12;
/// Fewest rare answers of a teacher, for the suspect, that say anything.
const FEWEST: usize = 20;

/// What models answered to questions with short answers.
#[derive(Debug, Default)]
pub struct Answered {
    prompts: HashMap<String, u32>,
    /// The right answers, where they are known.
    right: HashMap<u32, BTreeSet<String>>,
    models: BTreeMap<String, BTreeMap<u32, String>>,
}

/// What a suspect shares with a teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorsFinding {
    /// The model in question.
    pub suspect: String,
    /// Its family: nobody of it is compared.
    pub family: String,
    /// The model of the accused family whose rare answers it shares most.
    pub teacher: String,
    /// Rare answers of that teacher that the suspect was asked for.
    pub rare: u64,
    /// Those of them that it gives too.
    pub shared: u64,
    /// The share of these among controls, and what it shows.
    #[serde(flatten)]
    pub among: Among,
    /// *Moderate* at most.
    pub strength: Strength,
    /// One sentence.
    pub sentence: String,
}

/// Which rare answers are shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorsReport {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The family whose answers the suspects are asked about.
    pub accused: String,
    /// Questions that somebody answered in few words.
    pub questions: usize,
    /// Those of them of which a right answer is known: only wrong answers count there.
    pub questions_with_right_answer: usize,
    /// The suspects.
    pub findings: Vec<ErrorsFinding>,
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

impl Answered {
    /// Adds an answer. Of several answers of a model to a question the first counts, and long ones do not.
    pub fn add(&mut self, model: &str, prompt: &str, answer: &str) {
        let prompt = self.prompt(prompt);
        let answers = self.models.entry(model.to_owned()).or_default();
        if let Some(answer) = plain(answer) {
            answers.entry(prompt).or_insert(answer);
        }
    }

    /// Adds an answer that is right; there may be several.
    pub fn add_right(&mut self, prompt: &str, answer: &str) {
        let prompt = self.prompt(prompt);
        if let Some(answer) = plain(answer) {
            self.right.entry(prompt).or_default().insert(answer);
        }
    }

    fn prompt(&mut self, prompt: &str) -> u32 {
        let next = self.prompts.len() as u32;
        *self.prompts.entry(prompt.trim().to_owned()).or_insert(next)
    }

    fn is_wrong(&self, prompt: u32, answer: &str) -> bool {
        self.right.get(&prompt).is_none_or(|right| !right.contains(answer))
    }
}

/// Words without case and marks; `None` of a long answer or of none.
fn plain(answer: &str) -> Option<String> {
    let word = |word: &str| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase();
    let words: Vec<String> = answer.split_whitespace().map(word).filter(|word| !word.is_empty()).collect();
    (1..=WORDS).contains(&words.len()).then(|| words.join(" "))
}

/// Of one model: which of a teacher's rare answers it gives.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shared {
    rare: u64,
    shared: u64,
}

impl Shared {
    /// The share, where one more is neither.
    fn score(self) -> f64 {
        rounded(self.shared as f64 / (self.rare as f64 + 1.0))
    }
}

/// Compares every suspect of `parts` with the teachers of the family `accused` and with the controls.
///
/// # Errors
///
/// A role is taken by nobody, a model has no answers, or too few rare answers are there to be shared.
pub fn compare(answered: &Answered, parts: &[Part], accused: &str) -> Result<ErrorsReport, ControlsError> {
    for part in parts {
        if answered.models.get(&part.model).is_none_or(BTreeMap::is_empty) {
            return Err(ControlsError::NoAnswers { model: part.model.clone() });
        }
    }
    let suspects = parts.iter().filter(|part| part.role == Role::Suspect);
    let mut findings = suspects
        .map(|suspect| Case::of(answered, parts, suspect, accused)?.finding())
        .collect::<Result<Vec<_>, ControlsError>>()?;
    if findings.is_empty() {
        return Err(ControlsError::Nobody { what: "no model has the role `suspect`".to_owned() });
    }
    conclude(&mut findings, accused);
    let asked: BTreeSet<u32> = answered.models.values().flat_map(|answers| answers.keys().copied()).collect();
    let questions_with_right_answer = asked.iter().filter(|prompt| answered.right.contains_key(prompt)).count();
    Ok(ErrorsReport {
        format: FORMAT,
        software: crate::plan::SOFTWARE.to_owned(),
        accused: accused.to_owned(),
        questions: asked.len(),
        questions_with_right_answer,
        findings,
        null_hypothesis: NULL_HYPOTHESIS.to_owned(),
        error_rate: Kind::Errors.error_rate().to_owned(),
        random: RANDOM.to_owned(),
        tests: TESTS.to_owned(),
        rival_explanations: RIVAL_EXPLANATIONS.map(str::to_owned).to_vec(),
        does_not_show: DOES_NOT_SHOW.map(str::to_owned).to_vec(),
    })
}

/// One suspect and those it is compared with.
struct Case<'a> {
    answered: &'a Answered,
    suspect: &'a Part,
    teachers: Vec<&'a Part>,
    controls: Vec<&'a Part>,
}

impl<'a> Case<'a> {
    fn of(answered: &'a Answered, parts: &'a [Part], suspect: &'a Part, accused: &str) -> Result<Self, ControlsError> {
        let apart = |part: &&Part| part.family != suspect.family;
        let teachers: Vec<&Part> =
            parts.iter().filter(apart).filter(|part| part.role == Role::Teacher && part.family == accused).collect();
        let controls: Vec<&Part> =
            parts.iter().filter(apart).filter(|part| part.role == Role::Control && part.family != accused).collect();
        let nobody = |role: &str| ControlsError::Nobody {
            what: format!(
                "no model has the role `{role}` for the suspect `{}`, whose own family `{}` is left out",
                suspect.model, suspect.family
            ),
        };
        if teachers.is_empty() {
            return Err(nobody("teacher"));
        }
        if controls.is_empty() {
            return Err(nobody("control"));
        }
        Ok(Self { answered, suspect, teachers, controls })
    }

    fn finding(&self) -> Result<ErrorsFinding, ControlsError> {
        let (teacher, own) = self.most(self.suspect);
        if (own.rare as usize) < FEWEST {
            return Err(ControlsError::TooFewRare { found: own.rare as usize, needed: FEWEST });
        }
        let controls = self.controls.iter().map(|part| ControlScore::of(part, self.most(part).1.score()));
        Ok(ErrorsFinding {
            suspect: self.suspect.model.clone(),
            family: self.suspect.family.clone(),
            teacher: teacher.model.clone(),
            rare: own.rare,
            shared: own.shared,
            among: Among::of(own.score(), controls.collect()),
            strength: Strength::NotShown,
            sentence: String::new(),
        })
    }

    /// The teacher whose rare answers `one` shares most, and how many.
    fn most(&self, one: &Part) -> (&'a Part, Shared) {
        let with = |teacher: &&'a Part| (*teacher, self.shared(one, teacher));
        let mut best = (self.teachers[0], Shared { rare: 0, shared: 0 });
        for (teacher, shared) in self.teachers.iter().map(with) {
            if shared.score() > best.1.score() || best.1.rare == 0 {
                best = (teacher, shared);
            }
        }
        best
    }

    /// Of the answers of `teacher` that are rare among all others than `one`, those that `one` gives.
    fn shared(&self, one: &Part, teacher: &Part) -> Shared {
        let everyone = self.controls.iter().copied().chain([self.suspect]);
        let reference: Vec<&Part> = everyone.filter(|part| part.family != one.family).collect();
        let (own, theirs) = (&self.answered.models[&one.model], &self.answered.models[&teacher.model]);
        let mut found = Shared { rare: 0, shared: 0 };
        for (prompt, answer) in theirs {
            let Some(given) = own.get(prompt) else { continue };
            if self.answered.is_wrong(*prompt, answer) && self.weight(&reference, *prompt, answer) <= RARE {
                found.rare += 1;
                found.shared += u64::from(given == answer);
            }
        }
        found
    }

    /// The share of families of `reference` that give `answer`: of each the share of its models, of those that answered.
    fn weight(&self, reference: &[&Part], prompt: u32, answer: &str) -> f64 {
        let mut families: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for part in reference {
            let Some(given) = self.answered.models[&part.model].get(&prompt) else { continue };
            let (same, all) = families.entry(&part.family).or_default();
            *same += f64::from(u8::from(given == answer));
            *all += 1.0;
        }
        if families.is_empty() {
            return 1.0;
        }
        families.values().map(|(same, all)| same / all).sum::<f64>() / families.len() as f64
    }
}

fn conclude(findings: &mut [ErrorsFinding], accused: &str) {
    adjust(findings.iter_mut().map(|finding| &mut finding.among));
    let hypotheses = findings.len();
    for finding in findings {
        let shown = finding.among.is_shown();
        finding.strength = if shown { Strength::Moderate } else { Strength::NotShown };
        let suspect = &finding.suspect;
        finding.sentence = match shown {
            true => format!(
                "There is moderate evidence that {suspect} has rare answers from {accused}, or from where {accused} has them."
            ),
            false => format!(
                "It is not shown that {suspect} shares more rare answers with {accused} than its controls do. That does not show the contrary.{}",
                finding.among.too_few(hypotheses).unwrap_or_default()
            ),
        };
    }
}

impl ErrorsReport {
    /// The strongest that is shown of a suspect.
    pub fn strength(&self) -> Strength {
        self.findings.iter().map(|finding| finding.strength).max().unwrap_or(Strength::NotShown)
    }

    /// All that follows from the counts of suspects and the scores of controls, computed again.
    pub(crate) fn again(&self) -> Self {
        let finding = |finding: &ErrorsFinding| {
            let own = Shared { rare: finding.rare, shared: finding.shared };
            let among = Among::of(own.score(), finding.among.controls.clone());
            ErrorsFinding { among, ..finding.clone() }
        };
        let mut findings: Vec<ErrorsFinding> = self.findings.iter().map(finding).collect();
        conclude(&mut findings, &self.accused);
        // Words may change with the software; numbers may not.
        for (again, then) in findings.iter_mut().zip(&self.findings) {
            again.sentence.clone_from(&then.sentence);
        }
        Self { findings, ..self.clone() }
    }
}

const NULL_HYPOTHESIS: &str = "The suspect and the controls are exchangeable in how many of the teacher's rare answers they give: as draws from the \
    same population of models (and, for the p-value over families, their families from the same population of families).";

const RANDOM: &str = "Which models were built and taken as controls. Questions and answers are taken as given: more questions do not make more \
    evidence. Nobody drew the controls at random, so exchangeability is an assumption, and this evidence is never added to the exact one.";

const TESTS: &str = "An answer of a teacher is rare for a model that is looked at if families that weigh at most one tenth of all others' give it, every \
    family weighing the same, and where a right answer is known it must be wrong. The score is the share of these answers that the model gives too, with the \
    nearest teacher of the accused family. Conformal p-value over models and over families of controls; the larger one counts, with Holm's \
    adjustment over the suspects.";

const RIVAL_EXPLANATIONS: [&str; 4] = [
    "A common source: a data set or a page with the same mistakes was read by both.",
    "A common ancestor: suspect and teacher were made from one base, which errs so; choose controls of that base.",
    "A common third teacher.",
    "Licensed use: the answers may have been taken with permission.",
];

const DOES_NOT_SHOW: [&str; 3] = [
    "Who asked for the answers, through which accounts, or under which terms.",
    "The direction: the teacher may have its errors from the suspect.",
    "Innocence: a student that was corrected since, or asked otherwise, shares few errors.",
];

/// The report for a person at a terminal.
pub fn render_errors(report: &ErrorsReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &ErrorsReport) -> std::fmt::Result {
    writeln!(
        text,
        "Rare answers shared with {}: {} questions, of {} of which a right answer is known",
        report.accused, report.questions, report.questions_with_right_answer
    )?;
    for finding in &report.findings {
        writeln!(text)?;
        writeln!(text, "{}: {}", finding.suspect, finding.strength.in_words().to_uppercase())?;
        writeln!(text, "  {}", finding.sentence)?;
        let ErrorsFinding { rare, shared, teacher, among, .. } = finding;
        writeln!(text, "  gives {shared} of {rare} rare answers of {teacher}; highest of the controls:")?;
        for control in among.controls.iter().take(5) {
            writeln!(text, "    {:>6.3}  {} ({})", control.score, control.model, control.family)?;
        }
        writeln!(
            text,
            "  p over models {}, over {} families {} (least possible {}), adjusted {}",
            p_value(among.p_models),
            among.by_family.families,
            p_value(among.by_family.p),
            p_value(among.by_family.floor),
            p_value(among.p_holm)
        )?;
    }
    writeln!(text)?;
    writeln!(text, "This evidence rests on controls. It is at most moderate, and is never added to exact evidence.")?;
    writeln!(text, "Null hypothesis: {}", report.null_hypothesis)?;
    writeln!(text, "Error rate: {}", report.error_rate)?;
    writeln!(text, "What is random in it: {}", report.random)?;
    writeln!(text, "Tests: {}", report.tests)?;
    list(text, "What else could explain it", &report.rival_explanations)?;
    list(text, "What it does not show", &report.does_not_show)
}
