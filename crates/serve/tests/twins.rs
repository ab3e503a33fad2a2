//! Twins of exchanges with a server behind HTTP: how they are drawn, when, for how much money, and that nobody sees them.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{Answer, Draws, Entry, Exchange, ExchangeId, Finish, Outcome, TextPolicy, TwinMode, Twins};
use anbiq_lab::mock::{Fault, Manner, Mock as Server, Pace, Various};
use anbiq_model::{Fault as Blame, ModelError};
use anbiq_upstream::{Member, Pool, PoolConfig, Upstream, UpstreamConfig};
use common::{House, Mock, NOW, Reply, Setup, Step, ask, blank, coin, hello, money, text, with};
use http_body_util::BodyExt;
use serde_json::json;

const DAY: i64 = 24 * 3_600_000;

/// Completions that are all different.
const VARIOUS: Various = Various { seed: 7, shortest: 1, longest: 12 };

fn upstream(server: &Server, several: bool) -> Upstream {
    let config = UpstreamConfig { several, ..UpstreamConfig::new("open", &*server.base_url, None) };
    Upstream::new(config).unwrap()
}

/// A house whose teacher `open` is `server`, where every exchange is twinned and the texts are kept.
fn twinned(server: &Server) -> Setup {
    let mut setup = Setup { teacher: Some(Arc::new(upstream(server, false))), ..Setup::default() };
    setup.plan.twin.share = 1.0;
    setup.plan.text_policy = TextPolicy::Twinned;
    setup
}

/// What the journal says of twins that ended after their exchange.
fn later(house: &House) -> BTreeMap<ExchangeId, Twins> {
    let twins = |entry| if let Entry::TwinsDrawn(twins) = entry { Some((twins.exchange, *twins)) } else { None };
    house.entries().into_iter().filter_map(twins).collect()
}

