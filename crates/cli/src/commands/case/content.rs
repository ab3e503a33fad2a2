//! What a dossier says, in the neutral words of `evidence`.

use std::collections::{BTreeMap, BTreeSet};

use anbiq_distill::Report as Student;
use anbiq_domain::{AccountId, Conditions, Entry, Grant, Money, Permission, Terms, Timestamp};
use anbiq_evidence::{
    Basis, Dossier, GrantRow, Graph, GraphEdge, GraphNode, Licence, Mark, OperatorRow, OperatorTest, OtherTest,
    PartTest, Plot, Provenance, Question, Reason, Strength, StudentRow, SuspectPage, TermsPage, Timeline,
    TimelineBucket, Tone,
};
use anbiq_journal::Reader;
use anbiq_trace::{AnyReport, Report as Trace};
use anbiq_watch::{Edge, Leak, Operator, Report as Findings, Standing};

use super::Found;
use super::disclose::{HOUR, Opened};
use crate::args::Language;

const DAY: i64 = 24 * HOUR;

pub(super) fn dossier(
    found: &Found,
    opened: &Opened,
    reader: &Reader,
    language: Language,
    made_at: Timestamp,
) -> Dossier {
    Dossier {
        format: 1,
        language: match language {
            Language::En => anbiq_evidence::Language::English,
            Language::Ar => anbiq_evidence::Language::Arabic,
        },
        title: title(found),
        made_at,
        simulated: found.watch.simulated,
        summary: summary(found),
        timeline: timeline(found, opened),
        graph: graph(found.watch.operators.iter()),
        operators: found.watch.operators.iter().map(operator).collect(),
        suspects: found.traces().map(suspect).collect(),
        tests: tests(found),
        licence: licence(found, opened),
        students: found.students.iter().map(student).collect(),
        provenance: Provenance {
            journal: reader.id().to_string(),
            root: opened.checkpoint.root,
            size: opened.checkpoint.size,
            disclosed: opened.records.len() as u64,
            signer: reader.public_key().to_string(),
            software: concat!("anbiq ", env!("CARGO_PKG_VERSION")).to_owned(),
            facts: facts(found, opened),
        },
        how_to_verify: HOW_TO_VERIFY.map(str::to_owned).to_vec(),
    }
}

fn facts(found: &Found, opened: &Opened) -> Vec<(String, String)> {
    let closed = opened.closed.iter().map(|closed| ("closed".to_owned(), closed.in_words()));
    let notes = found.watch.notes.iter().map(|note| ("note".to_owned(), note.clone()));
    let notes = notes.chain(closed);
    // Only what a plan can fix is missed where there is none.
    let planned =
        |report: &&AnyReport| report.plan().is_some() || matches!(report, AnyReport::Twins(_) | AnyReport::Style(_));
    let plan = |report: &AnyReport| {
        let what = format!("plan of the trace of {}", report.subjects().join(", "));
        let said = match report.plan() {
            Some(fixed) => format!("{}, of {}, signed by {}", fixed.plan, fixed.made_at, fixed.signer),
            None => "none: no signed plan shows that it was fixed before results were seen".to_owned(),
        };
        (what, said)
    };
    notes.chain(found.reports.iter().map(|(_, report)| report).filter(planned).map(plan)).collect()
}

const HOW_TO_VERIFY: [&str; 4] = [
    "Get the signer's public key from a source that you trust, and the program `anbiq`.",
    "Run `anbiq verify <this folder> --key <public key>`: it needs nothing but the folder.",
    "It checks the signature, every file, the journal's root, the proof of every disclosed record, that each coin was \
     committed to before and chose the draw that was served, and that every p-value follows from its rows.",
    "To repeat a trace, score both draws of each disclosed record under the suspect and compare with the trace's rows.",
];

fn title(found: &Found) -> String {
    let teachers: BTreeSet<&str> = found.traces().map(|(_, trace)| trace.protocol.teacher.as_str()).collect();
    match teachers.into_iter().next() {
        Some(teacher) => format!("Was `{teacher}` distilled?"),
        None => "What the journal shows".to_owned(),
    }
}

fn summary(found: &Found) -> Vec<String> {
    let mut sentences = Vec::new();
    for (operator, campaign) in found.watch.campaigns() {
        sentences.push(format!(
            "{} accounts are linked as one operator, {} (certainty {:.3}). From {} on they took {} exchanges and {} \
             tokens, for {} dollars. They breach the terms: {}.",
            operator.accounts.len(),
            operator.id,
            operator.certainty,
            campaign.started,
            operator.exchanges,
            operator.output_tokens,
            operator.cost,
            campaign.breach
        ));
    }
    if sentences.is_empty() {
        sentences.push("No campaign was found.".to_owned());
    }
    sentences.extend(found.traces().map(|(_, trace)| trace.verdict.sentence.clone()));
    sentences
}

