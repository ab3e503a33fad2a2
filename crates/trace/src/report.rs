use std::collections::HashMap;

use anbiq_domain::{AccountId, ExchangeId, OperatorId, TwinMode};
use anbiq_statistics::holm;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gaps::rounded;
use crate::items::by_account;
use crate::score::PairScore;
use crate::{
    Acquittal, AtServer, BlindBaseline, Fixed, Kind, LeftOut, OperatorAccounts, Power, Protocol, State, TestResult,
    TwinItem, Verdict, acquittal, blind, power, twin, verdict,
};

/// The version of the report's form.
const FORMAT: u32 = 1;

/// What a trace found, with every number that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software.
    pub software: String,
    /// The signed plan that fixed the protocol before any model was asked; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Fixed>,
    /// What was tested and how. It was fixed before the first score, but only a plan shows that nobody chose it by the results
    /// of other traces.
    pub protocol: Protocol,
    /// What it shows.
    pub verdict: Verdict,
    /// The test on all pairs.
    pub all_traffic: TestResult,
    /// The test on the pairs of each operator that has enough of them, in the protocol's order.
    pub per_operator: Vec<OperatorResult>,
    /// Operators with too few pairs to be tested, and how many they have.
    pub too_few: Vec<(OperatorId, usize)>,
    /// The test on the pairs of each version of the teacher and of each period that has enough of them, in the protocol's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_slice: Vec<SliceResult>,
    /// Those with too few pairs, and how many they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub too_few_of_slices: Vec<(String, usize)>,
    /// The same test with what cannot have seen the answers.
    pub blind_baseline: BlindBaseline,
    /// What the pairs exclude, where the protocol says what they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquittal: Option<Acquittal>,
    /// What so many pairs could show.
    pub power: Power,
    /// Twinned exchanges that the trace did not take.
    pub left_out: LeftOut,
    /// Pairs that it took and that a model could not score.
    pub dropped: Dropped,
    /// How often it says so of somebody to whom it does not apply: by its construction, and as far as it was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_rate: String,
    /// What else could explain an established verdict.
    pub rival_explanations: Vec<String>,
    /// What the test does not show.
    pub does_not_show: Vec<String>,
    /// Every pair, in the journal's order.
    pub rows: Vec<Row>,
}

/// The test on one operator's pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorResult {
    /// Which operator.
    pub operator: OperatorId,
    /// Its accounts, as the protocol names them.
    pub accounts: Vec<AccountId>,
    /// What was found.
    pub result: TestResult,
}

/// The test on the pairs of one version of the teacher, or of one period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SliceResult {
    /// Which, as the protocol names it.
    pub slice: String,
    /// What was found.
    pub result: TestResult,
}

/// Pairs that were taken and could not be scored, whichever draw was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dropped {
    /// A model refused one of the texts or gave a log-probability that is not finite.
    pub not_scored: u64,
}

/// One pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The exchange's place in the journal.
    pub index: u64,
    /// Which exchange.
    pub exchange: ExchangeId,
    /// Who asked.
    pub account: AccountId,
    /// Who stands behind the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorId>,
    /// The version and the period to which it belongs, where these are tested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<String>,
    /// Which draw was served: 0 or 1.
    pub served: u8,
    /// How the exchange ended.
    pub state: State,
    /// What the models say; absent where one of them could not score a draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gaps: Option<Gaps>,
    /// The statistic in the order of drawing, in nats; the test turns its sign where the second draw was served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

/// Log-probability of the first draw less that of the second under each model, in nats, to six decimals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    /// Under the suspect.
    pub suspect: f64,
    /// Under the teacher.
    pub teacher: f64,
    /// Under each control, in the protocol's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<f64>,
    /// Difference in length, in the teacher's tokens.
    pub length: f64,
}

/// A number in a report that does not follow from its rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{at}` is recorded as {recorded}, but the rows give {recomputed}")]
pub struct Mismatch {
    /// Where in the report, such as `all_traffic.p_exact`.
    pub at: String,
    /// What the report says.
    pub recorded: String,
    /// What its rows give.
    pub recomputed: String,
}

