//! Was a model trained on answers that carry the teacher's watermark?
//!
//! Marks in the choice of tokens are learnt with the language (Sander et al. 2024), so what a student says, or finds likely
//! while it reads, fits the teacher's key. The evidence is exact as that of twins is: random is only the key, which the
//! teacher's operator drew and committed to. It needs no journal of the single answers. It is another randomness than the
//! coins', and a report of its own.

use std::fmt::Write;

use anbiq_domain::Digest;
use anbiq_statistics::holm;
use anbiq_watermark::{Detection, Lean, Mark, Read, Scheme};
use serde::{Deserialize, Serialize};

use crate::text::{list, p_value};
use crate::{Kind, Strength};

/// The version of the report's form.
const FORMAT: u32 = 1;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Texts that the models wrote, in answer to prompts without marked text.
    Closed,
    /// What a model finds likely while it reads unmarked text.
    ReadingUnmarked,
    /// What a model finds likeliest while it reads marked text.
    ReadingMarked,
}

/// How one model fits the key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Which model.
    pub model: String,
    /// Texts that it wrote or read.
    pub texts: u64,
    /// What it wrote, or found likeliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection: Option<Detection>,
    /// What it found likeliest in marked text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Read>,
    /// How it leans beside the unmarked teacher while it reads unmarked text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lean: Option<Lean>,
    /// The p-value of all of these: the smallest, times their number.
    pub p_value: f64,
    /// After Holm's adjustment over the models.
    pub p_holm: f64,
    /// What it shows.
    pub strength: Strength,
}

/// What the key shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Radioactivity {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The watermark's commitment: it must have been with somebody else before any suspect was there.
    pub commitment: Digest,
    /// Was it compared with a commitment that came from elsewhere?
    pub commitment_checked: bool,
    /// The scheme.
    pub scheme: Scheme,
    /// Tokens before a token that its value depends on.
    pub window: usize,
    /// What was looked at.
    pub mode: Mode,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// How often it says so of somebody to whom it does not apply: by its construction, and as far as it was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// What is random under it.
    pub random: String,
    /// How the p-values are made.
    pub tests: String,
    /// The models, in the order in which they were given.
    pub models: Vec<Fit>,
    /// What else could explain it.
    pub rival_explanations: Vec<String>,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

impl Fit {
    /// Of a model and whatever was found of it.
    pub fn of(
        model: impl Into<String>,
        texts: u64,
        detection: Option<Detection>,
        read: Option<Read>,
        lean: Option<Lean>,
    ) -> Self {
        let found =
            [detection.map(|found| found.p_value), read.map(|read| read.p_value), lean.map(|lean| lean.p_bound)];
        let found: Vec<f64> = found.into_iter().flatten().collect();
        let smallest = found.iter().copied().fold(1.0, f64::min);
        let p_value = (smallest * found.len() as f64).min(1.0);
        let strength = Strength::of_p_value(p_value);
        Self { model: model.into(), texts, detection, read, lean, p_value, p_holm: p_value, strength }
    }
}

impl Radioactivity {
    /// The report on `models` under `mark`.
    pub fn of(mark: &Mark, commitment_checked: bool, mode: Mode, mut models: Vec<Fit>) -> Self {
        adjust(&mut models);
        let tests = match mode {
            Mode::Closed => CLOSED,
            Mode::ReadingUnmarked => UNMARKED,
            Mode::ReadingMarked => MARKED,
        };
        Self {
            format: FORMAT,
            software: crate::plan::SOFTWARE.to_owned(),
            commitment: mark.commitment(),
            commitment_checked,
            scheme: mark.scheme(),
            window: mark.window(),
            mode,
            null_hypothesis: NULL_HYPOTHESIS.to_owned(),
            error_rate: Kind::Watermark.error_rate().to_owned(),
            random: RANDOM.to_owned(),
            tests: tests.to_owned(),
            models,
            rival_explanations: RIVAL_EXPLANATIONS.map(str::to_owned).to_vec(),
            does_not_show: DOES_NOT_SHOW.map(str::to_owned).to_vec(),
        }
    }

    /// The strongest that is shown of a model.
    pub fn strength(&self) -> Strength {
        self.models.iter().map(|fit| fit.strength).max().unwrap_or(Strength::NotShown)
    }

    /// All that follows from the statistics of each model, computed again.
    pub(crate) fn again(&self) -> Self {
        let detect = |found: &Detection| Detection::of(self.scheme, found.pairs, found.repeated, found.statistic);
        let fit =
            |fit: &Fit| Fit::of(fit.model.clone(), fit.texts, fit.detection.as_ref().map(detect), fit.read, fit.lean);
        let mut models: Vec<Fit> = self.models.iter().map(fit).collect();
        adjust(&mut models);
        Self { models, ..self.clone() }
    }
}

