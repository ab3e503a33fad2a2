use std::collections::{BTreeMap, HashSet};

use anbiq_domain::Digest;

use super::*;

fn world(seed: u64, scale: Scale) -> World {
    World::compose(&WorldConfig::new(seed, scale)).unwrap()
}

fn counts(world: &World) -> BTreeMap<Group, (usize, usize)> {
    let mut counts: BTreeMap<Group, (usize, usize)> = BTreeMap::new();
    for account in &world.accounts {
        counts.entry(account.group).or_default().0 += 1;
    }
    for call in &world.calls {
        counts.entry(world.accounts[call.account].group).or_default().1 += 1;
    }
    counts
}

#[test]
fn a_world_has_its_cast() {
    for scale in [Scale::Full, Scale::Quick] {
        for seed in [1, 2, 3] {
            let counts = counts(&world(seed, scale));
            let accounts: Vec<usize> = counts.values().map(|(accounts, _)| *accounts).collect();
            assert_eq!(accounts, [10, 2, 1, 2, 1, 40]);
            let honest: usize = counts.iter().filter(|(group, _)| group.is_honest()).map(|(_, (_, calls))| calls).sum();
            let (least, most) = if scale == Scale::Full { (700, 1_000) } else { (250, 400) };
            assert!((least..most).contains(&honest), "{scale:?}: {honest} honest calls: {counts:?}");
            assert_eq!(counts[&Group::Operator].1, scale.of(1_000, 440));
            assert_eq!(counts[&Group::Licensee].1, scale.of(800, 300));
        }
    }
}

#[test]
fn calls_come_in_order_after_the_account_was_opened() {
    let world = world(4, Scale::Full);
    assert!(world.calls.is_sorted_by_key(|call| call.at));
    let mut before = HashSet::new();
    for call in &world.calls {
        let account = &world.accounts[call.account];
        assert!(call.at > account.opened, "{}", account.id);
        assert!(!call.continues || before.contains(&call.account), "nothing to go on from");
        before.insert(call.account);
        assert_eq!(call.declared, account.group == Group::Licensee);
    }
    let days = world.calls.last().unwrap().at.since(world.start) / 86_400_000;
    assert!((14..=28).contains(&days), "{days} days");
}

#[test]
fn the_operator_shares_out_one_queue() {
    let world = world(5, Scale::Full);
    let calls: Vec<&Call> =
        world.calls.iter().filter(|call| world.accounts[call.account].group == Group::Operator).collect();
    let prompts: HashSet<&str> = calls.iter().map(|call| call.messages[0].content.as_str()).collect();
    assert_eq!(prompts.len(), calls.len());
    let mut each: BTreeMap<usize, usize> = BTreeMap::new();
    calls.iter().for_each(|call| *each.entry(call.account).or_default() += 1);
    assert!(each.values().all(|count| (12..45).contains(count)), "{each:?}");
    let cards: HashSet<_> = world.group(Group::Operator).map(|account| account.payment.clone()).collect();
    assert_eq!(cards.len(), 5);
    let hours: HashSet<i64> = calls.iter().map(|call| call.at.milliseconds() / 3_600_000 % 24).collect();
    assert_eq!(hours.len(), 24);
}

#[test]
fn a_seed_fixes_the_world() {
    let digest = |seed| Digest::of(serde_json::to_string(&world(seed, Scale::Quick)).unwrap().as_bytes());
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

/// Runs on the real traces where `ANBIQ_DATA` names their folder.
#[test]
fn real_traces_are_used_where_they_are() {
    let Some(folder) = std::env::var_os("ANBIQ_DATA").map(PathBuf::from) else {
        eprintln!("skipped: ANBIQ_DATA names no folder with traces");
        return;
    };
    let config = WorldConfig { traces: Some(folder), ..WorldConfig::new(1, Scale::Full) };
    let world = World::compose(&config).unwrap();
    assert!(world.composed_from.starts_with("the gaps"), "{}", world.composed_from);
    assert!(world.calls.is_sorted_by_key(|call| call.at));
}