/// Computes every statistic, p-value, e-value and the verdict of `report` again, from the gaps and coins in its rows alone.
///
/// # Errors
///
/// The first place where the report says something else.
pub fn recheck(report: &Report) -> Result<(), Mismatch> {
    let rows = report.rows.iter().map(bare).collect();
    let mut again = assess(report.protocol.clone(), report.left_out, rows);
    // Words may change with the software; numbers may not.
    again.software.clone_from(&report.software);
    again.plan.clone_from(&report.plan);
    if let (Some(again), Some(then)) = (&mut again.acquittal, &report.acquittal) {
        again.rests_on.clone_from(&then.rests_on);
    }
    again.error_rate.clone_from(&report.error_rate);
    again.rival_explanations.clone_from(&report.rival_explanations);
    again.does_not_show.clone_from(&report.does_not_show);
    compare("", &json(report), &json(&again))
}

/// A row as it was before the assessment. A reader of JSON may lose a number's last bit; rounding brings it back.
fn bare(row: &Row) -> Row {
    let mut row = Row { value: None, operator: None, ..row.clone() };
    if let Some(gaps) = &mut row.gaps {
        let controls = gaps.controls.iter_mut();
        for value in controls.chain([&mut gaps.suspect, &mut gaps.teacher, &mut gaps.length]) {
            *value = rounded(*value);
        }
    }
    row
}

/// The rows of scored items: the gaps are there, the statistic not yet. `scores` are those of the complete items.
pub(crate) fn rows(items: &[TwinItem], scores: &[Vec<Option<PairScore>>]) -> Vec<Row> {
    let gaps = |place: usize| -> Option<Gaps> {
        let mut of_models = scores.iter().map(|scores| scores[place]);
        let (suspect, teacher) = (of_models.next()??, of_models.next()??);
        let controls = of_models.map(|score| Some(rounded(score?.gap))).collect::<Option<Vec<f64>>>()?;
        Some(Gaps { suspect: rounded(suspect.gap), teacher: rounded(teacher.gap), controls, length: teacher.length })
    };
    let mut places = 0..;
    let row = |item: &TwinItem| Row {
        index: item.index,
        exchange: item.exchange,
        account: item.account.clone(),
        operator: None,
        slices: item.slices.clone(),
        served: item.served,
        state: item.state,
        gaps: if item.is_complete() { places.next().and_then(&gaps) } else { None },
        value: None,
    };
    items.iter().map(row).collect()
}

/// Everything that follows from the protocol and the gaps.
pub(crate) fn assess(protocol: Protocol, left_out: LeftOut, mut rows: Vec<Row>) -> Report {
    fill_in(&protocol, &mut rows);
    let mut all_traffic = twin::test(rows.iter());
    let (mut per_operator, too_few) = operators(&protocol, &rows);
    let (mut per_slice, too_few_of_slices) = slices(&protocol, &rows);
    let tests = protocol.tests_side_by_side.max(1);
    adjust(&mut all_traffic, &mut per_operator, &mut per_slice, tests);
    let blind_baseline = blind::test(&protocol, &rows);
    let not_covered = too_few.iter().map(|(operator, _)| operator.clone()).collect();
    let hypotheses = Hypotheses { all_traffic: &all_traffic, per_operator: &per_operator, per_slice: &per_slice };
    let acquittal = acquittal::assess(&protocol, hypotheses, not_covered, &rows);
    let verdict = Verdict::of(&protocol, hypotheses, &blind_baseline, acquittal.as_ref());
    let count = tests * hypotheses.all().count();
    let not_scored = rows.iter().filter(|row| row.state == State::Complete && row.gaps.is_none()).count() as u64;
    Report {
        format: FORMAT,
        software: concat!("anbiq ", env!("CARGO_PKG_VERSION")).to_owned(),
        power: power::of(all_traffic.n, verdict::ESTABLISHED, count),
        plan: None,
        verdict,
        all_traffic,
        per_operator,
        too_few,
        per_slice,
        too_few_of_slices,
        blind_baseline,
        acquittal,
        left_out,
        dropped: Dropped { not_scored },
        error_rate: error_rate(&protocol),
        rival_explanations: rival_explanations(protocol.mode),
        does_not_show: does_not_show(&protocol),
        rows,
        protocol,
    }
}

