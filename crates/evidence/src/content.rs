use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use anbiq_domain::{Digest, Money, Timestamp};

use crate::{Basis, Language, OtherTest, Question};

/// What a dossier says. Neutral: the verbs fill it in, the page and the JSON are made of it.
///
/// Every text is shown as it is, never as markup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dossier {
    /// Version of this form: 1.
    pub format: u32,
    /// The language of headings and fixed words; the sentences below are in whatever language they were written.
    #[serde(default)]
    pub language: Language,
    /// What the case is called.
    pub title: String,
    /// When the dossier was made.
    pub made_at: Timestamp,
    /// Whether the journal's times are simulated.
    #[serde(default)]
    pub simulated: bool,
    /// The findings, a sentence each.
    pub summary: Vec<String>,
    /// When what happened.
    pub timeline: Timeline,
    /// Who is linked with whom.
    pub graph: Graph,
    /// The operators, most remarkable first.
    pub operators: Vec<OperatorRow>,
    /// A verdict for each model whose origin was in question.
    pub suspects: Vec<SuspectPage>,
    /// Tests with reports of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<OtherTest>,
    /// What was allowed.
    pub licence: Licence,
    /// What was distilled, at what cost and how well.
    pub students: Vec<StudentRow>,
    /// What the dossier rests on.
    pub provenance: Provenance,
    /// How to check it, a step each.
    pub how_to_verify: Vec<String>,
}

impl Dossier {
    /// The content of `dossier.json`: indented, so that a changed byte can be placed on a row.
    pub fn to_json(&self) -> String {
        // No map here has keys that are not strings, so it always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// Exchanges over time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// What is counted, such as `exchanges an hour`.
    pub unit: String,
    /// The series, in the order in which they are stacked from the bottom.
    pub series: Vec<String>,
    /// The buckets in order of time, all of one length.
    pub buckets: Vec<TimelineBucket>,
    /// Moments to remember.
    pub marks: Vec<Mark>,
}

/// One bucket of a timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineBucket {
    /// When it begins.
    pub start: Timestamp,
    /// Counts by name of series; an absent one is 0.
    pub counts: BTreeMap<String, u64>,
}

/// A moment on the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub label: String,
}

/// Accounts and the links between them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Graph {
    /// The accounts.
    pub nodes: Vec<GraphNode>,
    /// The links.
    pub edges: Vec<GraphEdge>,
}

/// An account in the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphNode {
    /// Its id, to which edges refer.
    pub id: String,
    /// What is shown.
    pub label: String,
    /// The operator it belongs to; accounts of one group are drawn together.
    pub group: String,
    /// Its weight, such as its exchanges; the area of its dot.
    pub size: f64,
}

/// A link in the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphEdge {
    /// One account.
    pub a: String,
    /// The other.
    pub b: String,
    /// How strong, in nats.
    pub weight: f64,
    /// Why, in words.
    pub why: String,
}

/// How a row should strike the eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// In order.
    Good,
    /// To be looked at.
    Warning,
    /// A finding.
    Finding,
}

/// An operator and why its accounts are thought to be one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorRow {
    /// Its name.
    pub name: String,
    /// Its standing in words, such as `campaign` or `within its grant`.
    pub standing: String,
    /// How that should strike the eye.
    #[serde(default)]
    pub tone: Tone,
    /// How many accounts.
    pub accounts: u64,
    /// Their exchanges.
    pub exchanges: u64,
    /// What they were served, in tokens.
    pub output_tokens: u64,
    /// What they were charged.
    pub cost: Money,
    /// Time of the first exchange.
    pub first: Timestamp,
    /// Time of the last exchange.
    pub last: Timestamp,
    /// How sure it is that they are one, from 0 to 1; absent for a single account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certainty: Option<f64>,
    /// What the traffic looks like, in words.
    pub purpose: String,
    /// Why they belong together or what is remarkable, heaviest first.
    pub reasons: Vec<Reason>,
    /// What speaks against it.
    #[serde(default)]
    pub counter: Vec<String>,
}

/// One reason in words, with its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// In words.
    pub words: String,
    /// In nats, where it was weighed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

/// How strongly a test speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// What was stated beforehand is excluded.
    Contradicted,
    /// Nothing was seen; that is not innocence.
    NotShown,
    /// Worth another look.
    Moderate,
    /// Hard to explain otherwise.
    Strong,
    /// Beyond reasonable statistical doubt.
    Established,
}

