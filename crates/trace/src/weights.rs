//! Are the suspect's *weights* derived from the teacher's?
//!
//! Distillation leaves the weights independent: a student has an initialisation of its own. So this neither shows nor excludes
//! distillation; it establishes or makes unlikely that weights were copied, fine-tuned, merged or pruned, and keeps the two
//! accusations apart.
//!
//! The hidden units of a layer could stand in any order without changing the model, and so could the dimensions of the
//! residual stream. Initialisation and training favour no order. So if two models are independent, the place of each unit of the
//! suspect has nothing to do with the place of the unit of the teacher that is most like it: the test of Zhu et al. (2025)
//! with the number of units that stand in the place of their likeliest counterpart as its statistic, whose tail has a
//! bound in closed form ([`anbiq_statistics::coincidence`]). To permute the hidden units of a copy does not touch the order
//! of its residual stream, which the embedding shows.

use std::fmt::Write;

use anbiq_statistics::{SMALLEST_P, coincidence, holm};
use serde::{Deserialize, Serialize};

use crate::text::{list, p_value};
use crate::{Kind, Strength};

/// The version of the report's form.
const FORMAT: u32 = 1;
/// Places of a layer that are looked at, evenly spaced.
const PLACES: usize = 64;
/// Layers that are looked at, evenly spaced.
pub const LAYERS: usize = 8;

/// Vectors of equal length, each of which is something that has a place: a hidden unit or a dimension.
#[derive(Debug, Clone, Default)]
struct Vectors {
    /// One after the other.
    numbers: Vec<f32>,
    length: usize,
}

/// The units of one layer, in both models: as they are fed (`gate`, `up`) and as they feed (`down`).
#[derive(Debug, Clone, Default)]
struct Units {
    gate: Vectors,
    up: Vectors,
    down: Vectors,
}

/// What of a model is compared.
#[derive(Debug, Clone, Default)]
pub struct Anatomy {
    /// The hidden units of the layers that are looked at, by layer.
    layers: Vec<Units>,
    /// The dimensions of the residual stream, each as its column of the embedding of the tokens that both models have.
    dimensions: Vectors,
}

/// How many tokens both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Tokens of the suspect.
    pub suspect: u64,
    /// Tokens of the teacher.
    pub teacher: u64,
    /// Tokens of the suspect that the teacher has too, under whatever number.
    pub shared: u64,
    /// Tokens that both have under the same number.
    pub same_number: u64,
}

/// One test of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderTest {
    /// Of what.
    pub what: String,
    /// Groups with an order of their own: layers.
    pub groups: u64,
    /// Places that were looked at.
    pub places: u64,
    /// Those whose likeliest counterpart stands in the same place.
    pub hits: u64,
    /// Bound of P(so many, or more).
    pub p_value: f64,
    /// Its decimal logarithm.
    pub log10_p: f64,
    /// After Holm's adjustment over the tests.
    pub p_holm: f64,
}

/// What the weights show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightsReport {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The model in question.
    pub suspect: String,
    /// The model that it may be derived from.
    pub teacher: String,
    /// What is shown, by the smallest adjusted p-value.
    pub strength: Strength,
    /// One sentence.
    pub sentence: String,
    /// The exact tests; none where the shapes leave nothing to compare.
    pub tests: Vec<OrderTest>,
    /// Of the units that were looked at, those whose gate and up projections name the same unit of the teacher, wherever it
    /// stands: about one in the number of units for independent models. A likeness without a p-value, which survives that both
    /// orders were changed.
    pub agreement: Option<(u64, u64)>,
    /// How alike the tokenizers are: a likeness without a p-value.
    pub tokens: Tokens,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// How often it says so of somebody to whom it does not apply: by its construction, and as far as it was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// What is random under it.
    pub random: String,
    /// What else could explain it.
    pub rival_explanations: Vec<String>,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

