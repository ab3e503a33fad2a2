//! The detector on composed traffic.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod alarms;
mod compose;
mod indicators;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use anbiq_domain::{AccountId, Entry, Grant, Permission};
use anbiq_watch::{Config, Report, Standing, analyze, render_text};
use compose::{Operator, World, world};

const SEEDS: std::ops::Range<u64> = 1..7;

fn watch(world: &World) -> Report {
    analyze(world.entries.iter().cloned(), &Config::default())
}

fn accused(report: &Report) -> BTreeSet<AccountId> {
    report.campaigns().flat_map(|(operator, _)| operator.accounts.iter().map(|member| member.account.clone())).collect()
}

fn reviewed(report: &Report) -> BTreeSet<AccountId> {
    let review = report.operators.iter().filter(|operator| matches!(operator.standing, Standing::Review { .. }));
    let accounts = review.flat_map(|operator| operator.accounts.iter().map(|member| member.account.clone()));
    // The firm whose application runs day and night over a pool of keys with three moulds: nothing that watch sees tells it
    // from a narrow harvest, so it comes before a person and is never accused.
    accounts.filter(|account| !account.as_str().starts_with("pool-")).collect()
}

#[test]
fn the_campaign_is_found_and_nobody_else_accused() {
    for seed in SEEDS {
        let world = world(seed, Operator::Sloppy);
        let report = watch(&world);
        let text = render_text(&report);
        assert_eq!(report.campaigns().count(), 1, "seed {seed}\n{text}");
        let accused = accused(&report);
        assert!(accused.is_subset(&world.harvesters), "seed {seed}\n{text}");
        assert!(accused.len() >= 38, "seed {seed}: {} accounts\n{text}", accused.len());
        assert!(reviewed(&report).is_empty(), "seed {seed}\n{text}");
        licensee_is_within_its_grant(&report, &world);
        let (operator, campaign) = report.campaigns().next().unwrap();
        assert!(operator.accounts.iter().all(|member| member.reasons.len() >= 2), "{text}");
        assert_eq!(campaign.started, operator.first);
        assert_eq!(campaign.timeline.iter().map(|bucket| bucket.exchanges).sum::<u64>(), operator.exchanges);
    }
}

#[test]
fn accounts_opened_all_at_once_are_told_apart_by_the_rest() {
    let mut found = Vec::new();
    for seed in 1..4 {
        let world = world(seed, Operator::Imported);
        let report = watch(&world);
        let text = render_text(&report);
        assert_eq!(report.campaigns().count(), 1, "seed {seed}\n{text}");
        let accused = accused(&report);
        assert!(accused.is_subset(&world.harvesters), "seed {seed}\n{text}");
        found.push(accused.len());
    }
    // Nine of ten of the forty of each world.
    assert!(found.iter().sum::<usize>() >= 108, "{found:?}");
}

#[test]
fn blocking_finds_the_campaign_without_looking_at_every_pair() {
    for seed in 1..4 {
        let world = world(seed, Operator::Sloppy);
        let config = Config { all_pairs_up_to: 10, ..Config::default() };
        let report = analyze(world.entries.iter().cloned(), &config);
        let text = render_text(&report);
        let accused = accused(&report);
        assert_eq!(report.campaigns().count(), 1, "seed {seed}\n{text}");
        assert!(accused.is_subset(&world.harvesters) && accused.len() >= 36, "seed {seed}: {}\n{text}", accused.len());
    }
}

#[test]
fn a_world_of_another_size_is_judged_alike() {
    // The last operator is most of the world that it is compared with.
    for (seed, honest, accounts) in [(1, 150, 12), (3, 20, 100), (5, 20, 250)] {
        let world = compose::sized(seed, Operator::Sloppy, honest, accounts);
        let report = watch(&world);
        let text = render_text(&report);
        let accused = accused(&report);
        assert_eq!(report.campaigns().count(), 1, "seed {seed}\n{text}");
        assert!(accused.is_subset(&world.harvesters), "seed {seed}\n{text}");
        assert!(10 * accused.len() >= 9 * accounts, "seed {seed}: {}\n{text}", accused.len());
    }
}

