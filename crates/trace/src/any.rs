//! A report of any kind, for whoever keeps or checks reports without caring which test wrote them.

use anbiq_domain::Digest;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::canary::CanaryReport;
use crate::endpoint::Endpoint;
use crate::errors::ErrorsReport;
use crate::identity::IdentityReport;
use crate::radioactivity::Radioactivity;
use crate::report::{Mismatch, compare, json};
use crate::style::StyleReport;
use crate::weights::WeightsReport;
use crate::{Fixed, Report, Statistic, Strength, recheck};

/// A report of `trace`.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyReport {
    /// The twins of a journal.
    Twins(Box<Report>),
    /// Answers with a secret in them.
    Canaries(Box<CanaryReport>),
    /// Weights beside weights.
    Weights(Box<WeightsReport>),
    /// Texts under the key of a watermark.
    Watermark(Box<Radioactivity>),
    /// A server beside what it is said to be.
    Endpoint(Box<Endpoint>),
    /// The style of given answers.
    Style(Box<StyleReport>),
    /// The names that models go by.
    Identity(Box<IdentityReport>),
    /// Rare answers that models share.
    Errors(Box<ErrorsReport>),
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Does the suspect prefer what was served?
    Twins,
    /// The same of its distances from the teacher's distributions.
    Nearness,
    /// The same of words in a row.
    Overlap,
    /// The same of how it goes on.
    Probe,
    /// Does it rank the secrets that were served first?
    Canaries,
    /// Are its weights derived?
    Weights,
    /// Does it fit the key of a watermark?
    Watermark,
    /// Is a server what it is said to be?
    Endpoint,
    /// Does it write as a teacher's family does?
    Style,
    /// Whom does it take itself for?
    Identity,
    /// Does it give a teacher's rare answers?
    Errors,
}

/// What is random in a report. Evidence of one kind is never added to evidence of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Something that was drawn by somebody or that is exchangeable by itself: a coin, a key, an order.
    Exact,
    /// Which models were taken as controls.
    Controls,
}

/// A text that is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no JSON, or not of the form that its members announce.
    #[error("it is no report: {0}")]
    Form(#[from] serde_json::Error),
    /// It has the members of no kind of report.
    #[error("it is a report of no kind that `anbiq trace` writes")]
    Unknown,
}

/// The member that only reports of a kind have.
const MARKS: [(&str, Kind); 8] = [
    ("protocol", Kind::Twins),
    ("ranks", Kind::Canaries),
    ("tokens", Kind::Weights),
    ("commitment", Kind::Watermark),
    ("endpoint", Kind::Endpoint),
    ("questions_with_right_answer", Kind::Errors),
    ("accused", Kind::Style),
    ("names", Kind::Identity),
];