impl Anatomy {
    /// Of a model whose residual stream has `hidden` dimensions and whose feed-forward layers have `inner` units: the gate, up
    /// (`[inner, hidden]`) and down (`[hidden, inner]`) projections of some layers, and of the embedding (`[tokens, hidden]`)
    /// the rows `tokens`.
    pub fn of<'model>(
        (hidden, inner): (usize, usize),
        layers: impl Iterator<Item = [&'model [f32]; 3]>,
        embedding: &[f32],
        tokens: &[usize],
    ) -> Self {
        let all: Vec<usize> = (0..hidden).collect();
        let units = |[gate, up, down]: [&[f32]; 3]| Units {
            gate: Vectors::rows(gate, hidden),
            up: Vectors::rows(up, hidden),
            down: Vectors::columns(down, inner, &all),
        };
        Self { layers: layers.map(units).collect(), dimensions: Vectors::columns(embedding, hidden, tokens) }
    }
}

impl Vectors {
    /// Vectors of `length` from a matrix whose rows they are.
    fn rows(numbers: &[f32], length: usize) -> Self {
        Self::normalised(numbers.to_vec(), length)
    }

    /// Vectors from a matrix of `columns` columns, which they are, of the `rows` that are named.
    fn columns(numbers: &[f32], columns: usize, rows: &[usize]) -> Self {
        let mut turned = vec![0.0; columns * rows.len()];
        for (to, &row) in rows.iter().enumerate() {
            for (column, &number) in numbers[row * columns..(row + 1) * columns].iter().enumerate() {
                turned[column * rows.len() + to] = number;
            }
        }
        Self::normalised(turned, rows.len())
    }

    /// To length 1 each, so that the product of two is their cosine.
    fn normalised(mut numbers: Vec<f32>, length: usize) -> Self {
        for vector in numbers.chunks_exact_mut(length.max(1)) {
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|x| *x /= norm.max(f32::MIN_POSITIVE));
        }
        Self { numbers, length }
    }

    fn count(&self) -> usize {
        self.numbers.len() / self.length.max(1)
    }

    fn get(&self, place: usize) -> &[f32] {
        &self.numbers[place * self.length..(place + 1) * self.length]
    }

    /// The cosines of `vector` with all of these are added to `into`.
    fn add_cosines(&self, vector: &[f32], into: &mut [f32]) {
        for (into, own) in into.iter_mut().zip(self.numbers.chunks_exact(self.length.max(1))) {
            *into += own.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>();
        }
    }

    /// Which of these is most like `vector`; the first of equals.
    fn likest(&self, vector: &[f32]) -> Option<usize> {
        let mut cosines = vec![0.0; self.count()];
        self.add_cosines(vector, &mut cosines);
        largest(&cosines)
    }

    /// The same vectors with their numbers in another order: number `to[i]` of each becomes number `i`.
    fn reordered(&self, to: &[usize]) -> Vec<f32> {
        self.numbers.chunks_exact(self.length.max(1)).flat_map(|own| to.iter().map(|&from| own[from])).collect()
    }
}

fn largest(numbers: &[f32]) -> Option<usize> {
    let first = |best: usize, at: usize| if numbers[at] > numbers[best] { at } else { best };
    (!numbers.is_empty()).then(|| (0..numbers.len()).fold(0, first))
}

/// Evenly spaced places, at most `most` of `count`.
pub fn spaced(count: usize, most: usize) -> Vec<usize> {
    (0..count.min(most)).map(|place| place * count / count.min(most)).collect()
}

