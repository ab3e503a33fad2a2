use std::fmt::Write as _;

use anbiq_domain::GrantId;

use crate::alarm::{Alarm, Stage};
use crate::report::{Campaign, Operator, Report, Standing};

/// Accounts of a campaign that are shown one by one.
const SHOWN: usize = 4;

/// The report for a person at a terminal: plain, aligned, short. Everything else is in the JSON.
pub fn render_text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut text, report);
    text
}

fn write_all(text: &mut String, report: &Report) -> std::fmt::Result {
    let count = |name: &str| report.operators.iter().filter(|operator| operator.standing.name() == name).count();
    writeln!(
        text,
        "{} accounts, {} exchanges, {} to {}",
        report.accounts, report.exchanges, report.first, report.last
    )?;
    let linked = report.operators.iter().filter(|operator| operator.accounts.len() > 1).count();
    writeln!(
        text,
        "{linked} operators of several accounts; {} campaigns, {} for review, {} within a grant",
        count("campaign"),
        count("review"),
        count("within its grant"),
    )?;
    for note in &report.notes {
        writeln!(text, "note: {note}")?;
    }
    for operator in &report.operators {
        match &operator.standing {
            Standing::Campaign(campaign) => write_campaign(text, operator, campaign)?,
            Standing::Unremarkable if operator.accounts.len() == 1 => {}
            _ => write_operator(text, operator)?,
        }
    }
    Ok(())
}

fn write_operator(text: &mut String, operator: &Operator) -> std::fmt::Result {
    writeln!(text)?;
    writeln!(text, "{:<18} {}", operator.standing.name().to_uppercase(), operator.id)?;
    write_figures(text, operator)?;
    match &operator.standing {
        Standing::WithinGrant { grants, used, allowed } => {
            let names: Vec<&str> = grants.iter().map(GrantId::as_str).collect();
            let bound = allowed.map_or("no bound".to_owned(), |allowed| format!("of {allowed}"));
            line(text, "grant", &format!("{}: {used} tokens {bound}", names.join(", ")))?;
        }
        Standing::Review { why } => {
            for reason in why {
                line(text, "why", reason)?;
            }
        }
        _ => {}
    }
    operator.alarm.as_ref().map_or(Ok(()), |alarm| write_alarm(text, alarm))
}

fn write_alarm(text: &mut String, alarm: &Alarm) -> std::fmt::Result {
    if alarm.stage == Stage::Watch && alarm.first().is_none() {
        return Ok(());
    }
    let evidence = format!("{:.1} nats of {:.1} in later exchanges", alarm.nats, alarm.needed);
    line(text, "stage", &format!("{} ({evidence})", alarm.stage.name()))?;
    let given = [("review", alarm.review), ("act", alarm.act)];
    for (name, leak) in given.into_iter().filter_map(|(name, leak)| Some((name, leak?))) {
        let gone = format!("{} exchanges, {} tokens, ${} were gone", leak.exchanges, leak.output_tokens, leak.cost);
        line(text, name, &format!("from {} on: {gone}", leak.by))?;
    }
    Ok(())
}

fn write_campaign(text: &mut String, operator: &Operator, campaign: &Campaign) -> std::fmt::Result {
    write_operator(text, operator)?;
    line(text, "breach", &campaign.breach)?;
    line(text, "started", &campaign.started.to_string())?;
    for reason in &operator.purpose.reasons {
        line(text, "for", reason)?;
    }
    for reason in &campaign.counter {
        line(text, "against", reason)?;
    }
    for member in operator.accounts.iter().take(SHOWN) {
        writeln!(
            text,
            "  {:<24} {:>5} exchanges  certainty {:.3}  {:+.1} nats",
            member.facts.account.as_str(),
            member.facts.exchanges,
            member.certainty,
            member.weight
        )?;
        for reason in &member.reasons {
            writeln!(text, "    {:<11} {:>+5.1}  {}", reason.channel.name(), reason.weight, reason.words)?;
        }
    }
    if operator.accounts.len() > SHOWN {
        writeln!(text, "  and {} more accounts", operator.accounts.len() - SHOWN)?;
    }
    Ok(())
}

fn write_figures(text: &mut String, operator: &Operator) -> std::fmt::Result {
    let certainty = format!("{} (certainty {:.3})", operator.accounts.len(), operator.certainty);
    line(text, "accounts", &certainty)?;
    line(text, "exchanges", &format!("{} ({} twinned)", operator.exchanges, operator.twinned))?;
    line(text, "served", &format!("{} output tokens for ${}", operator.output_tokens, operator.cost))?;
    line(text, "active", &format!("{} to {}", operator.first, operator.last))?;
    let purpose = &operator.purpose;
    line(text, "purpose", &format!("{} (harvest {:+.1} nats)", purpose.archetype.name(), purpose.score))
}

fn line(text: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(text, "  {name:<10} {value}")
}