/// Holm's adjustment over the models.
fn adjust(models: &mut [Fit]) {
    let p_values: Vec<f64> = models.iter().map(|fit| fit.p_value).collect();
    for (fit, adjusted) in models.iter_mut().zip(holm::adjust(&p_values)) {
        fit.p_holm = adjusted;
        fit.strength = Strength::of_p_value(adjusted);
    }
}

const NULL_HYPOTHESIS: &str = "The model is independent of the watermark's key: neither it nor any model that it learnt from was trained \
    on text that was marked under it.";

const RANDOM: &str = "The key alone, which was drawn and committed to before. The model, the texts and the prompts are taken as given. The \
    keyed function (SipHash-2-4 under a key made by HMAC-SHA-256) is taken for a random one.";

const CLOSED: &str = "Each pair of window and token counts once over all texts of a model. Exact tail: of Gamma(2n, 1) for the sum of \
    -ln(1 - r) over both keys, of Binomial(n, share) for green tokens. Holm's adjustment over the models. The prompts must not hold marked text.";

const UNMARKED: &str = "The exact tail for what the model finds likeliest at each place, each pair of window and token once; and, where the \
    teacher's weights are there, how the model leans: over all pairs of window and token the key's value, weighed by how much more \
    probable the token is to the model than to the unmarked teacher, with an upper bound of the tail (Chernoff 1952). The smaller \
    p-value counts, times the number of tests. The texts must not be marked.";

const MARKED: &str = "A bet on what the model finds likeliest at each place whose window was met in no text before, prompts included; p is one over \
    the largest fortune. Texts are in the order in which they were served.";

const RIVAL_EXPLANATIONS: [&str; 4] = [
    "Reposting: marked answers were published or passed on, and the model was trained on that copy.",
    "A common third model: the model learnt from another student of the same answers.",
    "Licensed use: whoever trained it had a grant.",
    "A key that became known, or that was chosen after the model was there: only an earlier commitment excludes that.",
];

const DOES_NOT_SHOW: [&str; 3] = [
    "Through whose accounts the answers left: all of them are marked alike. Twins say that.",
    "Intent, breach of terms or damage.",
    "Innocence: rewriting the answers, or mixing them with much else, takes the marks away.",
];

/// The report for a person at a terminal.
pub fn render_radioactivity(report: &Radioactivity) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &Radioactivity) -> std::fmt::Result {
    let scheme = match report.scheme {
        Scheme::Gumbel => "two keys, no change of the distribution".to_owned(),
        Scheme::Green { share, bias } => format!("green list, share {share}, bias {bias}"),
    };
    writeln!(text, "Watermark: {scheme}, window {}", report.window)?;
    let checked = if report.commitment_checked { "as it was given" } else { "NOT compared with an earlier one" };
    writeln!(text, "Commitment to the key: {}, {checked}", report.commitment)?;
    writeln!(text)?;
    writeln!(
        text,
        "{:<24} {:>7} {:>9} {:>22} {:>9} {:>10}  shows",
        "model", "texts", "pairs", "statistic (by chance)", "log10 p", "p (Holm)"
    )?;
    for fit in &report.models {
        let name: String = fit.model.chars().take(24).collect();
        let mut row = |pairs: u64, statistic: String, log10_p: f64| {
            let (holm, shows) = (p_value(fit.p_holm), fit.strength.in_words());
            writeln!(text, "{name:<24} {:>7} {pairs:>9} {statistic:>22} {log10_p:>9.2} {holm:>10}  {shows}", fit.texts)
        };
        if let Some(Detection { pairs, statistic, expected, log10_p, .. }) = fit.detection {
            row(pairs, format!("{statistic:.0} ({expected:.0})"), log10_p)?;
        }
        if let Some(Lean { pairs, sum, deviation, log10_p_bound, .. }) = fit.lean {
            let deviations = if deviation > 0.0 { sum / deviation } else { 0.0 };
            row(pairs, format!("leans by {deviations:.2} dev."), log10_p_bound)?;
        }
        if let Some(Read { places, deviations, p_value, .. }) = fit.read {
            row(places, format!("{deviations:.2} deviations"), p_value.log10())?;
        }
    }
    writeln!(text)?;
    writeln!(text, "Null hypothesis: {}", report.null_hypothesis)?;
    writeln!(text, "Error rate: {}", report.error_rate)?;
    writeln!(text, "What is random in it: {}", report.random)?;
    writeln!(text, "Tests: {}", report.tests)?;
    list(text, "What else could explain it", &report.rival_explanations)?;
    list(text, "What it does not show", &report.does_not_show)
}