impl AnyReport {
    /// The report in the JSON `text`.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        Self::of(serde_json::from_str(text)?)
    }

    fn of(value: Value) -> Result<Self, ReadError> {
        let kind = MARKS.iter().find(|(mark, _)| value.get(mark).is_some()).ok_or(ReadError::Unknown)?.1;
        Ok(match kind {
            Kind::Twins | Kind::Nearness | Kind::Overlap | Kind::Probe => Self::Twins(serde_json::from_value(value)?),
            Kind::Canaries => Self::Canaries(serde_json::from_value(value)?),
            Kind::Weights => Self::Weights(serde_json::from_value(value)?),
            Kind::Watermark => Self::Watermark(serde_json::from_value(value)?),
            Kind::Endpoint => Self::Endpoint(serde_json::from_value(value)?),
            Kind::Style => Self::Style(serde_json::from_value(value)?),
            Kind::Identity => Self::Identity(serde_json::from_value(value)?),
            Kind::Errors => Self::Errors(serde_json::from_value(value)?),
        })
    }

    /// What it is about.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Twins(report) => report.kind(),
            Self::Canaries(_) => Kind::Canaries,
            Self::Weights(_) => Kind::Weights,
            Self::Watermark(_) => Kind::Watermark,
            Self::Endpoint(_) => Kind::Endpoint,
            Self::Style(_) => Kind::Style,
            Self::Identity(_) => Kind::Identity,
            Self::Errors(_) => Kind::Errors,
        }
    }

    /// The models in question.
    pub fn subjects(&self) -> Vec<&str> {
        match self {
            Self::Twins(report) => vec![&report.protocol.suspect],
            Self::Canaries(report) => vec![&report.suspect],
            Self::Weights(report) => vec![&report.suspect],
            Self::Watermark(report) => report.models.iter().map(|fit| fit.model.as_str()).collect(),
            Self::Endpoint(report) => vec![&report.endpoint],
            Self::Style(report) => report.findings.iter().map(|finding| finding.suspect.as_str()).collect(),
            Self::Identity(report) => report.findings.iter().map(|finding| finding.suspect.as_str()).collect(),
            Self::Errors(report) => report.findings.iter().map(|finding| finding.suspect.as_str()).collect(),
        }
    }

    /// The strongest that it shows of any of them.
    pub fn strength(&self) -> Strength {
        match self {
            Self::Twins(report) => report.verdict.strength,
            Self::Canaries(report) => report.strength,
            Self::Weights(report) => report.strength,
            Self::Watermark(report) => report.strength(),
            Self::Endpoint(report) => report.differ,
            Self::Style(report) => report.strength(),
            Self::Identity(report) => report.strength(),
            Self::Errors(report) => report.strength(),
        }
    }

    /// The plan that fixed it.
    pub const fn plan(&self) -> Option<&Fixed> {
        match self {
            Self::Twins(report) => report.plan.as_ref(),
            Self::Style(report) => report.plan.as_ref(),
            _ => None,
        }
    }

    /// The files of the calibration students' traces that it rests on.
    pub fn calibrations(&self) -> Vec<Digest> {
        let Self::Twins(report) = self else { return Vec::new() };
        let students = report.protocol.alternative.iter().flat_map(|alternative| &alternative.students);
        students.map(|student| student.report).collect()
    }

    /// Computes again whatever follows from the report alone; see [`Kind::recomputed`].
    ///
    /// # Errors
    ///
    /// The first place where the report says something else.
    pub fn recheck(&self) -> Result<(), Mismatch> {
        let again = match self {
            Self::Twins(report) => return recheck(report),
            Self::Canaries(report) => json(&report.again()),
            Self::Weights(report) => json(&report.again()),
            Self::Watermark(report) => json(&report.again()),
            Self::Endpoint(report) => json(&report.again()),
            Self::Style(report) => json(&report.again()),
            Self::Identity(report) => json(&report.again()),
            Self::Errors(report) => json(&report.again()),
        };
        compare("", &json(self), &again)
    }
}

impl Report {
    /// What it is about.
    pub const fn kind(&self) -> Kind {
        Kind::of(self.protocol.statistic)
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Twins,
        Self::Nearness,
        Self::Overlap,
        Self::Probe,
        Self::Canaries,
        Self::Weights,
        Self::Watermark,
        Self::Endpoint,
        Self::Style,
        Self::Identity,
        Self::Errors,
    ];

    /// Of a test of twins.
    pub const fn of(statistic: Statistic) -> Self {
        match statistic {
            Statistic::Residual | Statistic::MinusTeacher => Self::Twins,
            Statistic::Nearness => Self::Nearness,
            Statistic::Overlap => Self::Overlap,
            Statistic::Probe => Self::Probe,
        }
    }

