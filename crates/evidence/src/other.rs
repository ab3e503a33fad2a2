//! Tests beside that of the twins, in neutral words: whatever was computed, its numbers stand in tables of measures.

use serde::{Deserialize, Serialize};

use crate::Strength;

/// What is asked of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Does it prefer what was served?
    #[default]
    Twins,
    /// Does it come nearer to the teacher along what was served?
    Nearness,
    /// Has what it wrote more words in a row in common with what was served?
    Overlap,
    /// Does it go on as what was served does?
    Probe,
    /// Does it remember secrets that were served?
    Canaries,
    /// Are its weights derived from the teacher's?
    Weights,
    /// Does it fit the key of a watermark?
    Watermark,
    /// Is the server what it is said to be?
    Endpoint,
    /// Does it write as a teacher's family does?
    Style,
    /// Whom does it take itself for?
    Identity,
    /// Does it give a teacher's rare answers?
    Errors,
    /// Is training like that of calibration students excluded?
    Exclusion,
}

/// What is random in a test. Evidence of one kind is never added to evidence of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Something that was drawn or that is exchangeable by itself: a coin, a key, an order.
    Exact,
    /// Which models were taken as controls.
    Controls,
}

/// A test with a report of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherTest {
    /// What was asked.
    pub question: Question,
    /// Of whom.
    pub subject: String,
    /// The file of its report in the dossier.
    pub file: String,
    /// What it rests on.
    pub basis: Basis,
    /// The strongest that it shows of any subject.
    pub verdict: Strength,
    /// What it shows, a sentence each.
    pub words: Vec<String>,
    /// Single numbers and facts.
    #[serde(default)]
    pub facts: Vec<Fact>,
    /// Numbers in rows.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Scores of suspects among those of controls, to be drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub among: Vec<Among>,
    /// What would be so if the suspicion were wrong.
    pub null_hypothesis: String,
    /// What is random in it.
    pub randomness: String,
    /// How often it accuses who is innocent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// How the p-values are made.
    pub statistic: String,
    /// What `verify` computes again from the report alone.
    pub recomputed: String,
    /// What the report takes on trust, and what that needs.
    pub on_trust: String,
    /// What else could explain it.
    pub rival_explanations: Vec<String>,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

/// One value by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub measure: Measure,
    /// The value.
    pub value: Value,
}

/// Rows of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What the columns are; the first one names the row.
    pub measures: Vec<Measure>,
    /// The rows, a value for each measure.
    pub rows: Vec<Vec<Value>>,
}

/// A suspect's score among those of controls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Among {
    /// The suspect.
    pub suspect: String,
    /// Its score.
    pub score: f64,
    /// The controls' names and scores.
    pub controls: Vec<(String, f64)>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A name or a fact in words.
    Text(String),
    /// A digest or a key.
    Code(String),
    /// How many.
    Count(u64),
    /// So many of so many.
    Of(u64, u64),
    /// A number of any kind.
    Number(f64),
    /// From 0 to 1.
    Share(f64),
    /// From one share to another.
    Interval(f64, f64),
    /// A p-value.
    Probability(f64),
    /// The decimal logarithm of a number.
    Power(f64),
    /// What is shown.
    Verdict(Strength),
}

/// What a value measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The model in question.
    Suspect,
    /// A model.
    Model,
    /// The teacher, or what a server is said to be.
    Teacher,
    /// To whom something was served.
    Operator,
    /// What has an order.
    What,
    /// Texts that were written or read.
    Texts,
    /// Pairs of window and token.
    Pairs,
    /// The test's statistic.
    Statistic,
    /// What it is by chance.
    ByChance,
    /// Places that were looked at.
    Places,
    /// Those whose counterpart stands in the same place.
    Hits,
    /// Canaries.
    Canaries,
    /// Sum of their bits.
    Bits,
    /// Versions of each canary.
    Versions,
    /// Units that two projections both name, of those looked at.
    Agreement,
    /// Tokens that both have, of the suspect's.
    SharedTokens,
    /// A score, the higher the more alike.
    Score,
    /// The share of answers that name what is looked for.
    NameShare,
    /// The share of a teacher's rare answers that are given too.
    RareShare,
    /// Rare answers given too, of those there are.
    Rare,
    /// Its interval.
    Interval,
    /// The words that are looked for.
    Names,
    /// The family whose answers are in question.
    Accused,
    /// The nearest candidate family.
    Nearest,
    /// Prompts or questions.
    Prompts,
    /// Controls.
    Controls,
    /// Families of controls.
    Families,
    /// The distance of two samples.
    Discrepancy,
    /// Short answers of either.
    ShortAnswers,
    /// A p-value.
    P,
    /// One over models.
    PModels,
    /// One over families of models.
    PFamilies,
    /// The least that a p-value can be with so many families.
    Floor,
    /// One that is adjusted for the number of tests.
    PHolm,
    /// An e-value.
    E,
    /// What is shown.
    Verdict,
    /// A commitment that was made beforehand.
    Commitment,
    /// Who signed what was drawn.
    Signer,
}