/// Exchanges a day, or an hour where all happened within two days: the operators spoken of, and all others together.
fn timeline(found: &Found, opened: &Opened) -> Timeline {
    let mut owners: BTreeMap<&AccountId, &str> = BTreeMap::new();
    let mut series: Vec<String> = Vec::new();
    for operator in found.watch.operators.iter().filter(|operator| is_remarkable(operator)) {
        series.push(operator.id.to_string());
        owners.extend(operator.accounts.iter().map(|member| (&member.account, operator.id.as_str())));
    }
    const OTHERS: &str = "all others";
    series.push(OTHERS.to_owned());
    let hours: Vec<i64> = opened.hours.keys().map(|(hour, _)| hour * HOUR).collect();
    let span = hours.last().copied().unwrap_or(0) - hours.first().copied().unwrap_or(0);
    let (length, unit) = if span > 2 * DAY { (DAY, "exchanges a day") } else { (HOUR, "exchanges an hour") };
    let mut buckets: BTreeMap<i64, BTreeMap<String, u64>> = BTreeMap::new();
    for ((hour, account), exchanges) in &opened.hours {
        let start = (hour * HOUR).div_euclid(length) * length;
        let owner = owners.get(account).copied().unwrap_or(OTHERS);
        *buckets.entry(start).or_default().entry(owner.to_owned()).or_default() += exchanges;
    }
    let bucket = |(start, counts)| TimelineBucket { start: Timestamp::from_milliseconds(start), counts };
    Timeline {
        unit: unit.to_owned(),
        series,
        buckets: buckets.into_iter().map(bucket).collect(),
        marks: found.watch.campaigns().flat_map(|(operator, _)| marks(operator)).collect(),
    }
}

/// When a campaign began, and when it came to which stage.
pub(in crate::commands) fn marks(operator: &Operator) -> Vec<Mark> {
    let begun = match &operator.standing {
        Standing::Campaign(campaign) => Some(Mark { at: campaign.started, label: format!("{} begins", operator.id) }),
        _ => None,
    };
    let given = operator
        .alarm
        .iter()
        .flat_map(|alarm| [("is first to be reviewed", alarm.review), ("is first at the stage act", alarm.act)]);
    let given = given.filter_map(|(what, leak)| {
        let Leak { by: at, exchanges, output_tokens, cost, .. } = leak?;
        let gone = format!("{exchanges} exchanges, {output_tokens} tokens, {cost} dollars were gone");
        Some(Mark { at, label: format!("{} {what}: {gone}", operator.id) })
    });
    begun.into_iter().chain(given).collect()
}

pub(in crate::commands) const fn is_remarkable(operator: &Operator) -> bool {
    !matches!(operator.standing, Standing::Unremarkable)
}

/// The accounts of `operators` and the links between them.
pub(in crate::commands) fn graph<'o>(operators: impl Iterator<Item = &'o Operator>) -> Graph {
    let mut graph = Graph::default();
    for operator in operators {
        for member in &operator.accounts {
            graph.nodes.push(GraphNode {
                id: member.account.to_string(),
                label: member.account.to_string(),
                group: operator.id.to_string(),
                size: member.exchanges as f64,
            });
        }
        graph.edges.extend(operator.edges.iter().map(edge));
    }
    graph
}

/// A link, with why in words and weights.
pub(in crate::commands) fn edge(edge: &Edge) -> GraphEdge {
    let words: Vec<String> =
        edge.channels.iter().map(|(channel, nats)| format!("{} {nats:+.1}", channel.name())).collect();
    GraphEdge { a: edge.a.to_string(), b: edge.b.to_string(), weight: edge.llr, why: words.join(", ") }
}

/// An operator's figures, and what speaks for and against what is said of it.
pub(in crate::commands) fn operator(operator: &Operator) -> OperatorRow {
    // A campaign's counter-evidence holds that of its purpose.
    let counter = match &operator.standing {
        Standing::Campaign(campaign) => campaign.counter.clone(),
        _ => operator.purpose.counter.clone(),
    };
    OperatorRow {
        name: operator.id.to_string(),
        standing: operator.standing.name().to_owned(),
        tone: match operator.standing {
            Standing::Campaign(_) => Tone::Finding,
            Standing::Review { .. } => Tone::Warning,
            Standing::WithinGrant { .. } => Tone::Good,
            Standing::Unremarkable => Tone::Plain,
        },
        accounts: operator.accounts.len() as u64,
        exchanges: operator.exchanges,
        output_tokens: operator.output_tokens,
        cost: operator.cost,
        first: operator.first,
        last: operator.last,
        certainty: (operator.accounts.len() > 1).then_some(operator.certainty),
        purpose: operator.purpose.archetype.name().to_owned(),
        reasons: reasons(operator),
        counter,
    }
}

