//! What is not worked out changes nothing: candidates, bounds and merges against the long way round.

use std::collections::{BTreeMap, HashMap};

use anbiq_domain::{
    AccountId, Client, Digest, Draws, Entry, Exchange, ExchangeId, KeyId, Keyed, Money, Outcome, PlanId, Refusal,
    RequestFacts, Seeded, Sketch, Timestamp, Usage,
};

use crate::Config;
use crate::bound::SLACK;
use crate::campaign::Desk;
use crate::cells::Cells;
use crate::link::{Linker, rarity};
use crate::report::Channel;
use crate::world::World;

const HOUR: i64 = 3_600_000;

/// Many accounts that share some things by chance, some of them in small groups that share much.
fn world(seed: u64, accounts: usize, config: &Config) -> World {
    let mut random = Seeded::new(seed);
    let mut entries = Vec::new();
    for number in 0..accounts {
        let group = (number % 5 == 0).then_some(number / 40);
        let of_group = |kind: u64, own: u64| Keyed(group.map_or(own, |group| kind << 40 | group as u64));
        let account = AccountId::new(format!("account-{number:04}")).unwrap();
        let opened = match group {
            Some(group) => group as i64 * 11 * HOUR + random.below(HOUR as usize) as i64,
            None => random.below(2_000 * HOUR as usize) as i64,
        };
        let payment = random.chance(0.9).then(|| of_group(1, random.bits()));
        entries.push(Entry::AccountOpened {
            at: Timestamp::from_milliseconds(opened),
            account: account.clone(),
            plan: PlanId::new("plan").unwrap(),
            payment,
        });
        let (network, agent) = (random.below(200) as u64, Keyed(random.below(12) as u64));
        let kinds: Vec<u64> = (0..4).map(|_| random.below(60) as u64).collect();
        let renewed = 3_000 + random.below(60) as i64;
        for _ in 0..4 + random.below(30) {
            let hour = 2_900 + random.below(300) as i64;
            let at = Timestamp::from_milliseconds(hour * HOUR + random.below(HOUR as usize) as i64);
            let kind = group.map_or(kinds[random.below(4)], |group| 100 + group as u64);
            let network = of_group(2, if random.chance(0.5) { network } else { random.bits() });
            if random.chance(0.05) {
                let code = "rate_limit_exceeded".to_owned();
                entries.push(Entry::Refused(Refusal { at, account: account.clone(), code }));
            }
            entries.push(exchange(&account, at, (kind, random.below(40) as u64), network, agent, hour > renewed));
        }
    }
    entries.sort_by_key(Entry::at);
    let mut world = World::default();
    entries.into_iter().for_each(|entry| world.take(entry, config));
    world.settle();
    world
}

