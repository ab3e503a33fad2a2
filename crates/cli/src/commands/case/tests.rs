//! The reports of tests beside the twins', in the neutral words of `evidence`.

use anbiq_evidence::{Among, Basis, Fact, Measure, OtherTest, Question, Table, Value};
use anbiq_trace::canary::CanaryReport;
use anbiq_trace::controls::Among as Ranked;
use anbiq_trace::endpoint::Endpoint;
use anbiq_trace::errors::ErrorsReport;
use anbiq_trace::identity::IdentityReport;
use anbiq_trace::radioactivity::Radioactivity;
use anbiq_trace::style::StyleReport;
use anbiq_trace::weights::WeightsReport;
use anbiq_trace::{AnyReport, Kind, Strength};

use super::content::strength;

/// What a page says of `report`, which lies in `file`; nothing of twins, which have a form of their own.
pub(super) fn page(report: &AnyReport, file: &str) -> Option<OtherTest> {
    let kind = report.kind();
    let told = match report {
        AnyReport::Twins(_) => return None,
        AnyReport::Canaries(report) => canaries(report),
        AnyReport::Weights(report) => weights(report),
        AnyReport::Watermark(report) => watermark(report),
        AnyReport::Endpoint(report) => endpoint(report),
        AnyReport::Style(report) => style(report),
        AnyReport::Identity(report) => identity(report),
        AnyReport::Errors(report) => errors(report),
    };
    Some(OtherTest {
        question: question(kind),
        subject: report.subjects().join(", "),
        file: file.to_owned(),
        basis: match kind.basis() {
            anbiq_trace::Basis::Exact => Basis::Exact,
            anbiq_trace::Basis::Controls => Basis::Controls,
        },
        verdict: strength(report.strength()),
        words: told.words,
        facts: told.facts,
        tables: told.tables,
        among: told.among,
        null_hypothesis: told.null_hypothesis.to_owned(),
        error_rate: kind.error_rate().to_owned(),
        randomness: told.random.to_owned(),
        statistic: told.tests.to_owned(),
        recomputed: kind.recomputed().to_owned(),
        on_trust: kind.on_trust().to_owned(),
        rival_explanations: told.rival_explanations.to_vec(),
        does_not_show: told.does_not_show.to_vec(),
    })
}

pub(super) const fn question(kind: Kind) -> Question {
    match kind {
        Kind::Twins => Question::Twins,
        Kind::Nearness => Question::Nearness,
        Kind::Overlap => Question::Overlap,
        Kind::Probe => Question::Probe,
        Kind::Canaries => Question::Canaries,
        Kind::Weights => Question::Weights,
        Kind::Watermark => Question::Watermark,
        Kind::Endpoint => Question::Endpoint,
        Kind::Style => Question::Style,
        Kind::Identity => Question::Identity,
        Kind::Errors => Question::Errors,
    }
}

/// What a report says, as far as reports differ.
#[derive(Default)]
struct Told<'report> {
    words: Vec<String>,
    facts: Vec<Fact>,
    tables: Vec<Table>,
    among: Vec<Among>,
    null_hypothesis: &'report str,
    random: &'report str,
    tests: &'report str,
    rival_explanations: &'report [String],
    does_not_show: &'report [String],
}

fn fact(measure: Measure, value: Value) -> Fact {
    Fact { measure, value }
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

/// `log10_p`, which goes on where a p-value stops.
const fn power(log10_p: f64) -> Value {
    Value::Power(log10_p)
}

fn canaries(report: &CanaryReport) -> Told<'_> {
    let row = |test: &anbiq_trace::canary::CanaryTest| {
        vec![
            text(test.operator.as_deref().unwrap_or("all")),
            Value::Count(test.canaries),
            Value::Count(test.bits),
            Value::Probability(test.p_value),
            Value::Probability(test.p_holm),
            Value::Verdict(strength(test.strength)),
        ]
    };
    let measures =
        vec![Measure::Operator, Measure::Canaries, Measure::Bits, Measure::P, Measure::PHolm, Measure::Verdict];
    let said = match report.strength {
        Strength::NotShown | Strength::Contradicted => {
            "It is not shown that the suspect saw the secrets that were served. That does not show the contrary."
                .to_owned()
        }
        shown => format!("That the suspect saw secrets that were served is shown: {}.", shown.in_words()),
    };
    let mut words = vec![said];
    match &report.journal {
        None => words.push("No journal was asked: nothing shows that the draw came before what was served.".to_owned()),
        Some(journal) => {
            words.push(format!(
                "The journal {} committed to the draw in entry {}, before all that is counted; the texts of {} exchanges \
                 after that stay closed.",
                journal.journal, journal.committed_at, journal.closed
            ));
            let left = journal.accounts().into_iter().map(|(account, operator, canaries)| {
                format!("{canaries} canaries left through account {account} of operator {operator}.")
            });
            words.extend(left);
        }
    }
    Told {
        words,
        facts: vec![
            fact(Measure::Commitment, Value::Code(report.draw.to_string())),
            fact(Measure::Signer, Value::Code(report.signer.clone())),
            fact(Measure::Versions, Value::Count(report.candidates.into())),
        ],
        tables: vec![Table { measures, rows: report.tests.iter().map(row).collect() }],
        among: Vec::new(),
        null_hypothesis: &report.null_hypothesis,
        random: &report.random,
        tests: &report.tests_in_words,
        rival_explanations: &report.rival_explanations,
        does_not_show: &report.does_not_show,
    }
}

