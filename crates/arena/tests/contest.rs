//! A small contest on generated traffic.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::OnceLock;

use anbiq_arena::{Class, Method, Plan, Standings, contest, page, render_text};

const PLAN: Plan = Plan { seed: 2, seeds: 1, quick: true, large: false, brief: true, data: None };

fn standings() -> &'static Standings {
    static HELD: OnceLock<Standings> = OnceLock::new();
    HELD.get_or_init(|| contest(&PLAN, &mut |_| {}).unwrap())
}

#[test]
fn nobody_honest_is_accused() {
    for row in standings().classes.iter().filter(|row| row.class != Class::Infested) {
        assert_eq!(row.accused.hits, 0, "{}", row.class.name());
        assert!(row.accused.of > 0, "{} takes part", row.class.name());
    }
}

/// In worlds of a few hundred accounts a campus, a firm or the accounts of one person are a good part of all that there is to compare
/// with.
#[test]
fn nobody_honest_comes_before_a_person_because_worlds_are_small() {
    for seed in [1, 31] {
        let standings = contest(&Plan { seed, ..PLAN }, &mut |_| {}).unwrap();
        for row in standings.classes.iter().filter(|row| row.class.is_honest()) {
            assert_eq!(row.accused.hits, 0, "seed {seed}: {}", row.class.name());
            assert_eq!(row.reviewed.hits, 0, "seed {seed}: {}", row.class.name());
        }
        let joined = standings.linking.iter().filter(|row| row.method == Method::Anbiq);
        joined.for_each(|row| assert!(row.linking.pair_precision() >= 0.99, "seed {seed}: {row:?}"));
    }
}

#[test]
fn a_campaign_that_shares_nothing_but_its_prompts_comes_before_a_person() {
    for row in standings().campaigns.iter().filter(|row| !row.campaign.shared) {
        assert_eq!((row.found.hits, row.accused.hits), (row.found.of, 0), "{}", row.campaign.name());
    }
}

#[test]
fn a_campaign_with_something_shared_is_found() {
    let shared = || standings().campaigns.iter().filter(|row| row.campaign.shared);
    assert!(shared().count() >= 2);
    for row in shared() {
        assert_eq!(row.found.hits, row.found.of, "{}", row.campaign.name());
    }
}

#[test]
fn hard_negatives_are_most_of_the_volume_and_trip_the_baselines() {
    assert!(standings().hard > 0.5, "{}", standings().hard);
    let flagged = |class: Class, method: Method| {
        standings().classes.iter().find(|row| row.class == class).unwrap().flagged[&method].value()
    };
    // They would otherwise say nothing of what sets a detector apart.
    assert!(flagged(Class::Application, Method::Mmd) > 0.9);
    assert!(flagged(Class::Seats, Method::Linkage) > 0.2);
    assert!(flagged(Class::Chat, Method::Mmd) < 0.1);
}

#[test]
fn links_are_sure() {
    let ours = standings().linking.iter().filter(|row| row.method == Method::Anbiq);
    for row in ours {
        assert!(row.linking.pair_precision() >= 0.99, "{row:?}");
    }
}

#[test]
fn it_is_told_as_text_as_a_page_and_as_json() {
    let text = render_text(standings());
    let page = page(standings());
    for class in Class::HONEST {
        assert!(text.contains(class.name()) && page.contains(class.name()), "{}", class.name());
    }
    assert!(
        page.contains("<svg") && !page.contains("<script") && !page.contains("http://") && !page.contains("https://")
    );
    let json = serde_json::to_string(standings()).unwrap();
    // Numbers with a fraction may come back with another last digit.
    let back: Standings = serde_json::from_str(&json).unwrap();
    let counts = |standings: &Standings| standings.classes.iter().map(|row| row.reviewed.of).collect::<Vec<_>>();
    assert_eq!(counts(&back), counts(standings()));
    assert_eq!(back.campaigns[0].campaign, standings().campaigns[0].campaign);
}

#[test]
fn a_seed_fixes_everything_but_the_speed() {
    let mut again = contest(&PLAN, &mut |_| {}).unwrap();
    again.rate = standings().rate;
    assert_eq!(&again, standings());
}