/// Compares the weights of a suspect with those of a teacher.
pub fn compare(suspect: (&str, &Anatomy), teacher: (&str, &Anatomy), tokens: Tokens) -> WeightsReport {
    let ((suspect_name, suspect), (teacher_name, teacher)) = (suspect, teacher);
    let mut tests = Vec::new();
    let comparable = |(own, theirs): &(&Units, &Units)| own.gate.length == theirs.gate.length && own.gate.count() > 0;
    let layers: Vec<(&Units, &Units)> = suspect.layers.iter().zip(&teacher.layers).filter(comparable).collect();
    if !layers.is_empty() {
        let (mut places, mut hits) = (0, 0);
        for (own, theirs) in &layers {
            for place in spaced(own.gate.count(), PLACES) {
                let mut cosines = vec![0.0; theirs.gate.count()];
                for (own, theirs) in [(&own.gate, &theirs.gate), (&own.up, &theirs.up), (&own.down, &theirs.down)] {
                    theirs.add_cosines(own.get(place), &mut cosines);
                }
                places += 1;
                hits += u64::from(largest(&cosines) == Some(place));
            }
        }
        tests.push(OrderTest::of("hidden units of the feed-forward layers", layers.len() as u64, places, hits));
    }
    let (own, theirs) = (&suspect.dimensions, &teacher.dimensions);
    if own.length == theirs.length && own.count() > 0 && own.length > 0 {
        let places = spaced(own.count(), PLACES);
        let hits = places.iter().filter(|place| theirs.likest(own.get(**place)) == Some(**place)).count();
        let what = "dimensions of the residual stream, by the embedding";
        tests.push(OrderTest::of(what, 1, places.len() as u64, hits as u64));
    }
    let strength = adjust(&mut tests);
    WeightsReport {
        format: FORMAT,
        software: crate::plan::SOFTWARE.to_owned(),
        sentence: sentence(suspect_name, teacher_name, strength, tests.is_empty()),
        suspect: suspect_name.to_owned(),
        teacher: teacher_name.to_owned(),
        strength,
        tests,
        agreement: agreement(suspect, teacher, &layers),
        tokens,
        null_hypothesis: NULL_HYPOTHESIS.to_owned(),
        error_rate: Kind::Weights.error_rate().to_owned(),
        random: RANDOM.to_owned(),
        rival_explanations: RIVAL_EXPLANATIONS.map(str::to_owned).to_vec(),
        does_not_show: DOES_NOT_SHOW.map(str::to_owned).to_vec(),
    }
}

/// Holm's adjustment over the tests, and what the smallest p-value shows.
fn adjust(tests: &mut [OrderTest]) -> Strength {
    let p_values: Vec<f64> = tests.iter().map(|test| test.p_value).collect();
    for (test, adjusted) in tests.iter_mut().zip(holm::adjust(&p_values)) {
        test.p_holm = adjusted;
    }
    Strength::of_p_value(tests.iter().map(|test| test.p_holm).fold(1.0, f64::min))
}

impl WeightsReport {
    /// All that follows from the counts of places and hits, computed again.
    pub(crate) fn again(&self) -> Self {
        let test = |test: &OrderTest| OrderTest::of(&test.what, test.groups, test.places, test.hits);
        let mut tests: Vec<OrderTest> = self.tests.iter().map(test).collect();
        Self { strength: adjust(&mut tests), tests, ..self.clone() }
    }
}

/// Units that gate and up projections both name, after each dimension of the suspect was taken for the teacher's that is most
/// like it in the embedding.
fn agreement(suspect: &Anatomy, teacher: &Anatomy, layers: &[(&Units, &Units)]) -> Option<(u64, u64)> {
    let (own, theirs) = (&suspect.dimensions, &teacher.dimensions);
    if own.length != theirs.length || own.length == 0 || own.count() != theirs.count() {
        return None;
    }
    // Where each dimension of the teacher is in the suspect.
    let from: Vec<usize> = (0..theirs.count()).filter_map(|place| own.likest(theirs.get(place))).collect();
    let (mut agree, mut looked_at) = (0, 0);
    for (own, theirs) in layers {
        let places = spaced(own.gate.count(), PLACES);
        let named = |own: &Vectors, theirs: &Vectors| -> Vec<Option<usize>> {
            let kept: Vec<f32> = places.iter().flat_map(|&place| own.get(place).iter().copied()).collect();
            let turned = Vectors { numbers: kept, length: own.length }.reordered(&from);
            turned.chunks_exact(from.len().max(1)).map(|vector| theirs.likest(vector)).collect()
        };
        let pairs = named(&own.gate, &theirs.gate).into_iter().zip(named(&own.up, &theirs.up));
        agree += pairs.filter(|(gate, up)| gate == up).count() as u64;
        looked_at += places.len() as u64;
    }
    (looked_at > 0).then_some((agree, looked_at))
}

