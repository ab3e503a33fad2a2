//! Alarms, and what is remembered between two of them.

use anbiq_domain::{AccountId, Entry};
use anbiq_watch::{Alarms, Config, Excuse, Report, Stage, State, analyze, render_text};

use crate::compose::{self, Operator, World, world};
use crate::{accused, find};

pub(crate) fn config() -> Config {
    Config { alarms: Some(Alarms::default()), ..Config::default() }
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap()
}

fn at_act(report: &Report) -> Vec<&anbiq_watch::Operator> {
    let act =
        |operator: &&anbiq_watch::Operator| operator.alarm.as_ref().is_some_and(|alarm| alarm.stage == Stage::Act);
    report.operators.iter().filter(act).collect()
}

#[test]
fn a_campaign_comes_to_act_soon_and_nobody_else_does() {
    for seed in 1..3 {
        let world = world(seed, Operator::Sloppy);
        let report = analyze(world.entries.iter().cloned(), &config());
        let text = render_text(&report);
        assert!(report.looks > 4, "{text}");
        let [operator] = at_act(&report)[..] else { panic!("seed {seed}\n{text}") };
        assert!(
            operator.accounts.iter().all(|member| world.harvesters.contains(&member.account)),
            "seed {seed}\n{text}"
        );
        let alarm = operator.alarm.as_ref().unwrap();
        let (review, act) = (alarm.review.unwrap(), alarm.act.unwrap());
        assert!(alarm.nats >= alarm.needed && review.by <= act.by, "seed {seed}\n{text}");
        // Counted at the look, so it is what the journal has until then.
        let until = world.entries.iter().filter_map(|entry| match entry {
            Entry::Exchange(exchange) => Some(exchange),
            _ => None,
        });
        let gone = until.filter(|exchange| exchange.at <= act.by && world.harvesters.contains(&exchange.account));
        assert!(act.exchanges as usize <= gone.count() && 4 * act.exchanges <= 3 * operator.exchanges, "{text}");
        let (_, campaign) = report.campaigns().next().unwrap();
        assert_eq!(campaign.leaked, Some(review));
        assert!(alarm.against.iter().all(|(_, nats)| *nats > 0.0), "{:?}", alarm.against);
    }
}

#[test]
fn an_honest_world_gives_no_alarm() {
    for seed in 1..3 {
        let world = world(seed, Operator::None);
        let report = analyze(world.entries.iter().cloned(), &config());
        assert!(at_act(&report).is_empty(), "seed {seed}\n{}", render_text(&report));
        // A grant explains what its holder does: nothing was bet against it.
        let licensee = find(&report, &world.licensee);
        let alarm = licensee.alarm.as_ref().unwrap();
        assert!(alarm.stage == Stage::Watch && alarm.first().is_none(), "{alarm:?}");
        assert!(alarm.against.iter().all(|(_, nats)| *nats == 0.0), "{alarm:?}");
    }
}

/// Beyond what the grant covers bets begin, and there is a case for a person.
#[test]
fn beyond_its_grant_an_account_is_bet_against() {
    let mut world = world(1, Operator::None);
    for entry in &mut world.entries {
        if let Entry::GrantGiven { grant } = entry {
            grant.conditions.max_output_tokens = Some(10_000);
        }
    }
    let report = analyze(world.entries.iter().cloned(), &config());
    let alarm = find(&report, &world.licensee).alarm.clone().unwrap();
    assert_eq!(alarm.stage, Stage::Review, "{alarm:?}");
    let converses = alarm.against.iter().find(|(excuse, _)| *excuse == Excuse::Converses).unwrap();
    assert!(converses.1 > 1.0, "{alarm:?}");
}

/// A stricter setting is never earlier.
#[test]
fn fewer_false_alarms_take_more_evidence() {
    let world = world(2, Operator::Sloppy);
    let with = |false_alarms: f64| {
        let alarms = Alarms { false_alarms, look_hours: 12, ..Alarms::default() };
        let report = analyze(world.entries.iter().cloned(), &Config { alarms: Some(alarms), ..Config::default() });
        let operator = find(&report, world.harvesters.first().unwrap());
        operator.alarm.clone().unwrap()
    };
    let (loose, never) = (with(0.5), with(1e-250));
    assert!(loose.needed < never.needed && loose.nats == never.nats && loose.stage == Stage::Act);
    assert!(never.act.is_none() && never.stage == Stage::Review, "{never:?}");
}

fn followed(world: &World, config: &Config, breaks: &[usize]) -> Report {
    let mut state = State::new(config.clone());
    for (place, entry) in world.entries.iter().enumerate() {
        if breaks.contains(&place) {
            // A report changes nothing, and neither does being written down.
            let _ = state.report();
            state = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
            assert!(state.continues(config));
        }
        state.take(entry.clone());
    }
    state.report()
}

#[test]
fn following_finds_what_reading_all_at_once_finds() {
    let config = Config { samples: 16, ..config() };
    let world = compose::sized(3, Operator::Sloppy, 10, 20);
    let batch = json(&analyze(world.entries.iter().cloned(), &config));
    let all = world.entries.len();
    for breaks in [vec![all / 2], (0..all).step_by(197).collect::<Vec<_>>()] {
        assert_eq!(json(&followed(&world, &config, &breaks)), batch);
    }
    let other = Config { seed: 2, ..config.clone() };
    assert!(!State::new(config).continues(&other));
}

/// What is remembered of one account, whatever it does.
#[test]
fn an_account_takes_bounded_memory() {
    let world = world(1, Operator::Sloppy);
    let mut exchanges = world.entries.iter().filter_map(|entry| match entry {
        Entry::Exchange(exchange) => Some((**exchange).clone()),
        _ => None,
    });
    let mut state = State::new(Config::default());
    let mut bytes = Vec::new();
    let account = AccountId::new("busy").unwrap();
    for round in 0..8_i64 {
        for exchange in exchanges.by_ref().take(250) {
            let mut exchange = exchange;
            exchange.account = account.clone();
            exchange.at = exchange.at.plus_milliseconds(round * compose::DAY * 30);
            state.take(Entry::Exchange(Box::new(exchange)));
        }
        let value = serde_json::to_value(&state).unwrap();
        bytes.push(serde_json::to_vec(&value["world"]["profiles"][0]).unwrap().len());
    }
    assert_eq!(state.accounts(), 1);
    assert!(accused(&state.report()).is_empty());
    // Of JSON, in which a byte takes about two; it grows no more once all places are taken.
    assert!(bytes.iter().all(|bytes| *bytes < 9_000), "{bytes:?}");
    assert!(bytes[7] < bytes[3] + bytes[3] / 4, "{bytes:?}");
}
