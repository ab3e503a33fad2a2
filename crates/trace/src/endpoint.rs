//! Is a server the model that it is said to be? Before anything that it answers counts.
//!
//! A reference (the model's own folder, or a server that is known to be it) and the endpoint are asked the same, and their
//! answers are compared as samples: nothing is assumed of either model. The tests can show that the two differ. That they do
//! not show it is no proof that they are the same, so the report says how much was compared.

use std::fmt::Write;
use std::time::Duration;

use anbiq_domain::{Prompt, Seeded};
use anbiq_model::{Fault, Model, ModelError, Request, Sampling, collect};
use anbiq_statistics::two_samples::{Answers, SourceBets, mmd};
use serde::{Deserialize, Serialize};

use crate::text::{list, p_value};
use crate::{Kind, Strength, TraceError};

/// The version of the report's form.
const FORMAT: u32 = 1;

/// How to compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Comparison {
    /// Answers of either to each prompt.
    pub answers: u32,
    /// Longest answer, in tokens.
    pub tokens: u32,
    /// Letters of an answer that are compared.
    pub letters: usize,
    /// Permutations of the test of whole answers.
    pub permutations: usize,
    /// Most steps of the test of short answers, each with one answer of either; 0 for none.
    pub steps: u32,
    /// Fixes the permutations and, where a model follows it, the draws.
    pub seed: u64,
    /// Longest wait for an answer, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Comparison {
    fn default() -> Self {
        Self { answers: 10, tokens: 50, letters: 200, permutations: 9_999, steps: 400, seed: 1, timeout_ms: 120_000 }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The endpoint in question.
    pub endpoint: String,
    /// What it is said to be.
    pub reference: String,
    /// How they were compared.
    pub comparison: Comparison,
    /// Prompts of whole answers.
    pub prompts: usize,
    /// The squared maximum mean discrepancy, added up over the prompts.
    pub discrepancy: f64,
    /// Its permutation p-value.
    pub p_permutation: f64,
    /// Steps of the test of short answers until it ended.
    pub steps: u32,
    /// Decimal logarithm of its largest e-value.
    pub log10_e: f64,
    /// Twice the smaller of the two p-values.
    pub p_value: f64,
    /// How strongly it is shown that they differ.
    pub differ: Strength,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// How often it says so of somebody to whom it does not apply: by its construction, and as far as it was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// What is random under it.
    pub random: String,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

/// Prompts whose short answers tell models apart: each leaves a free choice.
pub const SHORT: [&str; 4] = [
    "Name a random number from 1 to 100. Answer with the number alone.",
    "Name a colour. Answer with one word.",
    "Name a first name. Answer with one word.",
    "Name a fruit. Answer with one word.",
];

/// Asks both and compares. Their answers come in turn, so that what changes with time changes for both.
///
/// # Errors
///
/// A model does not answer.
pub async fn compare(
    endpoint: &dyn Model,
    reference: &dyn Model,
    prompts: &[Prompt],
    comparison: &Comparison,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Endpoint, TraceError> {
    let total = prompts.len() as u64 + u64::from(comparison.steps);
    let mut done = 0;
    let mut asked = Vec::new();
    for (place, prompt) in (0_u64..).zip(prompts) {
        let mut both = Vec::new();
        for (number, model) in (0_u64..).zip([endpoint, reference]) {
            let seed = comparison.seed << 32 | place << 1 | number;
            let texts = ask(model, prompt, comparison.answers, comparison.tokens, seed, comparison).await?;
            both.push(
                texts.iter().map(|text| text.chars().take(comparison.letters).collect()).collect::<Vec<Vec<char>>>(),
            );
        }
        let (other, one) = (both.pop().unwrap_or_default(), both.pop().unwrap_or_default());
        asked.push(Answers { one, other });
        done += 1;
        progress(done, total);
    }
    let mut random = Seeded::new(comparison.seed).fork("permutations");
    let (discrepancy, p_permutation) = match asked.is_empty() {
        true => (0.0, 1.0),
        false => mmd(&asked, comparison.letters, comparison.permutations, &mut random),
    };
    let (mut bets, mut steps) = (SourceBets::default(), 0);
    // Six decimal digits are established; betting on would cost answers for nothing.
    while steps < comparison.steps && bets.ln_largest() < 1e6_f64.ln() {
        let number = steps % SHORT.len() as u32;
        let prompt = Prompt::user(SHORT[number as usize]);
        let seed = comparison.seed << 32 | u64::from(steps) << 1 | 1 << 31;
        let one = ask(endpoint, &prompt, 1, 4, seed, comparison).await?;
        let other = ask(reference, &prompt, 1, 4, seed | 1, comparison).await?;
        bets.push(number, one.concat(), other.concat());
        steps += 1;
        progress(done + u64::from(steps), total);
    }
    let log10_e = bets.ln_largest() / std::f64::consts::LN_10;
    let p_value = smaller(p_permutation, log10_e);
    Ok(Endpoint {
        format: FORMAT,
        software: crate::plan::SOFTWARE.to_owned(),
        endpoint: endpoint.name().to_owned(),
        reference: reference.name().to_owned(),
        comparison: comparison.clone(),
        prompts: prompts.len(),
        discrepancy,
        p_permutation,
        steps,
        log10_e,
        p_value,
        differ: Strength::of_p_value(p_value),
        null_hypothesis: NULL_HYPOTHESIS.to_owned(),
        error_rate: Kind::Endpoint.error_rate().to_owned(),
        random: RANDOM.to_owned(),
        does_not_show: DOES_NOT_SHOW.map(str::to_owned).to_vec(),
    })
}

/// Twice the smaller of the two p-values.
fn smaller(p_permutation: f64, log10_e: f64) -> f64 {
    (2.0 * p_permutation.min(10_f64.powf(-log10_e))).min(1.0)
}

impl Endpoint {
    /// All that follows from the two statistics, computed again.
    pub(crate) fn again(&self) -> Self {
        let p_value = smaller(self.p_permutation, self.log10_e);
        Self { p_value, differ: Strength::of_p_value(p_value), ..self.clone() }
    }
}

async fn ask(
    model: &dyn Model,
    prompt: &Prompt,
    n: u32,
    tokens: u32,
    seed: u64,
    comparison: &Comparison,
) -> Result<Vec<String>, TraceError> {
    let failed = |source| TraceError::Unanswered { model: model.name().to_owned(), source };
    let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
    let request = Request { n, sampling, ..Request::new(prompt.clone(), tokens) };
    let answered = async { collect(model.generate(request).await?, n).await };
    let answered = tokio::time::timeout(Duration::from_millis(comparison.timeout_ms), answered).await;
    let late = |_| ModelError::new(Fault::Model, "answer_timeout", "no answer came in time");
    let (answers, _) = answered.map_err(late).and_then(|answered| answered).map_err(failed)?;
    Ok(answers.into_iter().map(|answer| answer.text).collect())
}

const NULL_HYPOTHESIS: &str =
    "To every prompt, the endpoint and the reference draw their answers from one distribution.";

const RANDOM: &str = "Which of the answers to a prompt came from which of the two. Twice the smaller of two p-values: of the maximum mean \
    discrepancy with the Hamming kernel, labels permuted within prompts; and one over the largest fortune of bets on short answers.";

const DOES_NOT_SHOW: [&str; 3] = [
    "That the two are the same model: few answers do not tell near relatives apart, such as another quantisation.",
    "That the endpoint will be the same model at another time, or to another customer.",
    "What it was trained on: any student differs from its teacher.",
];

/// The report for a person at a terminal.
pub fn render_endpoint(report: &Endpoint) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &Endpoint) -> std::fmt::Result {
    let Comparison { answers, permutations, .. } = report.comparison;
    writeln!(text, "Is {} what {} is?", report.endpoint, report.reference)?;
    let said = match report.differ {
        Strength::NotShown | Strength::Contradicted => {
            "It is not shown that they differ. That does not show that they are the same.".to_owned()
        }
        strength => format!("They differ: {}.", strength.in_words()),
    };
    writeln!(text, "  {said}")?;
    writeln!(
        text,
        "  {} prompts, {answers} answers of either: discrepancy {:.4}, p {} ({permutations} permutations)",
        report.prompts,
        report.discrepancy,
        p_value(report.p_permutation)
    )?;
    writeln!(text, "  {} short answers of either: log10 e {:.2}", report.steps, report.log10_e)?;
    writeln!(text, "Null hypothesis: {}", report.null_hypothesis)?;
    writeln!(text, "Error rate: {}", report.error_rate)?;
    writeln!(text, "What is random in it: {}", report.random)?;
    list(text, "What it does not show", &report.does_not_show)
}