impl OrderTest {
    fn of(what: &str, groups: u64, places: u64, hits: u64) -> Self {
        let log10_p = coincidence::ln_bound(hits, groups) / std::f64::consts::LN_10;
        let p_value = 10_f64.powf(log10_p).clamp(SMALLEST_P, 1.0);
        Self { what: what.to_owned(), groups, places, hits, p_value, log10_p, p_holm: p_value }
    }
}

fn sentence(suspect: &str, teacher: &str, strength: Strength, nothing: bool) -> String {
    if nothing {
        return format!(
            "The shapes of {suspect} and {teacher} leave nothing to compare: {suspect} is no copy of its weights as they are."
        );
    }
    match strength {
        Strength::Contradicted | Strength::NotShown => format!(
            "It is not shown that the weights of {suspect} have to do with those of {teacher}. That does not show the contrary."
        ),
        strength => format!(
            "{}: the weights of {suspect} and {teacher} are not independent. One is derived from the other, or both from a third.",
            strength.in_words()
        ),
    }
}

const NULL_HYPOTHESIS: &str = "The weights of the suspect are independent of those of the teacher: neither was initialised from the \
    other or from what the other was initialised from, and neither was trained towards the other's weights. Whether it was \
    trained on the other's *answers* plays no part.";

const RANDOM: &str = "The orders alone, of the suspect's hidden units within each layer and of the dimensions of its residual stream. \
    Given everything else of it every order is equally probable, if initialisation and training favour none; those of \
    the usual programs do not. The test itself draws no random number, and its p-values are upper bounds.";

const RIVAL_EXPLANATIONS: [&str; 4] = [
    "A common ancestor: both were made from a third model, whose licence may allow that.",
    "The same seed: both were initialised by the same program with the same seed and shape.",
    "The other direction: the teacher was made from the suspect.",
    "An initialisation that favours an order, such as one that was written by hand.",
];

const DOES_NOT_SHOW: [&str; 3] = [
    "Distillation: a student that learnt from answers has weights of its own.",
    "That the weights are independent: whoever changes both orders, of hidden units and of the residual stream, hides from these \
     tests. The agreement of gate and up projections does not depend on either, and has no p-value.",
    "What was derived from what.",
];

/// The report for a person at a terminal.
pub fn render_weights(report: &WeightsReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &WeightsReport) -> std::fmt::Result {
    writeln!(text, "Weights of {} beside those of {}", report.suspect, report.teacher)?;
    writeln!(text)?;
    writeln!(text, "Verdict: {}", report.strength.in_words().to_uppercase())?;
    writeln!(text, "  {}", report.sentence)?;
    writeln!(text)?;
    writeln!(
        text,
        "{:<54} {:>6} {:>6} {:>9} {:>10}",
        "in the place of their counterpart", "places", "hits", "log10 p", "p (Holm)"
    )?;
    for test in &report.tests {
        let OrderTest { what, places, hits, log10_p, p_holm, .. } = test;
        writeln!(text, "{what:<54} {places:>6} {hits:>6} {log10_p:>9.1} {:>10}", p_value(*p_holm))?;
    }
    if let Some((agree, of)) = report.agreement {
        writeln!(
            text,
            "Gate and up projections name the same unit for {agree} of {of}, wherever it stands (no p-value)."
        )?;
    }
    let Tokens { suspect, teacher, shared, same_number } = report.tokens;
    writeln!(
        text,
        "Of {suspect} tokens {shared} are among the {teacher} of the teacher, {same_number} under the same number (no p-value)."
    )?;
    writeln!(text)?;
    writeln!(text, "Null hypothesis: {}", report.null_hypothesis)?;
    writeln!(text, "Error rate: {}", report.error_rate)?;
    writeln!(text, "What is random in it: {}", report.random)?;
    list(text, "What else could explain it", &report.rival_explanations)?;
    list(text, "What it does not show", &report.does_not_show)
}