fn exchange(
    account: &AccountId,
    at: Timestamp,
    (kind, item): (u64, u64),
    network: Keyed,
    agent: Keyed,
    renewed: bool,
) -> Entry {
    let exact = Keyed(kind << 32 | item.wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
    let sketch = Sketch { exact, opening: Keyed(kind), minhash: [kind as u32; 32], words: 9, flags: 0 };
    Entry::Exchange(Box::new(Exchange {
        id: ExchangeId::fresh(at, &mut Seeded::new(kind ^ item)),
        at,
        duration_ms: 1,
        account: account.clone(),
        key: KeyId::new("key").unwrap(),
        model: if renewed { "new" } else { "old" }.into(),
        terms: None,
        grant: None,
        request: RequestFacts { max_tokens: 64 << (kind % 3), n: 1, ..RequestFacts::default() },
        client: Client { address: network, network, agent },
        sketch,
        usage: Usage { prompt_tokens: 20, completion_tokens: 30, ..Usage::default() },
        cost: Money::from_nanos(1),
        outcome: Outcome::Completed,
        draws: Draws {
            prompt: Digest::of(b""),
            texts: Vec::new(),
            open: Vec::new(),
            fingerprints: Vec::new(),
            twinning: None,
        },
        texts: None,
        sealed: None,
    }))
}

/// Fewer accounts than the usual ones, so that not all pairs are examined.
fn config() -> Config {
    Config { all_pairs_up_to: 50, ..Config::default() }
}

/// Blocks in which every two of a block are written down.
fn candidates(linker: &Linker<'_>) -> Vec<(usize, usize)> {
    let count = linker.profiles.len();
    let mut blocks: BTreeMap<(u8, u64, u64), Vec<usize>> = BTreeMap::new();
    for (place, profile) in linker.profiles.iter().enumerate() {
        let mut join = |kind: u8, x: u64, y: u64| blocks.entry((kind, x, y)).or_default().push(place);
        profile.payment.iter().for_each(|payment| join(0, payment.0, 0));
        profile.networks.keys().for_each(|network| join(1, network.0, 0));
        for agent in profile.agents.keys() {
            profile.settings.keys().for_each(|settings| join(2, agent.0, *settings));
        }
        linker.rows[place].iter().for_each(|(cell, _)| join(3, *cell as u64, 0));
    }
    let mut shared: Vec<HashMap<usize, f64>> = vec![HashMap::new(); count];
    let mut pair_up = |members: &[usize], nats: f64| {
        for (place, a) in members.iter().enumerate() {
            for step in 1..=linker.config.block_partners.min(members.len() / 2) {
                let b = members[(place + step) % members.len()];
                *shared[*a].entry(b).or_default() += nats;
                *shared[b].entry(*a).or_default() += nats;
            }
        }
    };
    for members in blocks.values().filter(|members| members.len() > 1 && members.len() <= count / 10) {
        pair_up(members, rarity(count, members.len() as f64));
    }
    let mut by_opening: Vec<usize> = (0..count).filter(|place| linker.profiles[*place].opened.is_some()).collect();
    by_opening.sort_by_key(|place| (linker.profiles[*place].opened, *place));
    pair_up(&by_opening, rarity(count, 10.0));
    for order in linker.pivots.in_order() {
        let order: Vec<usize> = order.into_iter().map(|place| place as usize).collect();
        pair_up(&order, rarity(count, 10.0));
    }
    for (a, b) in linker.reliefs.pairs() {
        *shared[a].entry(b).or_default() += rarity(count, 2.0);
        *shared[b].entry(a).or_default() += rarity(count, 2.0);
    }
    let mut pairs = Vec::new();
    for (place, partners) in shared.iter().enumerate() {
        let mut partners: Vec<(usize, f64)> = partners.iter().map(|(other, nats)| (*other, *nats)).collect();
        partners.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
        partners.truncate(linker.config.partners);
        pairs.extend(partners.iter().map(|(other, _)| (place.min(*other), place.max(*other))));
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

#[test]
fn candidates_are_those_that_every_block_gives() {
    for (seed, partners) in [(1, 48), (2, 5)] {
        let config = Config { partners, ..config() };
        let world = world(seed, 400, &config);
        let cells = Cells::of(&world.profiles);
        let desk = Desk::open(&world, &world.profiles, &cells, &config);
        let found = desk.linker.candidates();
        assert!(!found.all && found.pairs.len() > 1_000, "{}", found.pairs.len());
        assert_eq!(found.pairs, candidates(&desk.linker));
    }
}

#[test]
fn what_is_passed_over_is_below_its_bound() {
    let config = config();
    let world = world(3, 400, &config);
    let cells = Cells::of(&world.profiles);
    let desk = Desk::open(&world, &world.profiles, &cells, &config);
    let (mut random, mut passed) = (Seeded::new(3), 0);
    for _ in 0..3_000 {
        let (a, b) = (random.below(400), random.below(400));
        let (floor, whole) = (8.0 * random.unit() - 2.0, desk.linker.pair(a, b));
        match desk.linker.pair_above(a, b, floor) {
            Some(evidence) => assert_eq!(evidence, whole),
            None => assert!(whole.total(None) <= floor, "{} {floor}", whole.total(None)),
        }
        passed += usize::from(desk.linker.pair_above(a, b, floor).is_none());
    }
    assert!(passed > 300, "{passed}");
    for _ in 0..300 {
        let mut some = |most: usize| (0..1 + random.below(most)).map(|_| random.below(400)).collect::<Vec<_>>();
        let (a, b) = (some(6), some(6));
        let pairs = desk.linker.between(&a, &b);
        let most = desk.linker.at_most(&a, &b);
        let pooled = desk.linker.pooled(&a, &b, &pairs);
        for channel in Channel::ALL {
            let mean = pairs.iter().map(|pair| pair.0.of(channel)).sum::<f64>() / pairs.len() as f64;
            assert!(mean <= most[0].of(channel) + SLACK, "{channel:?} of pairs: {mean} {most:?}");
            let pooled = pooled.of(channel);
            assert!(pooled <= most[1].of(channel) + SLACK, "{channel:?} of pools: {pooled} {most:?}");
        }
    }
}

#[test]
fn the_surest_groups_are_merged_first_whatever_is_remembered() {
    let config = config();
    let world = world(4, 400, &config);
    let cells = Cells::of(&world.profiles);
    let desk = Desk::open(&world, &world.profiles, &cells, &config);
    // Pieces of the groups that share much, and others that share little.
    let pieces: Vec<Vec<usize>> = (0..400).step_by(10).map(|first| vec![first, first + 5]).collect();
    let mut left = pieces.clone();
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for a in 0..left.len() {
            for b in a + 1..left.len() {
                let nats = if left[a].is_empty() || left[b].is_empty() {
                    f64::NEG_INFINITY
                } else {
                    desk.merging(&left[a], &left[b], None)
                };
                if nats > 0.0 && best.is_none_or(|best| nats > best.0) {
                    best = Some((nats, a, b));
                }
            }
        }
        let Some((_, a, b)) = best else { break };
        let gone = std::mem::take(&mut left[b]);
        left[a].extend(gone);
        left[a].sort_unstable();
    }
    left.retain(|group| !group.is_empty());
    assert!(left.len() < pieces.len(), "nothing was merged");
    assert_eq!(desk.merge_all(pieces, None), left);
}
