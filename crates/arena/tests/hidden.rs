//! A harvest that is hidden among conversations, in generated traffic.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, HashMap};

use anbiq_arena::{Campaign, Class, History, Replay};
use anbiq_watch::{Config, Report, Standing, State};

/// What `watch` says of some days with `campaign` among honest accounts, and who is who.
fn watch(seed: u64, campaign: &Campaign) -> (Report, HashMap<String, Class>) {
    let folder = std::env::temp_dir().join(format!("anbiq-hidden-{}-{seed}-{}", std::process::id(), campaign.family));
    let history = History::compose(seed, 300, 5.0, Some(campaign), None, &folder).unwrap();
    let classes = history.classes().map(|(name, class)| (name.to_owned(), class)).collect();
    let mut state = State::new(Config::default());
    history.read(Replay::default(), &mut |_, entry| state.take(entry)).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    (state.report(), classes)
}

const ACCUSED: &str = "accused";

/// Of each class how many accounts stand before a person, by the words of why, or accused.
fn reviewed(report: &Report, classes: &HashMap<String, Class>) -> BTreeMap<(Class, String), usize> {
    let mut counts = BTreeMap::new();
    for operator in &report.operators {
        let why = match &operator.standing {
            Standing::Review { why } => why.join("\n"),
            Standing::Campaign(_) => ACCUSED.to_owned(),
            _ => continue,
        };
        for member in &operator.accounts {
            *counts.entry((classes[member.account.as_str()], why.clone())).or_default() += 1;
        }
    }
    counts
}

/// Only the campaign is before a person, and it is not accused.
fn concerns_nobody_else((class, why): &(Class, String)) -> bool {
    *class == Class::Campaign && why != ACCUSED
}

/// Ten prompts in a hundred of each of its accounts, which share nothing: no two of them show enough, all together do.
#[test]
fn what_accounts_ask_besides_their_conversations_brings_them_before_a_person() {
    for seed in [10, 12] {
        let (report, classes) = watch(seed, &Campaign::new(100, 0.9, false, 2));
        let counts = reviewed(&report, &classes);
        assert!(counts.keys().all(concerns_nobody_else), "seed {seed}: {counts:?}");
        let besides = counts.iter().filter(|((_, why), _)| why.contains("and ask besides for")).map(|(_, count)| count);
        assert!(besides.sum::<usize>() > 50, "seed {seed}: {counts:?}");
    }
}

/// Generated conversations are about few things, so that all people ask alike, and some of them look odd.
#[test]
fn people_who_ask_what_people_ask_have_nothing_in_common() {
    for seed in [3, 6] {
        let (report, classes) = watch(seed, &Campaign::new(100, 0.9, false, 0));
        let counts = reviewed(&report, &classes);
        assert!(counts.keys().all(concerns_nobody_else), "seed {seed}: {counts:?}");
    }
}