/// Waits until twins of so many exchanges were drawn after them.
async fn drawn_later(house: &House, count: usize) -> BTreeMap<ExchangeId, Twins> {
    loop {
        let twins = later(house);
        if twins.len() >= count {
            return twins;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn stops(house: &House) -> Vec<TwinMode> {
    let mode = |entry| if let Entry::TwinsStopped { mode, .. } = entry { Some(mode) } else { None };
    house.entries().into_iter().filter_map(mode).collect()
}

/// Both draws of an exchange, from its own entry and the later one. Checks what is committed to.
fn pair(exchange: &Exchange, later: Option<&Twins>) -> [Answer; 2] {
    let mut answers = exchange.texts.clone().unwrap().answers;
    let mut texts = exchange.draws.texts.clone();
    let twinning = exchange.draws.twinning.unwrap();
    assert_eq!(twinning.served, coin().choose(exchange.id, 2));
    assert!(!exchange.draws.open.contains(&twinning.served));
    for draw in later.iter().flat_map(|twins| &twins.draws) {
        assert_eq!(exchange.draws.open, [draw.index]);
        let twins = later.unwrap();
        assert_eq!((twins.total, twins.twinning.served), (2, twinning.served));
        twins.check(&coin()).unwrap();
        answers[usize::from(draw.index)] = draw.answer.clone().unwrap();
        texts[usize::from(draw.index)] = draw.commitment;
    }
    let commit = |(index, answer): (u8, &Answer)| Draws::commit_answer(&coin(), exchange.id, index, answer);
    assert_eq!((0..).zip(&answers).map(commit).collect::<Vec<_>>(), texts);
    answers.try_into().unwrap()
}

fn said(reply: &Reply) -> String {
    match reply.json()["choices"][0]["message"]["content"].as_str() {
        Some(text) => text.to_owned(),
        None => reply.streamed_text(),
    }
}

#[tokio::test]
async fn draws_are_equal_requests_and_the_slower_one_is_recorded_too() {
    let server = Server::start().await.unwrap();
    let pace = Pace { seed: 3, first: Duration::from_millis(2), between: Duration::from_millis(2) };
    server.answer_like(Manner {
        various: Some(VARIOUS),
        pace: Some(pace),
        fingerprint: Some("fp_1".into()),
        ..Manner::default()
    });
    let house = House::furnished(twinned(&server)).await;
    for number in 0..30 {
        let body = with(ask("open", "how many"), json!({"stream": number % 2 == 0, "top_p": 0.9}));
        let reply = house.chat(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let exchange = house.exchange(number + 1).await;
        let late = (!exchange.draws.open.is_empty()).then_some(());
        let later = match late {
            None => None,
            Some(()) => Some(loop {
                if let Some(twins) = later(&house).remove(&exchange.id) {
                    break twins;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }),
        };
        let draws = pair(&exchange, later.as_ref());
        assert_eq!(said(&reply), draws[usize::from(exchange.draws.twinning.unwrap().served)].text);
        assert_ne!(draws[0].text, draws[1].text);
        assert!(draws.iter().all(|draw| draw.finish == Finish::Stop && draw.text.contains("take")));
        let served = usize::from(exchange.draws.twinning.unwrap().served);
        assert_eq!(exchange.draws.fingerprints[served], "fp_1");
        // What the twin cost stands where the twin stands.
        let tokens = exchange.usage.twin_tokens + later.as_ref().map_or(0, |twins| twins.tokens);
        assert_eq!(tokens, draws[1 - served].text.split(' ').count() as u64);
        let cost = exchange.draws.twinning.unwrap().cost + later.map_or(money("0.00"), |twins| twins.twinning.cost);
        assert_eq!(cost, money("0.000002") + money("0.000002").times(tokens));
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 60);
    for pair in requests.chunks(2) {
        assert_eq!(pair[0].body, pair[1].body);
        assert_eq!(pair[0].headers, pair[1].headers);
        assert_eq!(pair[0].body.n, None);
    }
    let late = later(&house).len();
    assert!((3..=27).contains(&late), "{late} of 30");
    assert_eq!(house.metrics("anbiq_twins_late").await, [format!("anbiq_twins_late_total {late}")]);
}

trait Times {
    fn times(self, count: u64) -> Self;
}

impl Times for anbiq_domain::Money {
    fn times(self, count: u64) -> Self {
        (0..count).map(|_| self).sum()
    }
}

#[tokio::test]
async fn a_draw_that_fails_or_hangs_is_the_customers_affair_only_where_it_is_served() {
    let server = Server::start().await.unwrap();
    let mut setup = twinned(&server);
    setup.config.request_timeout_ms = 300;
    let house = House::furnished(setup).await;
    let (mut answered, mut failed) = (0, 0);
    let cut = Fault::Cut { after: 1 };
    let status = Fault::Status { status: 500, code: "oh", retry_after: None };
    let slow = Fault::Slow(Duration::from_secs(3600));
    for number in 0..36 {
        // One of the two, whichever comes first.
        server.fail_next([&cut, &status, &slow][number % 3].clone());
        let reply = house.chat(&hello()).await;
        let exchange = house.exchange(number + 1).await;
        let served = exchange.draws.twinning.unwrap().served;
        if reply.status == 200 {
            answered += 1;
            assert_eq!((exchange.outcome, &*exchange.draws.open), (Outcome::Completed, [1 - served].as_slice()));
            assert!(exchange.cost > money("0.00"));
        } else {
            failed += 1;
            assert!(matches!(exchange.outcome, Outcome::Failed { .. }), "{}", reply.body);
            assert!(exchange.draws.open.contains(&served) && !exchange.draws.twinning.unwrap().stalled);
        }
    }
    assert!(answered >= 6 && failed >= 6, "{answered} and {failed}");
    assert_eq!(later(&house).len(), 0, "of a pair that is incomplete nothing more is said");
    let reply = house.chat(&hello()).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_server_that_gives_too_few_completions_is_found_out_once() {
    let server = Server::start().await.unwrap();
    server.answer_like(Manner { various: Some(VARIOUS), ..Manner::default() });
    let setup = Setup { teacher: Some(Arc::new(upstream(&server, true))), ..twinned(&server) };
    let house = House::furnished(setup).await;
    for number in 0..6 {
        let reply = house.chat(&with(hello(), json!({"stream": number % 2 == 0}))).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        drawn_later(&house, house.exchanges().iter().filter(|exchange| !exchange.draws.open.is_empty()).count()).await;
    }
    let asked: Vec<Option<u32>> = server.requests().iter().map(|request| request.body.n).collect();
    assert_eq!(asked, [vec![Some(2)], vec![None; 11]].concat());
    for exchange in house.exchanges() {
        pair(&exchange, later(&house).get(&exchange.id));
    }
    // What the customer asks for is given, too.
    let reply = house.chat(&with(hello(), json!({"n": 3}))).await;
    let texts: BTreeSet<String> = reply.json()["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["message"]["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts.len(), 3, "{}", reply.body);
}

#[tokio::test]
async fn a_server_that_gives_several_completions_is_asked_once_for_all_draws() {
    let server = Server::start().await.unwrap();
    server.answer_like(Manner { several: true, various: Some(VARIOUS), ..Manner::default() });
    let mut setup = Setup { teacher: Some(Arc::new(upstream(&server, true))), ..twinned(&server) };
    setup.plan.twin.k = Some(4);
    let house = House::furnished(setup).await;
    for number in 0..10 {
        let reply = house.chat(&with(hello(), json!({"stream": number % 2 == 0}))).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let asked: Vec<Option<u32>> = server.requests().iter().map(|request| request.body.n).collect();
    assert_eq!(asked, [Some(4); 10]);
    let served: BTreeSet<u8> = house
        .exchanges()
        .iter()
        .map(|exchange| {
            let twinning = exchange.draws.twinning.unwrap();
            assert_eq!((exchange.draws.texts.len(), twinning.served), (4, coin().choose(exchange.id, 4)));
            twinning.served
        })
        .collect();
    assert!(served.len() > 1);
}

#[tokio::test]
async fn all_draws_of_an_exchange_go_to_one_server() {
    let servers = [Server::start().await.unwrap(), Server::start().await.unwrap()];
    let member = |server: &Server| Member { model: Arc::new(upstream(server, false)), weight: 1, priority: 0 };
    let pool = Pool::new("open", servers.iter().map(member).collect(), PoolConfig::default()).unwrap();
    let setup = Setup { teacher: Some(Arc::new(pool)), ..twinned(&servers[0]) };
    let house = House::furnished(setup).await;
    let mut before = [0, 0];
    for _ in 0..12 {
        assert_eq!(house.chat(&hello()).await.status, 200);
        // The other draw may not have left yet.
        let now = loop {
            let now = [servers[0].requests().len(), servers[1].requests().len()];
            if now[0] + now[1] == before[0] + before[1] + 2 {
                break now;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert!(now[0] - before[0] == 2 || now[1] - before[1] == 2, "{before:?} {now:?}");
        before = now;
    }
    assert_eq!(before, [12, 12]);
    // A draw whose server fails goes to the other one, for itself.
    servers[0].fail_next(Fault::Status { status: 500, code: "oh", retry_after: None });
    servers[1].fail_next(Fault::Status { status: 500, code: "oh", retry_after: None });
    assert_eq!(house.chat(&hello()).await.status, 200);
}

#[tokio::test]
async fn a_draw_that_failed_while_the_customer_kept_the_model_waiting_is_marked() {
    for (slow, pieces) in [(true, 1500), (false, 3)] {
        let script = move |request: &anbiq_model::Request| {
            let piece = "x".repeat(16 << 10);
            let turns = (0..pieces).flat_map(|_| 0..request.n);
            let mut steps: Vec<Step> = turns.map(|index| Step::Do(text(index, &piece, None))).collect();
            steps.push(Step::Gate);
            steps.push(Step::Fail(ModelError::new(Blame::Model, "upstream_failed", "oh")));
            steps
        };
        let mut setup = Setup { mock: Mock::new(script), ..Setup::default() };
        setup.plan.twin.share = 1.0;
        // So long a text fits no entry.
        setup.plan.text_policy = TextPolicy::Off;
        let house = House::furnished(setup).await;
        let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
        let response = house.open(request).await;
        if slow {
            // More than the connection holds has been said by then.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let reading = tokio::spawn(response.into_body().collect());
        house.mock.gate.add_permits(1);
        let exchange = house.exchange(1).await;
        reading.await.unwrap().unwrap();
        assert!(matches!(exchange.outcome, Outcome::Failed { .. }));
        assert_eq!(exchange.draws.twinning.unwrap().stalled, slow);
    }
}

#[tokio::test]
async fn a_repeated_seed_tells_nothing() {
    let server = Server::start().await.unwrap();
    let mut setup = twinned(&server);
    setup.plan.twin.share = 0.5;
    let house = House::furnished(setup).await;
    for _ in 0..20 {
        house.chat(&with(hello(), json!({"seed": 3}))).await;
    }
    while server.requests().len() < 20 + house.exchanges().iter().filter(|one| one.draws.twinning.is_some()).count() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let seeds: BTreeSet<i64> = server.requests().iter().map(|request| request.body.seed.unwrap()).collect();
    assert_eq!(seeds.len(), server.requests().len(), "no two exchanges have a seed in common, whether twinned or not");
    assert!(seeds.iter().all(|seed| (0..=1 << 31).contains(seed)));
    let house = House::furnished(Setup { teacher: Some(Arc::new(upstream(&server, false))), ..Setup::default() }).await;
    house.chat(&with(hello(), json!({"seed": 3}))).await;
    assert_eq!(server.requests().last().unwrap().body.seed, Some(3), "where nothing is twinned a seed is a seed");
}

fn deferred(server: &Server) -> Setup {
    let mut setup = twinned(server);
    setup.plan.twin.mode = TwinMode::Deferred;
    setup.config.twin.deferred.per_minute = 60_000;
    setup
}

/// The hour (UTC) of the house's clock.
fn hour() -> u8 {
    NOW.milliseconds().div_euclid(3_600_000).rem_euclid(24) as u8
}

#[tokio::test]
async fn deferred_twins_are_drawn_in_their_hours_and_refer_to_their_exchange() {
    for policy in [TextPolicy::Twinned, TextPolicy::Off] {
        let server = Server::start().await.unwrap();
        server.answer_like(Manner { various: Some(VARIOUS), fingerprint: Some("fp".into()), ..Manner::default() });
        let mut setup = deferred(&server);
        setup.plan.text_policy = policy;
        setup.plan.twin.k = Some(3);
        setup.config.twin.deferred.from_hour = (hour() + 1) % 24;
        setup.config.twin.deferred.until_hour = (hour() + 2) % 24;
        setup.config.twin.deferred.price_percent = 50;
        let house = House::furnished(setup).await;
        for _ in 0..3 {
            assert_eq!(house.chat(&with(hello(), json!({"seed": 5}))).await.status, 200);
        }
        // These are not asked for again from what the journal says, or have no twins at all.
        for changes in [json!({"stop": "x"}), json!({"temperature": 0}), json!({"n": 2})] {
            assert_eq!(house.chat(&with(hello(), changes)).await.status, 200);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!((later(&house).len(), server.requests().len()), (0, 7), "nothing before its hour");
        assert_eq!(house.metrics("anbiq_twins_waiting").await, ["anbiq_twins_waiting 3"]);
        house.clock.advance_to(NOW.plus_milliseconds(3_600_000));
        let twins = drawn_later(&house, 3).await;
        for exchange in house.exchanges() {
            let Some(twins) = twins.get(&exchange.id) else {
                assert_eq!(exchange.draws.twinning, None);
                continue;
            };
            let own = exchange.draws.twinning.unwrap();
            assert_eq!((own.mode, own.served, exchange.draws.texts.len()), (TwinMode::Deferred, 0, 1));
            assert_eq!((exchange.usage.twin_tokens, own.cost), (0, money("0.00")));
            let served = coin().choose(exchange.id, 3);
            assert_eq!((twins.total, twins.twinning.served, twins.twinning.mode), (3, served, TwinMode::Deferred));
            assert_eq!(twins.at, NOW.plus_milliseconds(3_600_000));
            let places: Vec<u8> = twins.draws.iter().map(|draw| draw.index).collect();
            assert_eq!(places, (0..3).filter(|index| *index != served).collect::<Vec<_>>());
            assert_eq!(twins.check(&coin()).unwrap(), if policy == TextPolicy::Off { 0 } else { 2 });
            assert!(twins.draws.iter().all(|draw| draw.fingerprint == "fp"));
            assert!(twins.draws.iter().all(|draw| draw.answer.is_some() == (policy == TextPolicy::Twinned)));
            // Half of three tokens of the prompt, twice, and of what was drawn.
            assert_eq!(twins.twinning.cost, money("0.000003") + money("0.000001").times(twins.tokens));
        }
        let bodies: Vec<_> = server.requests().iter().map(|request| request.body.clone()).collect();
        let same = |body: &anbiq_openai::ChatRequest| anbiq_openai::ChatRequest { seed: None, ..body.clone() };
        assert_eq!(bodies.len(), 13);
        assert!(bodies[7..].iter().all(|body| *body == same(&bodies[0])), "the request is the same, but for its seed");
        let counted = house.metrics("anbiq_twins_drawn").await;
        assert!(counted.iter().any(|line| line.contains("mode=\"deferred\"") && line.ends_with(" 6")), "{counted:?}");
    }
}

#[tokio::test]
async fn what_waits_is_found_again_in_the_journal_where_it_keeps_the_texts() {
    for (policy, waiting) in [(TextPolicy::Twinned, 4), (TextPolicy::Off, 2)] {
        let server = Server::start().await.unwrap();
        let mut setup = deferred(&server);
        setup.plan.text_policy = policy;
        setup.config.twin.deferred.from_hour = (hour() + 1) % 24;
        setup.config.twin.deferred.until_hour = (hour() + 2) % 24;
        let house = House::furnished(setup).await;
        house.chat(&hello()).await;
        house.chat(&hello()).await;
        // As if those had been before a restart, beside the two that wait.
        house.gateway.recall(&anbiq_journal::Reader::open(&house.journal_folder()).unwrap()).await.unwrap();
        assert_eq!(house.metrics("anbiq_twins_waiting").await, [format!("anbiq_twins_waiting {waiting}")]);
        house.clock.advance_to(NOW.plus_milliseconds(3_600_000));
        let drawn = loop {
            let drawn = house.entries().iter().filter(|entry| matches!(entry, Entry::TwinsDrawn(_))).count();
            if house.metrics("anbiq_twins_waiting").await == ["anbiq_twins_waiting 0"] && drawn >= waiting {
                break drawn;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(drawn, waiting);
        // All have their twins now.
        house.gateway.recall(&anbiq_journal::Reader::open(&house.journal_folder()).unwrap()).await.unwrap();
        assert_eq!(house.metrics("anbiq_twins_waiting").await, ["anbiq_twins_waiting 0"]);
    }
}

#[tokio::test]
async fn an_exchange_waits_within_bounds_and_not_for_ever() {
    let server = Server::start().await.unwrap();
    let mut setup = deferred(&server);
    setup.config.twin.deferred.queue = 2;
    setup.config.twin.deferred.from_hour = (hour() + 1) % 24;
    setup.config.twin.deferred.until_hour = (hour() + 2) % 24;
    setup.config.twin.deferred.longest_wait_hours = 20;
    let house = House::furnished(setup).await;
    for _ in 0..3 {
        house.chat(&hello()).await;
    }
    house.clock.advance_to(NOW.plus_milliseconds(25 * 3_600_000));
    let refused = |reason: &str| format!("anbiq_twins_refused_total{{mode=\"deferred\",reason=\"{reason}\"}}");
    loop {
        let lines = house.metrics("anbiq_twins_refused").await;
        if lines.contains(&format!("{} 2", refused("waited_too_long"))) {
            assert!(lines.contains(&format!("{} 1", refused("queue_full"))), "{lines:?}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(later(&house).len(), 0);
}

#[tokio::test]
async fn a_days_money_is_not_exceeded_and_its_end_is_journalled_once() {
    for mode in [TwinMode::Together, TwinMode::Deferred] {
        let server = Server::start().await.unwrap();
        let mut setup = deferred(&server);
        setup.plan.twin.mode = mode;
        // A twin can cost 0.000285 and costs 0.000009.
        let limit = Some(money("0.0003"));
        setup.config.twin.daily_limit = limit;
        setup.config.twin.deferred.daily_limit = limit;
        let house = House::furnished(setup).await;
        let twinned = |house: &House| match mode {
            TwinMode::Together => house.exchanges().iter().filter(|exchange| exchange.draws.twinning.is_some()).count(),
            TwinMode::Deferred => later(house).len(),
        };
        for number in 1..=6 {
            assert_eq!(house.chat(&hello()).await.status, 200);
            // What is kept for a twin is given back when it has ended.
            let exchange = house.exchange(number).await;
            while !(exchange.draws.open.is_empty() || later(&house).contains_key(&exchange.id)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while stops(&house).is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let count = twinned(&house);
        assert!((1..6).contains(&count), "{mode:?}: {count}");
        assert_eq!(stops(&house), [mode]);
        assert!(house.metrics("anbiq_twins_refused").await[0].contains("daily_limit"));
        house.clock.advance_to(NOW.plus_milliseconds(DAY));
        house.chat(&hello()).await;
        while twinned(&house) == count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn only_the_models_of_the_plan_are_twinned() {
    let server = Server::start().await.unwrap();
    for (models, twinned_) in [(vec!["closed"], false), (vec!["closed", "open"], true)] {
        let mut setup = twinned(&server);
        setup.plan.twin.models = Some(models.into_iter().map(str::to_owned).collect());
        let house = House::furnished(setup).await;
        house.chat(&hello()).await;
        assert_eq!(house.exchange(1).await.draws.twinning.is_some(), twinned_);
    }
}

/// All that a customer sees of an answer but its ids and its dates.
fn seen(reply: &Reply) -> String {
    let changing = ["date", "x-request-id", "openai-processing-ms"];
    let mut headers: Vec<String> = reply
        .headers
        .iter()
        .map(|(name, value)| {
            let value = value.to_str().unwrap();
            format!("{name}: {}", if changing.contains(&name.as_str()) { "..." } else { value })
        })
        .collect();
    headers.sort();
    let body = if reply.status == 200 { blank(&reply.body) } else { reply.body.clone() };
    format!("{}\n{}\n\n{body}", reply.status, headers.join("\n"))
}

#[tokio::test]
async fn nothing_that_a_customer_sees_tells_a_twinned_exchange_from_another() {
    for mode in [TwinMode::Together, TwinMode::Deferred] {
        // The server answers every draw of a request alike.
        let server = Server::start().await.unwrap();
        let mut setup = twinned(&server);
        setup.plan.twin.share = 0.5;
        setup.plan.twin.mode = mode;
        setup.plan.requests_per_minute = None;
        let house = House::furnished(setup).await;
        let mut count = 0;
        for changes in [
            json!({}),
            json!({"seed": 3}),
            json!({"stream": true}),
            json!({"stream": true, "stream_options": {"include_usage": true}, "max_tokens": 2}),
        ] {
            let mut seen_of: BTreeMap<bool, BTreeSet<(String, String)>> = BTreeMap::new();
            for _ in 0..40 {
                let reply = house.chat(&with(hello(), changes.clone())).await;
                count += 1;
                let exchange = house.exchange(count).await;
                assert_eq!(exchange.usage.completion_tokens, if changes["max_tokens"] == 2 { 2 } else { 3 });
                let twinned = exchange.draws.twinning.is_some();
                seen_of.entry(twinned).or_default().insert((seen(&reply), exchange.cost.to_string()));
            }
            assert_eq!(seen_of[&true], seen_of[&false], "{changes}");
            assert_eq!(seen_of[&true].len(), 1);
        }
        let spent = house.settled().await.spent;
        assert_eq!(spent, house.exchanges().iter().map(|exchange| exchange.cost).sum());
        // Errors of the server look alike, too.
        server.fail_always(Some(Fault::Status { status: 500, code: "oh", retry_after: None }));
        let mut errors: BTreeMap<bool, BTreeSet<String>> = BTreeMap::new();
        for number in 0..40 {
            let reply = house.chat(&hello()).await;
            let twinned = house.exchange(count + number + 1).await.draws.twinning.is_some();
            errors.entry(twinned).or_default().insert(seen(&reply));
        }
        assert_eq!(errors[&true], errors[&false]);
        assert_eq!(errors[&true].len(), 1);
    }
}