/// The verdict on one suspect, with all that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuspectPage {
    /// Name of the suspect.
    pub name: String,
    /// What was asked of it.
    #[serde(default)]
    pub question: Question,
    /// The file of its report in the dossier.
    #[serde(default)]
    pub file: String,
    /// The teacher it may have learnt from.
    pub teacher: String,
    /// How strongly the test speaks.
    pub verdict: Strength,
    /// The verdict in one sentence.
    pub words: String,
    /// The operator through whose accounts the answers left, if the test says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points_at: Option<String>,
    /// What would be so if the suspect had seen nothing.
    pub null_hypothesis: String,
    /// What is random in the test.
    pub randomness: String,
    /// How often it accuses who is innocent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// What was computed, fixed beforehand.
    pub statistic: String,
    /// The exact p-value.
    pub p_value: f64,
    /// Decimal logarithm of the e-value at the end.
    pub log10_e: f64,
    /// How many pairs.
    pub n: u64,
    /// In how many the served answer ranked first.
    pub wins: u64,
    /// What is drawn.
    pub plot: Plot,
    /// The same test for each operator.
    pub per_operator: Vec<OperatorTest>,
    /// The same test for versions of the teacher and for periods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_part: Vec<PartTest>,
    /// What so many pairs could have shown, in words.
    #[serde(default)]
    pub power: Vec<String>,
    /// What they exclude and what that rests on, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// What speaks against the verdict, such as a baseline that saw nothing.
    pub counter_evidence: Vec<String>,
    /// What else could explain it.
    pub rival_explanations: Vec<String>,
    /// What it does not show.
    pub does_not_show: Vec<String>,
}

impl SuspectPage {
    /// What it shows, by what that rests on: an exclusion rests on calibration students as well.
    pub fn verdicts(&self) -> Vec<(Basis, Question, Strength)> {
        match self.verdict {
            Strength::Contradicted => vec![
                (Basis::Exact, self.question, Strength::NotShown),
                (Basis::Controls, Question::Exclusion, Strength::Contradicted),
            ],
            strength => vec![(Basis::Exact, self.question, strength)],
        }
    }
}

/// What is drawn of a twin test.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Plot {
    /// For each pair in the journal's order, by how much the suspect prefers the served answer over its twin; symmetric
    /// around 0 if it saw nothing.
    pub differences: Vec<f64>,
    /// Decimal logarithm of the e-process after each pair.
    pub log10_e: Vec<f64>,
}

/// The twin test on the pairs of one operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorTest {
    /// Which operator.
    pub operator: String,
    /// How many accounts.
    pub accounts: u64,
    /// How many pairs.
    pub n: u64,
    /// In how many the served answer ranked first.
    pub wins: u64,
    /// The exact p-value.
    pub p: f64,
    /// The same, adjusted for the number of operators tested (Holm 1979).
    pub p_holm: f64,
    /// Decimal logarithm of the e-value.
    pub log10_e: f64,
}

/// The twin test on the pairs of a version of the teacher, or of a period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartTest {
    /// Which.
    pub part: String,
    /// How many pairs.
    pub n: u64,
    /// In how many the served answer ranked first.
    pub wins: u64,
    /// The exact p-value.
    pub p: f64,
    /// The same, adjusted for the number of hypotheses.
    pub p_holm: f64,
    /// Decimal logarithm of the e-value.
    pub log10_e: f64,
}

/// What was allowed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Licence {
    /// The terms of the teachers.
    pub terms: Vec<TermsPage>,
    /// The permissions that were given.
    pub grants: Vec<GrantRow>,
}

/// The terms of a teacher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsPage {
    /// Name and version.
    pub name: String,
    /// Of which teacher.
    pub teacher: String,
    /// What they say about distillation, in words.
    pub permission: String,
    /// Their conditions, in words.
    pub conditions: Vec<String>,
    /// Their own words.
    pub text: String,
}

/// The permission of one account to distill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRow {
    /// Which grant.
    pub grant: String,
    /// Whose.
    pub account: String,
    /// What for.
    pub purpose: String,
    /// Its conditions, in words.
    pub conditions: Vec<String>,
    /// When it was given.
    pub given: Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether it was kept, in words.
    pub state: String,
}

/// A student: what it cost and how near it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentRow {
    /// Its name.
    pub name: String,
    /// What it was trained on, in words.
    pub trained_on: String,
    /// Its size.
    pub parameters: u64,
    /// Tokens of training text.
    pub tokens: u64,
    /// What the teacher's answers cost.
    pub cost: Money,
    /// Processor time of the training, in seconds.
    pub cpu_seconds: f64,
    /// Loss on held-out text, in nats a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_loss: Option<f64>,
    /// Share of tokens on which it agrees with the teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Share of checkable tasks that it solves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The same of a student of equal size trained from scratch on as many tokens, in words.
    #[serde(default)]
    pub beside: String,
}

/// What a dossier rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Which journal.
    pub journal: String,
    /// Its root.
    pub root: Digest,
    /// How many records the root covers.
    pub size: u64,
    /// How many of them are disclosed.
    pub disclosed: u64,
    /// The public key that signs both.
    pub signer: String,
    /// Name and version of the software.
    pub software: String,
    /// Further facts: what, and what it is.
    #[serde(default)]
    pub facts: Vec<(String, String)>,
}
