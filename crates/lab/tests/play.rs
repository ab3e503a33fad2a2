//! Plays a world against the mock server.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::time::Duration;

use anbiq_domain::{AccountId, Prompt};
use anbiq_lab::mock::{Fault, Mock};
use anbiq_lab::play::{PlayConfig, play};
use anbiq_lab::world::{Group, Scale, World, WorldConfig};
use anbiq_secret::Secret;

fn small_world() -> World {
    let mut world = World::compose(&WorldConfig::new(1, Scale::Quick)).unwrap();
    world.calls.truncate(250);
    world
}

fn config(mock: &Mock, world: &World) -> PlayConfig {
    let key = |id: &AccountId| (id.clone(), Secret::new(format!("sk-test-{id}")));
    let keys: HashMap<_, _> = world.accounts.iter().map(|account| key(&account.id)).collect();
    PlayConfig { in_flight: 16, ..PlayConfig::new(mock.base_url.clone(), "mock", keys) }
}

#[tokio::test]
async fn every_call_is_made_in_its_name_and_at_its_time() {
    let (mock, world) = (Mock::start().await.unwrap(), small_world());
    let mut last = None;
    let performance = play(&world, &config(&mock, &world), &mut |progress| last = Some(progress)).await.unwrap();
    assert!(performance.failures().is_empty(), "{:?}", performance.failures());
    let last = last.unwrap();
    assert_eq!((last.done, last.of, last.failed), (250, 250, 0));

    let requests = mock.requests();
    let mut times: HashMap<String, Vec<i64>> = HashMap::new();
    for request in &requests {
        let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
        let key = header("authorization");
        let account = world.accounts.iter().find(|account| key == format!("Bearer sk-test-{}", account.id)).unwrap();
        assert_eq!(header("user-agent"), account.agent);
        assert!(header("x-forwarded-for").parse::<std::net::IpAddr>().is_ok());
        assert_eq!(request.headers.contains_key("x-anbiq-purpose"), account.group == Group::Licensee);
        assert_eq!(request.body.top_logprobs.is_some(), account.group == Group::Licensee);
        if account.side_by_side == 1 {
            times.entry(key).or_default().push(header("x-anbiq-time").parse().unwrap());
        }
    }
    assert!(times.values().all(|times| times.is_sorted()), "an account's calls left their order");
}

#[tokio::test]
async fn a_conversation_goes_on_from_its_answers() {
    let (mock, mut world) = (Mock::start().await.unwrap(), small_world());
    world.calls.retain(|call| world.accounts[call.account].group == Group::Person);
    let performance = play(&world, &config(&mock, &world), &mut |_| {}).await.unwrap();
    let mut continued = 0;
    for played in &performance.played {
        let Prompt::Chat(messages) = &played.prompt else { panic!("not a conversation") };
        let call = &world.calls[played.call];
        assert_eq!(messages.len() % 2, 1, "turns alternate");
        assert_eq!(call.continues, messages.len() > 1);
        if call.continues {
            continued += 1;
            let reversed: Vec<&str> = messages[0].content.split_whitespace().rev().collect();
            assert_eq!(messages[1].content, reversed.join(" "));
        }
    }
    assert!(continued > 5, "{continued}");
}

#[tokio::test]
async fn what_was_refused_for_now_is_asked_again_and_what_broke_is_not() {
    let (mock, mut world) = (Mock::start().await.unwrap(), small_world());
    world.calls.truncate(4);
    for call in &mut world.calls {
        call.stream = true;
        call.continues = false;
    }
    mock.fail_next(Fault::Status { status: 503, code: "queue_full", retry_after: Some(0) });
    let performance = play(&world, &config(&mock, &world), &mut |_| {}).await.unwrap();
    assert!(performance.failures().is_empty());
    assert_eq!(mock.requests().len(), 5);

    for (fault, code) in [
        (Fault::Cut { after: 1 }, "stream_cut_off"),
        (Fault::Status { status: 403, code: "grant_expired", retry_after: None }, "grant_expired"),
        (Fault::Status { status: 429, code: "insufficient_quota", retry_after: None }, "insufficient_quota"),
        (Fault::Garbage, "stream_cut_off"),
        (Fault::Slow(Duration::from_secs(5)), "timeout"),
    ] {
        mock.fail_always(Some(fault));
        let patient = PlayConfig { timeout: Duration::from_millis(250), ..config(&mock, &world) };
        let performance = play(&world, &patient, &mut |_| {}).await.unwrap();
        let failures: Vec<_> = performance.failures().into_iter().collect();
        assert_eq!(failures, [(code.to_owned(), 4)]);
    }
}

#[tokio::test]
async fn a_harvest_becomes_a_capture() {
    let (mock, mut world) = (Mock::start().await.unwrap(), small_world());
    let licensee = world.accounts.iter().position(|account| account.group == Group::Licensee).unwrap();
    let whole = World::compose(&WorldConfig::new(1, Scale::Quick)).unwrap();
    world.calls = whole.calls.into_iter().filter(|call| call.account == licensee).take(5).collect();
    let performance = play(&world, &config(&mock, &world), &mut |_| {}).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture.jsonl");
    performance.write_capture(&world, Group::Licensee, &path).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 5);
    let row: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(row["prompt"]["chat"][0]["role"], "user");
    assert_eq!(row["answers"][0]["finish"], "stop");
    assert_eq!(row["logprobs"][0].as_array().unwrap().len() as u64, row["usage"]["completion_tokens"]);
    assert_eq!(row["logprobs"][0][0]["top"][0][1], -0.5);
}

#[tokio::test]
async fn an_account_without_a_key_stops_the_play() {
    let (mock, world) = (Mock::start().await.unwrap(), small_world());
    let mut config = config(&mock, &world);
    config.keys.remove(&world.accounts[3].id);
    assert_eq!(play(&world, &config, &mut |_| {}).await.unwrap_err().code(), "no_key");
}
