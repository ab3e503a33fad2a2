use serde::{Deserialize, Serialize};

use crate::controls::{Among, Part, Role, adjust};
use crate::{Fixed, Kind, Strength};

/// The version of the report's form.
const FORMAT: u32 = 1;

/// What the comparison of styles found, with every score that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StyleReport {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The signed plan that fixed all of this before any answer was looked at; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Fixed>,
    /// The family whose answers the suspects are asked about.
    pub accused: String,
    /// Prompts that every model answered.
    pub prompts: usize,
    /// Answers left out, since the model had answered the prompt before.
    pub repeated: u64,
    /// Who was given as what.
    pub parts: Vec<Part>,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// How often it says so of somebody to whom it does not apply: by its construction, and as far as it was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// What is random under it.
    pub random: String,
    /// The score in words.
    pub statistic_in_words: String,
    /// How the p-values and e-values are made.
    pub tests: String,
    /// What was found of each suspect, in the order of the roles.
    pub findings: Vec<Finding>,
    /// What else could explain it.
    pub rival_explanations: Vec<String>,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

/// One suspect among the controls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which model.
    pub suspect: String,
    /// Its family, of which no model was used.
    pub family: String,
    /// The nearest model of every candidate family, the nearest family first.
    pub closeness: Vec<Closeness>,
    /// Its score among the controls': the cosine with the nearest teacher of the accused family, from -1 to 1.
    #[serde(flatten)]
    pub among: Among,
    /// The same among the controls that have the suspect's base; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
    /// E-value of the larger p-value, `1 / (2 sqrt p)`, at most the number of controls. Evidence that rests on controls:
    /// not to be multiplied with exact evidence.
    pub e_model: f64,
    /// What it shows.
    pub verdict: StyleVerdict,
}

/// The nearest model of one candidate family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Closeness {
    /// Which family.
    pub family: String,
    /// Its nearest model.
    pub model: String,
    /// Cosine with it.
    pub score: f64,
}

/// The suspect among controls of its own base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matched {
    /// The base.
    pub base: String,
    /// How many controls have it.
    pub controls: usize,
    /// Conformal p-value.
    pub p: f64,
    /// The least that it can be.
    pub floor: f64,
}

/// What style shows: at most *moderate*.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StyleVerdict {
    /// *Moderate* or *not shown*.
    pub strength: Strength,
    /// The family whose style it has, or one that is like it; absent where that is left open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributed: Option<String>,
    /// One or two sentences.
    pub sentence: String,
}

/// Holm's adjustment over the suspects, and what is shown of each.
pub(super) fn conclude(findings: &mut [Finding], accused: &str) {
    adjust(findings.iter_mut().map(|finding| &mut finding.among));
    let suspects = findings.len();
    for finding in findings {
        finding.e_model = finding.among.e_model();
        finding.verdict = finding.verdict(accused, suspects);
    }
}

impl Finding {
    pub(super) fn of(suspect: &Part, among: Among, closeness: Vec<Closeness>) -> Self {
        Self {
            suspect: suspect.model.clone(),
            family: suspect.family.clone(),
            closeness,
            matched: suspect.base.as_ref().and_then(|base| matched(&among, base)),
            among,
            e_model: 0.0,
            verdict: StyleVerdict { strength: Strength::NotShown, attributed: None, sentence: String::new() },
        }
    }

    fn verdict(&self, accused: &str, suspects: usize) -> StyleVerdict {
        let nearest = self.closeness.first().map_or("", |closeness| &closeness.family);
        let shown = self.among.is_shown() && nearest == accused;
        let suspect = &self.suspect;
        let because = self.among.too_few(suspects).unwrap_or_else(|| match nearest {
            family if family != accused => format!(" It is nearer to {family}."),
            _ => String::new(),
        });
        if shown {
            let sentence = format!(
                "There is moderate evidence that {suspect} was trained on answers of {accused}, or of a model of the same style."
            );
            return StyleVerdict { strength: Strength::Moderate, attributed: Some(accused.to_owned()), sentence };
        }
        let sentence = format!(
            "It is not shown that {suspect} was trained on answers of {accused}. That does not show the contrary.{because}"
        );
        StyleVerdict { strength: Strength::NotShown, attributed: None, sentence }
    }
}