/// The statistic and the operator of each row. The coins play no part here.
fn fill_in(protocol: &Protocol, rows: &mut [Row]) {
    // The protocol was checked when it was fixed; in a report from elsewhere an account of two operators has none.
    let owners: HashMap<&AccountId, &OperatorId> = by_account(&protocol.operators).unwrap_or_default();
    let counted = |row: &&Row| row.state == State::Complete && row.gaps.is_some();
    let gaps: Vec<Gaps> = rows.iter().filter(counted).filter_map(|row| row.gaps.clone()).collect();
    let mut values = protocol.statistic.of(&gaps.iter().collect::<Vec<_>>()).into_iter();
    for row in rows {
        row.operator = owners.get(&row.account).map(|operator| (*operator).clone());
        row.value = if counted(&&*row) { values.next() } else { None };
    }
}

fn operators(protocol: &Protocol, rows: &[Row]) -> (Vec<OperatorResult>, Vec<(OperatorId, usize)>) {
    let (mut tested, mut too_few) = (Vec::new(), Vec::new());
    for OperatorAccounts { operator, accounts } in &protocol.operators {
        let own = rows.iter().filter(|row| row.operator.as_ref() == Some(operator));
        match test_if_enough(protocol, own) {
            Ok(result) => {
                tested.push(OperatorResult { operator: operator.clone(), accounts: accounts.clone(), result });
            }
            Err(pairs) => too_few.push((operator.clone(), pairs)),
        }
    }
    (tested, too_few)
}

fn slices(protocol: &Protocol, rows: &[Row]) -> (Vec<SliceResult>, Vec<(String, usize)>) {
    let (mut tested, mut too_few) = (Vec::new(), Vec::new());
    for slice in &protocol.slices {
        match test_if_enough(protocol, rows.iter().filter(|row| row.slices.contains(slice))) {
            Ok(result) => tested.push(SliceResult { slice: slice.clone(), result }),
            Err(pairs) => too_few.push((slice.clone(), pairs)),
        }
    }
    (tested, too_few)
}

/// The test of these rows, or how many pairs they have where that is too few.
fn test_if_enough<'row>(
    protocol: &Protocol,
    rows: impl Iterator<Item = &'row Row> + Clone,
) -> Result<TestResult, usize> {
    let pairs = rows.clone().filter(|row| twin::difference(row).is_some()).count();
    if pairs < protocol.minimum_items { Err(pairs) } else { Ok(twin::test(rows)) }
}

/// Everything that was tested of a suspect, for whoever asks about all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hypotheses<'report> {
    pub(crate) all_traffic: &'report TestResult,
    pub(crate) per_operator: &'report [OperatorResult],
    pub(crate) per_slice: &'report [SliceResult],
}

impl<'report> Hypotheses<'report> {
    pub(crate) fn of(report: &'report Report) -> Self {
        Self { all_traffic: &report.all_traffic, per_operator: &report.per_operator, per_slice: &report.per_slice }
    }

    pub(crate) fn all(self) -> impl Iterator<Item = &'report TestResult> {
        let operators = self.per_operator.iter().map(|operator| &operator.result);
        std::iter::once(self.all_traffic).chain(operators).chain(self.per_slice.iter().map(|slice| &slice.result))
    }
}