/// Why the accounts belong together, each kind of evidence once with its mean weight, and what they are used for.
fn reasons(operator: &Operator) -> Vec<Reason> {
    let mut by_channel: BTreeMap<_, (f64, f64, &str)> = BTreeMap::new();
    for reason in operator.accounts.iter().flat_map(|member| &member.reasons) {
        let (total, heaviest, words) = by_channel.entry(reason.channel).or_insert((0.0, f64::MIN, ""));
        *total += reason.weight;
        if reason.weight > *heaviest {
            (*heaviest, *words) = (reason.weight, &reason.words);
        }
    }
    let members = operator.accounts.len().max(1) as f64;
    let mut linked: Vec<(f64, String)> = by_channel
        .into_iter()
        .map(|(channel, (total, _, words))| (total / members, format!("{}: {words}", channel.name())))
        .collect();
    linked.sort_by(|one, other| other.0.total_cmp(&one.0));
    let purpose = operator.purpose.reasons.iter().map(|words| Reason { words: words.clone(), weight: None });
    linked.into_iter().map(|(weight, words)| Reason { words, weight: Some(weight) }).chain(purpose).collect()
}

/// Other tests: first whether a server is what it is said to be, before which nothing that it answered counts; then what is exact.
fn tests(found: &Found) -> Vec<OtherTest> {
    let mut pages: Vec<OtherTest> =
        found.reports.iter().filter_map(|(file, report)| super::tests::page(report, file)).collect();
    pages.sort_by_key(|page| (page.question != Question::Endpoint, page.basis == Basis::Controls));
    pages
}

fn suspect((file, trace): (&str, &Trace)) -> SuspectPage {
    let points_at: Vec<String> = trace.verdict.points_at.iter().map(ToString::to_string).collect();
    let baseline = |baseline: &anbiq_trace::Baseline| {
        format!(
            "Blind baseline, {}: the served draw ranks first in {:.1} % of the pairs (two-sided p = {:.3}).",
            baseline.name,
            100.0 * baseline.win_rate,
            baseline.p_value
        )
    };
    let all = &trace.all_traffic;
    SuspectPage {
        name: trace.protocol.suspect.clone(),
        question: super::tests::question(trace.kind()),
        file: file.to_owned(),
        teacher: trace.protocol.teacher.clone(),
        verdict: strength(trace.verdict.strength),
        words: trace.verdict.sentence.clone(),
        points_at: (!points_at.is_empty()).then(|| points_at.join(", ")),
        null_hypothesis: trace.protocol.null_hypothesis.clone(),
        randomness: trace.protocol.random.clone(),
        error_rate: trace.error_rate.clone(),
        statistic: trace.protocol.statistic_in_words.clone(),
        p_value: all.p_exact,
        log10_e: all.log10_e,
        n: all.n as u64,
        wins: all.wins as u64,
        plot: Plot {
            differences: trace.rows.iter().filter_map(served_less_twin).collect(),
            log10_e: all.path.iter().map(|point| point.log10_e).collect(),
        },
        per_operator: trace
            .per_operator
            .iter()
            .map(|operator| OperatorTest {
                operator: operator.operator.to_string(),
                accounts: operator.accounts.len() as u64,
                n: operator.result.n as u64,
                wins: operator.result.wins as u64,
                p: operator.result.p_exact,
                p_holm: operator.result.p_holm,
                log10_e: operator.result.log10_e,
            })
            .collect(),
        per_part: trace
            .per_slice
            .iter()
            .map(|slice| PartTest {
                part: slice.slice.clone(),
                n: slice.result.n as u64,
                wins: slice.result.wins as u64,
                p: slice.result.p_exact,
                p_holm: slice.result.p_holm,
                log10_e: slice.result.log10_e,
            })
            .collect(),
        power: power(trace),
        excluded: excluded(trace),
        counter_evidence: trace.blind_baseline.baselines.iter().map(baseline).collect(),
        rival_explanations: trace.rival_explanations.clone(),
        does_not_show: trace.does_not_show.clone(),
    }
}

/// The statistic of one pair: positive where the suspect prefers what was served.
fn served_less_twin(row: &anbiq_trace::Row) -> Option<f64> {
    let sign = if row.served == 0 { 1.0 } else { -1.0 };
    row.value.map(|value| sign * value)
}

fn power(trace: &Trace) -> Vec<String> {
    let power = &trace.power;
    let found = |rate: Option<f64>, chance: &str| match rate {
        Some(rate) => format!(
            "{} pairs establish a suspect that prefers {:.1} % of the served answers, with {chance} probability.",
            power.n,
            100.0 * rate
        ),
        None => format!("{} pairs are too few to establish anything with {chance} probability.", power.n),
    };
    vec![found(power.win_rate_at_50, "50 %"), found(power.win_rate_at_90, "90 %")]
}