fn weights(report: &WeightsReport) -> Told<'_> {
    let row = |test: &anbiq_trace::weights::OrderTest| {
        vec![
            text(&test.what),
            Value::Count(test.places),
            Value::Count(test.hits),
            power(test.log10_p),
            Value::Probability(test.p_holm),
        ]
    };
    let measures = vec![Measure::What, Measure::Places, Measure::Hits, Measure::P, Measure::PHolm];
    let agreement = report.agreement.map(|(agree, of)| fact(Measure::Agreement, Value::Of(agree, of)));
    let facts = [
        Some(fact(Measure::Teacher, text(&report.teacher))),
        agreement,
        Some(fact(Measure::SharedTokens, Value::Of(report.tokens.shared, report.tokens.suspect))),
    ];
    Told {
        words: vec![report.sentence.clone()],
        facts: facts.into_iter().flatten().collect(),
        tables: vec![Table { measures, rows: report.tests.iter().map(row).collect() }],
        among: Vec::new(),
        null_hypothesis: &report.null_hypothesis,
        random: &report.random,
        tests: HITS,
        rival_explanations: &report.rival_explanations,
        does_not_show: &report.does_not_show,
    }
}

const HITS: &str = "How many hidden units, and how many dimensions of the residual stream, stand in the place of the one of the teacher that \
    is most like them; an upper bound of the chance of so many, and Holm's adjustment over the tests.";

fn watermark(report: &Radioactivity) -> Told<'_> {
    let mut rows = Vec::new();
    for fit in &report.models {
        let mut row = |pairs: u64, statistic: f64, by_chance: Option<f64>, log10_p: f64| {
            rows.push(vec![
                text(&fit.model),
                Value::Count(fit.texts),
                Value::Count(pairs),
                Value::Number(statistic),
                by_chance.map_or_else(|| text("–"), Value::Number),
                power(log10_p),
                Value::Probability(fit.p_holm),
                Value::Verdict(strength(fit.strength)),
            ]);
        };
        if let Some(found) = &fit.detection {
            row(found.pairs, found.statistic.round(), Some(found.expected.round()), found.log10_p);
        }
        if let Some(lean) = &fit.lean {
            row(lean.pairs, lean.sum, Some(0.0), lean.log10_p_bound);
        }
        if let Some(read) = &fit.read {
            row(read.places, read.deviations, Some(0.0), read.p_value.log10());
        }
    }
    let measures = vec![
        Measure::Model,
        Measure::Texts,
        Measure::Pairs,
        Measure::Statistic,
        Measure::ByChance,
        Measure::P,
        Measure::PHolm,
        Measure::Verdict,
    ];
    let checked = if report.commitment_checked {
        "The key is the one of a commitment that was given to the test."
    } else {
        "The key was NOT compared with an earlier commitment: without one it proves nothing."
    };
    Told {
        words: vec![checked.to_owned()],
        facts: vec![fact(Measure::Commitment, Value::Code(report.commitment.to_string()))],
        tables: vec![Table { measures, rows }],
        among: Vec::new(),
        null_hypothesis: &report.null_hypothesis,
        random: &report.random,
        tests: &report.tests,
        rival_explanations: &report.rival_explanations,
        does_not_show: &report.does_not_show,
    }
}

fn endpoint(report: &Endpoint) -> Told<'_> {
    let said = match report.differ {
        Strength::NotShown | Strength::Contradicted => {
            format!(
                "It is not shown that {} differs from {}. That does not show that they are the same.",
                report.endpoint, report.reference
            )
        }
        shown => format!("{} differs from {}: {}.", report.endpoint, report.reference, shown.in_words()),
    };
    let of_answers = vec![
        text("whole answers, permuted"),
        Value::Count(report.prompts as u64),
        Value::Number(report.discrepancy),
        Value::Probability(report.p_permutation),
    ];
    let measures = vec![Measure::What, Measure::Prompts, Measure::Discrepancy, Measure::P];
    Told {
        words: vec![said],
        facts: vec![
            fact(Measure::Teacher, text(&report.reference)),
            fact(Measure::ShortAnswers, Value::Count(report.steps.into())),
            fact(Measure::E, Value::Power(report.log10_e)),
            fact(Measure::P, Value::Probability(report.p_value)),
        ],
        tables: vec![Table { measures, rows: vec![of_answers] }],
        among: Vec::new(),
        null_hypothesis: &report.null_hypothesis,
        random: &report.random,
        tests: TWO,
        rival_explanations: &[],
        does_not_show: &report.does_not_show,
    }
}