fn matched(among: &Among, base: &str) -> Option<Matched> {
    let (controls, p, floor) = among.of_base(base);
    (controls > 0).then(|| Matched { base: base.to_owned(), controls, p, floor })
}

impl StyleReport {
    pub(crate) fn of(accused: &str, prompts: usize, parts: &[Part], repeated: u64, findings: Vec<Finding>) -> Self {
        Self {
            format: FORMAT,
            software: concat!("anbiq ", env!("CARGO_PKG_VERSION")).to_owned(),
            plan: None,
            accused: accused.to_owned(),
            prompts,
            repeated,
            parts: parts.to_vec(),
            null_hypothesis: NULL_HYPOTHESIS.to_owned(),
            error_rate: Kind::Style.error_rate().to_owned(),
            random: RANDOM.to_owned(),
            statistic_in_words: STATISTIC.to_owned(),
            tests: TESTS.to_owned(),
            findings,
            rival_explanations: RIVAL_EXPLANATIONS.map(str::to_owned).to_vec(),
            does_not_show: DOES_NOT_SHOW.map(str::to_owned).to_vec(),
        }
    }

    /// The strongest that is shown of a suspect.
    pub fn strength(&self) -> Strength {
        self.findings.iter().map(|finding| finding.verdict.strength).max().unwrap_or(Strength::NotShown)
    }

    /// All that follows from the scores of suspects and controls, computed again.
    pub(crate) fn again(&self) -> Self {
        let finding = |then: &Finding| {
            let base = then.matched.as_ref().map(|matched| matched.base.clone());
            let alone = Part { model: then.suspect.clone(), role: Role::Suspect, family: then.family.clone(), base };
            let part = self.parts.iter().find(|part| part.model == then.suspect).unwrap_or(&alone);
            Finding::of(part, Among::of(then.among.score, then.among.controls.clone()), then.closeness.clone())
        };
        let mut findings: Vec<Finding> = self.findings.iter().map(finding).collect();
        conclude(&mut findings, &self.accused);
        // Words may change with the software; numbers may not.
        for (again, then) in findings.iter_mut().zip(&self.findings) {
            again.verdict.sentence.clone_from(&then.verdict.sentence);
        }
        Self { findings, ..self.clone() }
    }

    /// The controls that were given.
    pub fn controls(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.role == Role::Control)
    }
}

const NULL_HYPOTHESIS: &str = "The suspect was not trained on answers of the accused family, and is exchangeable with the controls: as \
    a draw from the same population of models (and, for the p-value over families, its family from the same population of families).";

const RANDOM: &str = "Which models were built and taken as controls. The prompts and answers are taken as given: more prompts do not make \
    more evidence. Nobody drew the controls at random, so exchangeability is an assumption, and this evidence is never added to the exact one.";

const STATISTIC: &str = "For each model, the share of its answers (first 300 words) that hold each common word; arcsine of the root; centred on \
    the other models, every family weighing the same; directions in which models differ most damped; cosine with the nearest teacher of the \
    accused family. No model of the looked-at model's own family is in the reference.";

const TESTS: &str = "Conformal p-value: the rank of the suspect's score among the controls', ties against the suspicion, over models and over families \
    of models; the larger one decides, after Holm's adjustment over the suspects. Moderate, the most that style can show, is p at most 0.05 while no \
    other candidate family is nearer.";

const RIVAL_EXPLANATIONS: [&str; 5] = [
    "A common third teacher: suspect and accused may both have learnt from the same other model.",
    "Convergent style: assistants that were trained for the same taste grow alike without seeing each other's answers.",
    "Shared public sets: conversations and instruction sets on the web hold answers of many vendors' models.",
    "A teacher that is not among the candidates, or a parent model that was trained on such answers before.",
    "Licensed use: the answers may have been taken with permission.",
];

const DOES_NOT_SHOW: [&str; 3] = [
    "Who asked for the answers, through which accounts, or under which terms.",
    "That a suspect that is not shown to be a student is none.",
    "That the controls are what their documents say; a control that is a secret student makes the p-value larger, not smaller.",
];