fn excluded(trace: &Trace) -> Vec<String> {
    let Some(acquittal) = &trace.acquittal else { return Vec::new() };
    let bound = |bound: &anbiq_trace::Bound| {
        let of = bound.operator.as_ref().map(ToString::to_string).or_else(|| bound.slice.clone());
        let of = of.map_or_else(|| "all traffic".to_owned(), |of| format!("the pairs of {of}"));
        let word = if bound.excluded { "excluded" } else { "not excluded" };
        format!(
            "Of {of} it prefers the served draw in at most {:.1} % (99.9 % confidence; p = {:.1e}): {word}.",
            100.0 * bound.upper,
            bound.p_value
        )
    };
    let first = format!("{} (among the students: p = {:.3})", acquittal.alternative, acquittal.p_students);
    let not_covered = acquittal.not_covered.iter().map(|of| format!("Of {of} there are too few pairs: not excluded."));
    let bounds = acquittal.bounds.iter().map(bound).chain(not_covered);
    std::iter::once(first).chain(bounds).chain(acquittal.rests_on.iter().cloned()).collect()
}

pub(super) const fn strength(strength: anbiq_trace::Strength) -> Strength {
    match strength {
        anbiq_trace::Strength::Contradicted => Strength::Contradicted,
        anbiq_trace::Strength::NotShown => Strength::NotShown,
        anbiq_trace::Strength::Moderate => Strength::Moderate,
        anbiq_trace::Strength::Strong => Strength::Strong,
        anbiq_trace::Strength::Established => Strength::Established,
    }
}

fn licence(found: &Found, opened: &Opened) -> Licence {
    let grant = |entry: &Entry| match entry {
        Entry::GrantGiven { grant } => Some(grant_row(grant, &found.watch)),
        _ => None,
    };
    Licence {
        terms: opened.terms.iter().map(terms_page).collect(),
        grants: opened.entries.iter().filter_map(grant).collect(),
    }
}

fn terms_page(terms: &Terms) -> TermsPage {
    let permission = match terms.distillation {
        Permission::Allowed => "allowed",
        Permission::Conditions => "allowed under the conditions",
        Permission::GrantRequired => "only with a grant",
        Permission::Forbidden => "forbidden",
        Permission::Unknown => "not said",
    };
    TermsPage {
        name: format!("{} version {}", terms.id, terms.version),
        teacher: terms.teacher.clone(),
        permission: permission.to_owned(),
        conditions: conditions(&terms.conditions),
        text: terms.text.clone(),
    }
}

fn grant_row(grant: &Grant, findings: &Findings) -> GrantRow {
    let holder = findings
        .operators
        .iter()
        .find(|operator| operator.accounts.iter().any(|member| member.account == grant.account));
    GrantRow {
        grant: grant.id.to_string(),
        account: grant.account.to_string(),
        purpose: grant.purpose.clone(),
        conditions: conditions(&grant.conditions),
        given: grant.given,
        expires: grant.expires,
        state: holder.map_or_else(|| "not used".to_owned(), |operator| operator.standing.name().to_owned()),
    }
}

fn conditions(conditions: &Conditions) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(parameters) = conditions.max_student_parameters {
        words.push(format!("a student of at most {parameters} parameters"));
    }
    if let Some(tokens) = conditions.max_output_tokens {
        words.push(format!("at most {tokens} completion tokens"));
    }
    if !conditions.competing_use {
        words.push("no competing use".to_owned());
    }
    if let Some(attribution) = &conditions.attribution {
        words.push(format!("the student's card says: {attribution}"));
    }
    words
}

fn student(report: &Student) -> StudentRow {
    let own = report.column("student");
    let beside = report.column("scratch").map_or_else(String::new, |scratch| {
        let mut words = Vec::new();
        if let Some(loss) = scratch.held_out_loss {
            words.push(format!("held-out loss {loss:.3}"));
        }
        if let Some(agreement) = scratch.agreement {
            words.push(format!("agreement {:.1} %", 100.0 * agreement.top1));
        }
        if let Some(tasks) = scratch.tasks {
            words.push(format!("tasks {:.1} %", 100.0 * tasks.share()));
        }
        words.join(", ")
    });
    StudentRow {
        name: report.student.clone(),
        trained_on: report.clearance.basis.clone(),
        parameters: report.parameters,
        tokens: report.cost.training_tokens,
        cost: report.cost.price.unwrap_or(Money::ZERO),
        cpu_seconds: report.cost.stage_cpu_seconds,
        held_out_loss: own.and_then(|own| own.held_out_loss),
        agreement: own.and_then(|own| own.agreement).map(|agreement| agreement.top1),
        accuracy: own.and_then(|own| own.tasks).map(|tasks| tasks.share()),
        beside,
    }
}