#[test]
fn without_shared_metadata_it_comes_before_a_person_and_nobody_is_accused() {
    for seed in SEEDS {
        let world = world(seed, Operator::Clean);
        let report = watch(&world);
        let text = render_text(&report);
        assert!(accused(&report).is_subset(&world.harvesters), "seed {seed}\n{text}");
        let reviewed = reviewed(&report);
        assert!(reviewed.is_subset(&world.harvesters), "seed {seed}\n{text}");
        // Burst, prompts and pace together bring it before a person; none of them could be left out, so it is no accusation.
        assert!(reviewed.len() + accused(&report).len() >= 30, "seed {seed}\n{text}");
        licensee_is_within_its_grant(&report, &world);
    }
}

#[test]
fn a_machine_that_talks_like_people_comes_before_a_person_and_monitors_do_not() {
    for seed in 1..4 {
        let world = compose::sized(seed, Operator::Covered, 18, 16);
        let report = watch(&world);
        let text = render_text(&report);
        assert!(accused(&report).is_empty(), "seed {seed}\n{text}");
        let reviewed = reviewed(&report);
        assert!(reviewed.is_subset(&world.harvesters), "seed {seed}: {reviewed:?}\n{text}");
        assert!(2 * reviewed.len() >= world.harvesters.len(), "seed {seed}: {}\n{text}", reviewed.len());
    }
}

#[test]
fn a_world_without_an_operator_is_quiet() {
    for seed in SEEDS {
        let world = world(seed, Operator::None);
        let report = watch(&world);
        let text = render_text(&report);
        assert!(accused(&report).is_empty() && reviewed(&report).is_empty(), "seed {seed}\n{text}");
        licensee_is_within_its_grant(&report, &world);
    }
}

/// What becomes of the licensee when its grant no longer explains what it does.
#[test]
fn a_grant_explains_only_what_it_covers() {
    type Change = fn(&mut Grant);
    let bounded: Change = |grant| grant.conditions.max_output_tokens = Some(10_000);
    let expiring: Change = |grant| grant.expires = Some(grant.given.plus_milliseconds(2 * compose::DAY));
    let elsewhere: Change = |grant| grant.account = AccountId::new("home-0").unwrap();
    for (name, change, why) in [
        ("volume", bounded, "which allows 10000"),
        ("expiry", expiring, "went on after grant grant-1 ended"),
        ("another's", elsewhere, "looks like a harvest of 600 exchanges"),
    ] {
        let mut world = world(1, Operator::None);
        let mut end = None;
        for entry in &mut world.entries {
            match entry {
                Entry::GrantGiven { grant } => {
                    change(grant);
                    end = grant.expires;
                    // The gateway refuses what no grant of the account allows, so such exchanges carry none.
                    if name == "another's" {
                        end = Some(grant.given);
                    }
                }
                Entry::Exchange(exchange) if end.is_some_and(|end| exchange.at >= end) => exchange.grant = None,
                _ => {}
            }
        }
        let report = watch(&world);
        let operator = find(&report, &world.licensee);
        let Standing::Review { why: said } = &operator.standing else { panic!("{name}: {:?}", operator.standing) };
        assert!(said.iter().any(|reason| reason.contains(why)), "{name}: {said:?}");
        assert!(accused(&report).is_empty());
    }
}

#[test]
fn a_harvest_that_the_terms_allow_is_no_campaign() {
    for (permission, standing) in
        [(Permission::Allowed, "unremarkable"), (Permission::Unknown, "review"), (Permission::Forbidden, "campaign")]
    {
        let mut world = world(1, Operator::Sloppy);
        for entry in &mut world.entries {
            if let Entry::TermsIssued { terms, .. } = entry {
                terms.distillation = permission;
            }
        }
        let report = watch(&world);
        let operator = find(&report, world.harvesters.first().unwrap());
        assert_eq!(operator.standing.name(), standing, "{permission:?}");
        assert_eq!(operator.accounts.len(), 40);
    }
}