/// Holm's adjustment over all that is tested, times the number of tests that are made side by side.
fn adjust(
    all_traffic: &mut TestResult,
    per_operator: &mut [OperatorResult],
    per_slice: &mut [SliceResult],
    side_by_side: usize,
) {
    let operators = per_operator.iter_mut().map(|operator| &mut operator.result);
    let slices = per_slice.iter_mut().map(|slice| &mut slice.result);
    let mut tests: Vec<&mut TestResult> = std::iter::once(all_traffic).chain(operators).chain(slices).collect();
    let p_values: Vec<f64> = tests.iter().map(|test| test.p_exact).collect();
    for (test, adjusted) in tests.iter_mut().zip(holm::adjust(&p_values)) {
        test.p_holm = (adjusted * side_by_side as f64).min(1.0);
    }
}

/// How often such a test accuses who is innocent.
fn error_rate(protocol: &Protocol) -> String {
    let said = Kind::of(protocol.statistic).error_rate();
    match protocol.mode {
        TwinMode::Together => said.to_owned(),
        TwinMode::Deferred => {
            format!("As far as the teacher gave the same distribution of answers when the twins were drawn: {said}")
        }
    }
}

/// What else could explain an established verdict on pairs of this mode.
fn rival_explanations(mode: TwinMode) -> Vec<String> {
    let own = match mode {
        TwinMode::Together => None,
        TwinMode::Deferred => Some(OTHER_TEACHER),
    };
    own.into_iter().chain(RIVAL_EXPLANATIONS).map(str::to_owned).collect()
}

fn does_not_show(protocol: &Protocol) -> Vec<String> {
    let servers = protocol.servers.iter().map(AtServer::in_words);
    servers.chain(DOES_NOT_SHOW.map(str::to_owned)).collect()
}

const OTHER_TEACHER: &str = "Another teacher by then: the twins were drawn later than the answers that were served. If the model, its \
    settings or its system prompt changed in between, the two differ for a reason that has nothing to do with the suspect.";

const RIVAL_EXPLANATIONS: [&str; 5] = [
    "Reposting: the served answers were published or passed on, and the suspect was trained on that copy. Leave out exchanges \
     whose answers are found in public, and repeat.",
    "Shared public data: a data set made from the same customers' exchanges was used by more than one party.",
    "A common third model: the suspect learnt from another student of these same served answers.",
    "Licensed use: the operator had a grant, or passed the answers on under one. The journal's grants say so.",
    "Convergent style, equal base models or like training data cannot explain it: they are the same for an answer and its twin.",
];

const DOES_NOT_SHOW: [&str; 5] = [
    "Who took the answers: the test per operator says through whose accounts they left. That several accounts are one operator \
     is inferred elsewhere, with a certainty of its own.",
    "How much of the suspect comes from them: the win rate measures memorisation, not the share of the training data.",
    "Intent, breach of terms or damage.",
    "Innocence: a suspect that saw each answer once, that is small for its harvest, or that learnt from rewritten answers may \
     remember too little to be seen with so many pairs.",
    "Anything about answers that were not twinned.",
];

pub(crate) fn json(report: &impl Serialize) -> Value {
    serde_json::to_value(report).unwrap_or_default()
}

/// Equal but for rounding in the last digits of numbers.
pub(crate) fn compare(at: &str, recorded: &Value, recomputed: &Value) -> Result<(), Mismatch> {
    let mismatch =
        || Mismatch { at: at.to_owned(), recorded: recorded.to_string(), recomputed: recomputed.to_string() };
    match (recorded, recomputed) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().chain(other.keys()) {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                compare(&at, one.get(key).unwrap_or(&Value::Null), other.get(key).unwrap_or(&Value::Null))?;
            }
            Ok(())
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .enumerate()
            .try_for_each(|(place, (one, other))| compare(&format!("{at}[{place}]"), one, other)),
        (Value::Number(one), Value::Number(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) if near(one, other) => Ok(()),
            _ => Err(mismatch()),
        },
        _ if recorded == recomputed => Ok(()),
        _ => Err(mismatch()),
    }
}

/// Within 10^-9 of each other, relatively.
fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
}
