//! The findings of `watch`, in the neutral words of `evidence`, for a page.

use std::collections::BTreeMap;

use anbiq_evidence::{Findings, FoundAccount, FoundOperator, FoundStage, Reason, Timeline, TimelineBucket, Tone};
use anbiq_watch::{Campaign, Member, Operator, Report, Stage, Standing};

use crate::commands::case::content;

/// Accounts of an operator that are shown one by one, and links; all others are in the JSON.
const ACCOUNTS: usize = 200;
const EDGES: usize = 100;

pub(super) fn findings(report: &Report) -> Findings {
    let told: Vec<&Operator> = report.operators.iter().filter(|operator| is_told(operator)).collect();
    let fact = |name: &str, value: String| (name.to_owned(), value);
    Findings {
        title: match report.campaigns().count() {
            0 => "No campaign was found".to_owned(),
            1 => "One campaign was found".to_owned(),
            campaigns => format!("{campaigns} campaigns were found"),
        },
        simulated: report.simulated,
        facts: vec![
            fact("From", minute(&report.first.to_string())),
            fact("To", minute(&report.last.to_string())),
            fact("Accounts", report.accounts.to_string()),
            fact("Exchanges", report.exchanges.to_string()),
            fact("Nats that a pair needed", format!("{:.1}", report.threshold)),
        ],
        summary: summary(report),
        notes: report.notes.clone(),
        graph: content::graph(told.iter().copied()),
        operators: told.iter().map(|operator| found(operator)).collect(),
        others: others(report, told.len()),
    }
}

/// Whoever is several accounts, or stands out.
fn is_told(operator: &Operator) -> bool {
    operator.accounts.len() > 1 || content::is_remarkable(operator)
}

fn others(report: &Report, told: usize) -> String {
    let alone = report.operators.len() as u64 + report.unlisted - told as u64;
    format!("{alone} accounts stand alone and are unremarkable; they are not shown here.")
}

fn summary(report: &Report) -> Vec<String> {
    let mut sentences: Vec<String> = report
        .campaigns()
        .map(|(operator, campaign)| {
            let gone = campaign.leaked.map_or_else(String::new, |leak| {
                format!(" {} exchanges and {} tokens of that were gone at the first alarm.", leak.exchanges, leak.output_tokens)
            });
            format!(
                "{} accounts are linked as one operator, {} (certainty {:.3}). From {} on they took {} exchanges and {} tokens.{gone}",
                operator.accounts.len(),
                operator.id,
                operator.certainty,
                minute(&campaign.started.to_string()),
                operator.exchanges,
                operator.output_tokens,
            )
        })
        .collect();
    let named = |name: &str| report.operators.iter().filter(|operator| operator.standing.name() == name).count();
    for (name, words) in
        [("review", "should be looked at by a person"), ("within its grant", "are within their grants")]
    {
        let count = named(name);
        if count > 0 {
            sentences.push(format!("{count} operators {words}."));
        }
    }
    if sentences.is_empty() {
        sentences.push("Nothing is to be seen.".to_owned());
    }
    sentences
}

fn found(operator: &Operator) -> FoundOperator {
    let why = match &operator.standing {
        Standing::Campaign(campaign) => vec![sentence(&campaign.breach)],
        Standing::Review { why } => why.iter().map(|why| sentence(why)).collect(),
        Standing::WithinGrant { used, allowed, .. } => {
            let bound = allowed.map_or_else(|| "without a bound".to_owned(), |allowed| format!("of {allowed}"));
            vec![format!("{used} tokens {bound} were taken under its grants.")]
        }
        Standing::Unremarkable => Vec::new(),
    };
    let campaign = match &operator.standing {
        Standing::Campaign(campaign) => Some(campaign.as_ref()),
        _ => None,
    };
    // A stage is told of whom a person should look at.
    let alarm = operator.alarm.as_ref().filter(|alarm| alarm.stage > Stage::Watch || alarm.first().is_some());
    FoundOperator {
        row: content::operator(operator),
        why,
        stage: alarm.map(|alarm| {
            format!(
                "At the stage {}: bets against its honesty have won {:.1} nats in exchanges after its accounts were linked; an alarm needs {:.1}.",
                alarm.stage.name(),
                alarm.nats,
                alarm.needed
            )
        }),
        stages: stages(operator),
        timeline: campaign.map(|campaign| timeline(operator, campaign)).unwrap_or_default(),
        fits: operator.purpose.fits.iter().map(|fit| (fit.archetype.name().to_owned(), fit.nats)).collect(),
        survival: operator.survival.iter().map(|one| (one.without.clone(), one.linked, one.largest)).collect(),
        accounts: operator.accounts.iter().take(ACCOUNTS).map(account).collect(),
        edges: operator.edges.iter().take(EDGES).map(content::edge).collect(),
        more_edges: operator.edges.len().saturating_sub(EDGES) as u64,
    }
}

fn stages(operator: &Operator) -> Vec<FoundStage> {
    let Some(alarm) = &operator.alarm else { return Vec::new() };
    let given = [(Stage::Review, Tone::Warning, alarm.review), (Stage::Act, Tone::Finding, alarm.act)];
    let stage = |(stage, tone, leak): (Stage, Tone, Option<anbiq_watch::Leak>)| {
        let leak = leak?;
        Some(FoundStage {
            name: stage.name().to_owned(),
            tone,
            since: leak.by,
            accounts: leak.accounts,
            exchanges: leak.exchanges,
            output_tokens: leak.output_tokens,
            cost: leak.cost,
            share: leak.exchanges as f64 / operator.exchanges.max(1) as f64,
        })
    };
    given.into_iter().filter_map(stage).collect()
}

fn timeline(operator: &Operator, campaign: &Campaign) -> Timeline {
    let name = operator.id.to_string();
    let minutes = campaign.timeline.first().map_or(0, |bucket| bucket.milliseconds / 60_000);
    Timeline {
        unit: match minutes {
            60 => "exchanges an hour".to_owned(),
            1_440 => "exchanges a day".to_owned(),
            minutes if minutes % 60 == 0 => format!("exchanges in {} hours", minutes / 60),
            minutes => format!("exchanges in {minutes} minutes"),
        },
        series: vec![name.clone()],
        buckets: campaign
            .timeline
            .iter()
            .map(|bucket| TimelineBucket {
                start: bucket.from,
                counts: BTreeMap::from([(name.clone(), bucket.exchanges)]),
            })
            .collect(),
        marks: content::marks(operator),
    }
}

fn account(member: &Member) -> FoundAccount {
    let reason = |reason: &anbiq_watch::Reason| Reason {
        words: format!("{}: {}", reason.channel.name(), reason.words),
        weight: Some(reason.weight),
    };
    FoundAccount {
        name: member.account.to_string(),
        opened: member.opened,
        exchanges: member.exchanges,
        output_tokens: member.output_tokens,
        per_hour: member.per_hour,
        certainty: member.certainty,
        reasons: member.reasons.iter().map(reason).collect(),
    }
}

/// A clause as a sentence.
fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    let first: String = letters.next().map(|letter| letter.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// A moment without its seconds.
fn minute(moment: &str) -> String {
    moment.get(..16).unwrap_or(moment).replace('T', " ")
}