const TWO: &str = "Twice the smaller of the p-value of whole answers and of one over the e-value of short ones.";

/// The columns of a suspect among controls.
fn among_measures(score: Measure) -> Vec<Measure> {
    vec![
        Measure::Suspect,
        score,
        Measure::Controls,
        Measure::PModels,
        Measure::Families,
        Measure::PFamilies,
        Measure::Floor,
        Measure::PHolm,
        Measure::Verdict,
    ]
}

fn dots(suspect: &str, among: &Ranked) -> Among {
    let dot = |control: &anbiq_trace::controls::ControlScore| {
        (format!("{} ({})", control.model, control.family), control.score)
    };
    Among { suspect: suspect.to_owned(), score: among.score, controls: among.controls.iter().map(dot).collect() }
}

fn among_row(suspect: &str, score: Value, among: &Ranked, shown: Strength) -> Vec<Value> {
    vec![
        text(suspect),
        score,
        Value::Count(among.controls.len() as u64),
        Value::Probability(among.p_models),
        Value::Count(among.by_family.families as u64),
        Value::Probability(among.by_family.p),
        Value::Probability(among.by_family.floor),
        Value::Probability(among.p_holm),
        Value::Verdict(strength(shown)),
    ]
}

fn style(report: &StyleReport) -> Told<'_> {
    let findings = &report.findings;
    let row = |finding: &anbiq_trace::style::Finding| {
        let score = Value::Number(finding.among.score);
        among_row(&finding.suspect, score, &finding.among, finding.verdict.strength)
    };
    let nearest = findings.iter().filter_map(|finding| {
        let nearest = finding.closeness.first()?;
        Some(fact(Measure::Nearest, text(format!("{}: {} ({})", finding.suspect, nearest.family, nearest.model))))
    });
    let facts =
        [fact(Measure::Accused, text(&report.accused)), fact(Measure::Prompts, Value::Count(report.prompts as u64))];
    Told {
        words: findings.iter().map(|finding| finding.verdict.sentence.clone()).collect(),
        facts: facts.into_iter().chain(nearest).collect(),
        tables: vec![Table { measures: among_measures(Measure::Score), rows: findings.iter().map(row).collect() }],
        among: findings.iter().map(|finding| dots(&finding.suspect, &finding.among)).collect(),
        null_hypothesis: &report.null_hypothesis,
        random: &report.random,
        tests: &report.tests,
        rival_explanations: &report.rival_explanations,
        does_not_show: &report.does_not_show,
    }
}

fn identity(report: &IdentityReport) -> Told<'_> {
    let findings = &report.findings;
    let row = |finding: &anbiq_trace::identity::IdentityFinding| {
        let score = Value::Share(finding.among.score);
        among_row(&finding.suspect, score, &finding.among, finding.strength)
    };
    let intervals = findings.iter().map(|finding| {
        let (low, high) = finding.interval;
        vec![text(&finding.suspect), Value::Interval(low, high)]
    });
    let tables = vec![
        Table { measures: among_measures(Measure::NameShare), rows: findings.iter().map(row).collect() },
        Table { measures: vec![Measure::Suspect, Measure::Interval], rows: intervals.collect() },
    ];
    Told {
        words: findings.iter().map(|finding| finding.sentence.clone()).collect(),
        facts: vec![
            fact(Measure::Names, text(report.names.join(", "))),
            fact(Measure::Prompts, Value::Count(report.questions as u64)),
        ],
        tables,
        among: findings.iter().map(|finding| dots(&finding.suspect, &finding.among)).collect(),
        null_hypothesis: &report.null_hypothesis,
        random: &report.random,
        tests: &report.tests,
        rival_explanations: &report.rival_explanations,
        does_not_show: &report.does_not_show,
    }
}

fn errors(report: &ErrorsReport) -> Told<'_> {
    let findings = &report.findings;
    let row = |finding: &anbiq_trace::errors::ErrorsFinding| {
        let score = Value::Share(finding.among.score);
        among_row(&finding.suspect, score, &finding.among, finding.strength)
    };
    let shared = findings
        .iter()
        .map(|finding| vec![text(&finding.suspect), text(&finding.teacher), Value::Of(finding.shared, finding.rare)]);
    let tables = vec![
        Table { measures: among_measures(Measure::RareShare), rows: findings.iter().map(row).collect() },
        Table { measures: vec![Measure::Suspect, Measure::Teacher, Measure::Rare], rows: shared.collect() },
    ];
    Told {
        words: findings.iter().map(|finding| finding.sentence.clone()).collect(),
        facts: vec![
            fact(Measure::Accused, text(&report.accused)),
            fact(Measure::Prompts, Value::Count(report.questions as u64)),
        ],
        tables,
        among: findings.iter().map(|finding| dots(&finding.suspect, &finding.among)).collect(),
        null_hypothesis: &report.null_hypothesis,
        random: &report.random,
        tests: &report.tests,
        rival_explanations: &report.rival_explanations,
        does_not_show: &report.does_not_show,
    }
}