    /// How often such a test accuses who is innocent: by its construction, and as far as it was measured. Intervals are of 95 %
    /// (Clopper and Pearson).
    pub const fn error_rate(self) -> &'static str {
        match self {
            Self::Twins => {
                "Whoever saw nothing that was served is called moderate with at most 5 % probability, strong with 0.1 % and established with \
                 10^-6, over all hypotheses of the report together: that is exact. Measured on 200 small students that had learnt from \
                 other draws, other prompts or other text: 8 moderate (1.7 to 7.7 %), none strong or established (0 to 1.8 %)."
            }
            Self::Nearness | Self::Overlap | Self::Probe => {
                "Whoever saw nothing that was served is called moderate with at most 5 % probability, strong with 0.1 % and established with \
                 10^-6, over all hypotheses of the report together: that is exact. It was measured on simulated coins alone."
            }
            Self::Canaries => {
                "Whoever saw no canary is called moderate with at most 5 % probability, strong with 0.1 % and established with 10^-6, over \
                 all tests of the report together: that is exact. It was measured on simulated draws alone."
            }
            Self::Weights => {
                "Independent weights are called moderate with at most 5 % probability, strong with 0.1 % and established with 10^-6: that is \
                 exact where the orders of units are exchangeable. Measured on the 780 pairs of 40 small networks of their own \
                 initialisations: p of 0.05 or less in 3 (0.1 to 1.1 %)."
            }
            Self::Watermark => {
                "Whoever saw no marked text is called moderate with at most 5 % probability, strong with 0.1 % and established with 10^-6, \
                 over all models of the report together: that is exact, for how a model leans a bound. Measured on a small model and a \
                 student of unmarked answers, under 1,000 keys for each of three watermarks: p is uniform (the smallest of six \
                 Kolmogorov p-values is 0.34)."
            }
            Self::Endpoint => {
                "Two servers that answer alike are said to differ moderately with at most 5 % probability, strongly with 0.1 %, by permutation \
                 and by bets. That they are alike is never said."
            }
            Self::Style => {
                "Never more than moderate, and that with at most 5 % probability as far as suspect and families of controls are exchangeable. \
                 Measured on answers of public models on which the rule was chosen, so kindly: of 21 that are no documented students none was \
                 moderate (0 to 16.1 %), though two stood above all of their 11 controls."
            }
            Self::Identity | Self::Errors => {
                "Never more than moderate, and that with at most 5 % probability as far as suspect and families of controls are exchangeable. \
                 It was not measured on real models."
            }
        }
    }

    /// Its name in the names of files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Twins => "trace",
            Self::Nearness => "trace-nearness",
            Self::Overlap => "trace-overlap",
            Self::Probe => "trace-probe",
            Self::Canaries => "canaries",
            Self::Weights => "weights",
            Self::Watermark => "watermark",
            Self::Endpoint => "endpoint",
            Self::Style => "style",
            Self::Identity => "identity",
            Self::Errors => "errors",
        }
    }

    /// What is random in such a report.
    pub const fn basis(self) -> Basis {
        match self {
            Self::Style | Self::Identity | Self::Errors => Basis::Controls,
            _ => Basis::Exact,
        }
    }

    /// What whoever has the report alone can compute again, and does.
    pub const fn recomputed(self) -> &'static str {
        match self {
            Self::Twins | Self::Nearness | Self::Overlap | Self::Probe => {
                "statistics, p-values, e-values, exclusions and verdict, from the gaps and coins of its rows"
            }
            Self::Canaries => "bits, p-values, Holm's adjustment and verdicts, from the ranks",
            Self::Weights => "p-values, Holm's adjustment and verdict, from the counts of hits",
            Self::Watermark => {
                "the exact tails of what was written or found likeliest, Holm's adjustment and verdicts, from pairs and statistics"
            }
            Self::Endpoint => "the joint p-value and the verdict, from the two statistics",
            Self::Style | Self::Identity | Self::Errors => {
                "conformal p-values over models and families, Holm's adjustment and verdicts, from the scores"
            }
        }
    }

    /// What it takes on trust, and who could compute that again.
    pub const fn on_trust(self) -> &'static str {
        match self {
            Self::Twins => "the gaps: they need suspect, teacher and controls, and the texts of the pairs",
            Self::Nearness => "the gaps: they need the weights of suspect and teacher, and the texts of the pairs",
            Self::Probe => "the gaps: they need suspect, teacher and controls to answer, and the texts of the pairs",
            Self::Overlap => "the gaps: they need the texts of the suspect and of the pairs",
            Self::Canaries => "the ranks: they need the suspect, the draw and its key",
            Self::Weights => "the hits, and the likenesses without a p-value: they need the weights of both models",
            Self::Watermark => {
                "pairs and statistics, and the p-values of reading and leaning: they need the key, the tokenizer and the texts, \
                 or the models"
            }
            Self::Endpoint => "the permutation p-value and the e-value: they need what both answered",
            Self::Style => "the scores: they need the answers of all models",
            Self::Identity => "the scores and the interval: they need the answers of all models",
            Self::Errors => "which answers are rare and shared: that needs the answers of all models",
        }
    }
}

impl Serialize for AnyReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Twins(report) => report.serialize(serializer),
            Self::Canaries(report) => report.serialize(serializer),
            Self::Weights(report) => report.serialize(serializer),
            Self::Watermark(report) => report.serialize(serializer),
            Self::Endpoint(report) => report.serialize(serializer),
            Self::Style(report) => report.serialize(serializer),
            Self::Identity(report) => report.serialize(serializer),
            Self::Errors(report) => report.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for AnyReport {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
