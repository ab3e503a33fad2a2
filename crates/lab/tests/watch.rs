//! What `watch` must find in a composed world: the operator, nobody else.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use anbiq_domain::{
    Client, ClockKind, Conditions, Draws, Entry, Exchange, ExchangeId, Grant, GrantId, JournalId, KeyId, KeyedHasher,
    Money, Outcome, Permission, Prompt, RequestFacts, Route, Seeded, Terms, TermsId, Usage,
};
use anbiq_lab::world::{Call, Group, Scale, World, WorldConfig};
use anbiq_statistics::sketch::Sketcher;
use anbiq_watch::{Standing, analyze};

/// The journal that a gateway would have kept, with made-up answers.
fn journal(world: &World, seed: u64) -> Vec<Entry> {
    let hasher = KeyedHasher::new(&[7; 32]);
    let sketcher = Sketcher::new(&[7; 32]);
    let mut random = Seeded::new(seed).fork("journal");
    let terms = Terms {
        id: TermsId::new("teacher-terms").unwrap(),
        version: 1,
        teacher: "teacher".into(),
        distillation: Permission::GrantRequired,
        conditions: Conditions::default(),
        expires: None,
        source: None,
        text: "Distillation needs a grant.".into(),
    };
    let mut entries = vec![
        Entry::Opened {
            journal: JournalId::new("test").unwrap(),
            at: world.start,
            software: "test".into(),
            clock: ClockKind::Simulated,
        },
        Entry::TermsIssued { at: world.start, terms: terms.clone() },
    ];
    let licensee = world.group(Group::Licensee).next().unwrap();
    let grant = Grant {
        id: GrantId::new("grant").unwrap(),
        account: licensee.id.clone(),
        terms: terms.reference(),
        purpose: "a small student".into(),
        conditions: Conditions { max_output_tokens: Some(1_000_000), ..Conditions::default() },
        given: licensee.opened,
        expires: None,
    };
    for account in &world.accounts {
        entries.push(Entry::AccountOpened {
            at: account.opened,
            account: account.id.clone(),
            plan: account.plan.clone(),
            payment: account.payment.as_ref().map(|payment| hasher.hash("payment", payment.as_bytes())),
        });
    }
    entries.push(Entry::GrantGiven { grant: grant.clone() });
    for call in &world.calls {
        let account = &world.accounts[call.account];
        let granted = (account.group == Group::Licensee).then(|| grant.id.clone());
        let prompt = Prompt::Chat(call.messages.clone());
        let completion_tokens = answer_tokens(call, &mut random);
        entries.push(Entry::Exchange(Box::new(Exchange {
            id: ExchangeId::fresh(call.at, &mut random),
            at: call.at,
            duration_ms: 300,
            account: account.id.clone(),
            key: KeyId::new(account.id.as_str()).unwrap(),
            model: "teacher".into(),
            terms: Some(terms.reference()),
            grant: granted,
            request: RequestFacts {
                route: Route::Chat,
                stream: call.stream,
                temperature: call.temperature,
                top_p: 1.0,
                max_tokens: call.max_tokens,
                n: 1,
                logprobs: call.logprobs,
                messages: call.messages.len() as u32 + if call.continues { 2 } else { 0 },
                ..RequestFacts::default()
            },
            client: client(&hasher, call.address, &account.agent),
            sketch: sketcher.sketch(&prompt),
            usage: Usage { prompt_tokens: 20, completion_tokens, ..Usage::default() },
            cost: Money::from_nanos(1_000 * completion_tokens as i64),
            outcome: Outcome::Completed,
            draws: Draws::commit(
                &anbiq_domain::CoinKey::from_bytes([1; 32]),
                ExchangeId::fresh(call.at, &mut random),
                &prompt,
                &[],
            ),
            texts: None,
            sealed: None,
        })));
    }
    entries
}

fn answer_tokens(call: &Call, random: &mut Seeded) -> u64 {
    use anbiq_lab::corpus::Kind;
    let mean = match call.kind {
        Kind::Story | Kind::Description => 60,
        Kind::Letter => 50,
        Kind::WordProblem | Kind::Reasoning => 27,
        Kind::Chat | Kind::Delivery | Kind::Comparison => 15,
        _ => 6,
    };
    (mean + random.below(mean / 2 + 1)) as u64
}

fn client(hasher: &KeyedHasher, address: IpAddr, agent: &str) -> Client {
    let IpAddr::V4(v4) = address else { panic!("a world has addresses of version 4") };
    let network = IpAddr::from((v4.to_bits() & (u32::MAX << 8)).to_be_bytes());
    Client {
        address: hasher.hash("address", address.to_string().as_bytes()),
        network: hasher.hash("network", network.to_string().as_bytes()),
        agent: hasher.hash("agent", agent.as_bytes()),
    }
}

#[test]
fn the_operator_is_found_and_nobody_else() {
    for (scale, seed) in [(Scale::Full, 1), (Scale::Full, 2), (Scale::Quick, 3), (Scale::Quick, 4)] {
        let traces = std::env::var_os("ANBIQ_DATA").map(Into::into);
        let world = World::compose(&WorldConfig { traces, ..WorldConfig::new(seed, scale) }).unwrap();
        let report = analyze(journal(&world, seed).into_iter(), &anbiq_watch::Config::default());
        let of = |group: Group| world.group(group).map(|account| account.id.clone()).collect::<BTreeSet<_>>();
        let (mut accused, mut granted) = (BTreeSet::new(), BTreeSet::new());
        for operator in &report.operators {
            let accounts = operator.accounts.iter().map(|member| member.account.clone());
            match &operator.standing {
                Standing::Campaign(_) => accused.extend(accounts),
                Standing::WithinGrant { .. } => granted.extend(accounts),
                Standing::Review { .. } | Standing::Unremarkable => {}
            }
        }
        let seats = of(Group::Operator);
        assert!(accused.is_subset(&seats), "{scale:?} {seed}: {:?}", accused.difference(&seats));
        assert!(accused.len() * 10 >= seats.len() * 9, "{scale:?} {seed}: {} of {}", accused.len(), seats.len());
        assert_eq!(report.campaigns().count(), 1, "{scale:?} {seed}");
        assert_eq!(granted, of(Group::Licensee), "{scale:?} {seed}");
    }
}
