use super::server::{PACED, Pace, SILENT, WHOLE};
use super::*;

/// A server that runs as long as the test.
async fn served(pace: Pace) -> String {
    let (base_url, serving) = server::bind(pace).await.unwrap();
    tokio::spawn(serving);
    base_url
}

fn load(base_url: &str, model: &str, stream: bool) -> Load {
    Load {
        base_url: base_url.to_owned(),
        key: None,
        model: model.to_owned(),
        stream,
        rate: 2_000.0,
        count: 200,
        in_flight: 200,
        patience: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn every_request_is_answered_and_counted_once() {
    let base_url = served(Pace { chunks: 7, spacing: Duration::from_millis(1), ..Pace::default() }).await;
    for (model, stream) in [(WHOLE, false), (WHOLE, true), (PACED, true)] {
        let outcome = Generator::default().run(&load(&base_url, model, stream)).await.unwrap();
        assert_eq!((outcome.planned, outcome.answered, outcome.dropped), (200, 200, 0), "{model} {:?}", outcome.failed);
        assert_eq!((outcome.latency.count(), outcome.lag.count()), (200, 200));
        let ways = if model == PACED { 7 * 200 } else { 0 };
        let streamed = if stream { [200, 200, 6 * 200, ways] } else { [0; 4] };
        let counted = [&outcome.first, &outcome.tail, &outcome.gap, &outcome.way].map(Histogram::count);
        assert_eq!(counted, streamed, "{model}");
        assert!(outcome.achieved() > 0.0);
    }
}

#[tokio::test]
async fn what_is_refused_is_counted_by_its_code() {
    let base_url = served(Pace::default()).await;
    let outcome = Generator::default().run(&load(&base_url, "unknown", false)).await.unwrap();
    assert_eq!(outcome.failed, BTreeMap::from([("404 model_not_found".to_owned(), 200)]));
    assert_eq!((outcome.answered, outcome.latency.count()), (0, 0));

    let nobody = load("http://127.0.0.1:1/v1", WHOLE, false);
    let outcome = Generator::default().run(&nobody).await.unwrap();
    assert_eq!(outcome.failed, BTreeMap::from([("connection".to_owned(), 200)]));
}

#[tokio::test]
async fn what_finds_no_place_is_dropped_and_what_does_not_end_times_out() {
    let base_url = served(Pace::default()).await;
    let silent = Load { in_flight: 3, patience: Duration::from_secs(2), ..load(&base_url, SILENT, true) };
    let outcome = Generator::default().run(&silent).await.unwrap();
    let timed_out = outcome.failed.get("timeout").copied().unwrap_or_default();
    // How many find a place depends on how long the machine takes; what is counted does not.
    assert_eq!((timed_out + outcome.dropped, outcome.failures()), (200, timed_out));
    assert!(timed_out >= 3 && outcome.dropped > 0, "{outcome:?}");
}

#[tokio::test]
async fn a_stream_that_ends_early_is_cut_off() {
    let base_url = served(Pace { silence: Duration::from_millis(1), ..Pace::default() }).await;
    let outcome = Generator::default().run(&load(&base_url, SILENT, true)).await.unwrap();
    assert_eq!(outcome.failed, BTreeMap::from([("cut_off".to_owned(), 200)]));
}

#[tokio::test]
async fn a_silent_stream_stays_open() {
    let base_url = served(Pace::default()).await;
    let generator = Generator::default();
    assert!(generator.open(&load(&base_url, SILENT, true)).await.is_ok());
    assert_eq!(generator.open(&load(&base_url, "unknown", true)).await.unwrap_err(), "404 model_not_found");
}

#[test]
fn requests_are_released_in_order_and_never_early() {
    let schedule = Schedule { start: Instant::now(), rate: 5_000.0, count: 100 };
    let mut released = Vec::new();
    pace(schedule, |moment| {
        assert!(Instant::now() >= moment);
        released.push(moment);
    });
    let planned: Vec<Instant> = schedule.moments().collect();
    assert_eq!(released, planned);
    assert_eq!(planned[99] - planned[0], Duration::from_micros(99 * 200));
    assert!(planned.is_sorted());
}

#[test]
fn a_request_is_late_by_what_the_generator_made_it_wait_for() {
    let planned = Instant::now();
    let after = |milliseconds| planned + Duration::from_millis(milliseconds);
    let mut outcome = Outcome::default();
    let chunks = vec![after(110), after(125)];
    let times = Times { planned, sent: after(100), chunks, ways: vec![3_000_000, 7_000_000], result: Ok(after(130)) };
    outcome.record(&times);
    let largest = [&outcome.lag, &outcome.latency, &outcome.first, &outcome.gap, &outcome.way, &outcome.tail];
    let largest = largest.map(|histogram| histogram.largest() / 1_000_000);
    assert_eq!(largest, [100, 130, 110, 15, 7, 5]);
}

#[test]
fn an_event_with_text_is_told_from_one_without() {
    assert!(server::text_of(r#"{"choices":[{"delta":{"content":"word"}}]}"#).is_some());
    assert_eq!(server::text_of(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#), None);
    assert_eq!(server::text_of(r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#), None);
    assert_eq!(server::text_of(sse::DONE), None);
}

#[test]
fn only_a_text_with_a_moment_has_a_way() {
    assert!(server::way("@00000000000000000001 and more").is_some_and(|way| way > 0));
    // A clock that was set back is no way of many years.
    assert_eq!(server::way("@18446744073709551615 and more"), Some(0));
    for text in ["@1", "@0000000000000000000x", "a fixed text of about a kilobyte"] {
        assert_eq!(server::way(text), None, "{text}");
    }
}