#[test]
fn the_same_entries_give_the_same_bytes() {
    let world = world(1, Operator::Sloppy);
    let json = |report: &Report| serde_json::to_string(report).unwrap();
    let first = json(&watch(&world));
    assert_eq!(first, json(&watch(&world)));
    assert_eq!(json(&serde_json::from_str(&first).unwrap()), first);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let world = world(1, Operator::Sloppy);
    for all_pairs_up_to in [10, 600] {
        let json = |threads: usize| {
            let config = Config { threads: NonZeroUsize::new(threads), all_pairs_up_to, ..Config::default() };
            serde_json::to_string(&analyze(world.entries.iter().cloned(), &config)).unwrap()
        };
        let one = json(1);
        for threads in [2, 5] {
            assert!(json(threads) == one, "{threads} threads, {all_pairs_up_to}");
        }
    }
}

#[test]
fn no_entries_are_no_findings() {
    let report = analyze(std::iter::empty::<Entry>(), &Config::default());
    assert!(report.operators.is_empty() && report.accounts == 0);
}

fn find<'a>(report: &'a Report, account: &AccountId) -> &'a anbiq_watch::Operator {
    let has = |operator: &&anbiq_watch::Operator| operator.accounts.iter().any(|member| member.account == *account);
    report.operators.iter().find(has).unwrap()
}

fn licensee_is_within_its_grant(report: &Report, world: &World) {
    let has =
        |operator: &&anbiq_watch::Operator| operator.accounts.iter().any(|member| member.account == world.licensee);
    let operator = report.operators.iter().find(has).unwrap();
    assert!(matches!(operator.standing, Standing::WithinGrant { .. }), "{operator:#?}");
}

/// Prints what the report looks like: `cargo test -p anbiq-watch -- --ignored --nocapture`.
#[test]
#[ignore = "for people"]
fn show() {
    for (honest, accounts) in [(300, 20), (500, 40), (2_000, 100)] {
        let world = compose::sized(1, Operator::Sloppy, honest, accounts);
        let start = std::time::Instant::now();
        let report = watch(&world);
        let (found, exchanges) = (accused(&report), report.exchanges);
        let honest_found = found.difference(&world.harvesters).count();
        println!(
            "{} accounts, {exchanges} exchanges: {} of {accounts} accused, {honest_found} honest, {} reviewed, in {:?}",
            report.accounts,
            found.len(),
            reviewed(&report).len(),
            start.elapsed()
        );
    }
    for (name, kind) in [
        ("sloppy", Operator::Sloppy),
        ("imported", Operator::Imported),
        ("clean", Operator::Clean),
        ("none", Operator::None),
    ] {
        let last = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS.end);
        for seed in SEEDS.start..last {
            let world = world(seed, kind);
            let start = std::time::Instant::now();
            let report = watch(&world);
            let mut largest: Vec<(usize, usize, &str, f64, f64)> = Vec::new();
            for operator in report.operators.iter().filter(|operator| operator.accounts.len() > 1) {
                let hits = operator.accounts.iter().filter(|member| world.harvesters.contains(&member.account)).count();
                largest.push((
                    operator.accounts.len(),
                    hits,
                    operator.standing.name(),
                    operator.purpose.score,
                    operator.certainty,
                ));
            }
            println!("{name} {seed}: {:?} in {:?}", largest, start.elapsed());
            if seed == 1 && std::env::var_os("LONG").is_some() {
                println!("{}", render_text(&report));
                for operator in
                    report.operators.iter().filter(|operator| operator.accounts.len() > 1 || operator.exchanges > 200)
                {
                    println!(
                        "{} {:?}\n {:?}\n {:?}\n  {:?}\n  {:?}",
                        operator.accounts[0].account,
                        operator.standing.name(),
                        operator.survival,
                        operator.purpose.fits,
                        operator.purpose.reasons,
                        operator.purpose.counter
                    );
                }
            }
        }
    }
}
