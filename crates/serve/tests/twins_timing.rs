//! Can somebody who measures time tell a twinned stream from another? A measurement, not a test of every run:
//!
//! ```text
//! cargo test --release -p anbiq-serve --test twins_timing -- --ignored --nocapture
//! ```
//!
//! The server answers at random times, whatever it is asked, so what is measured is the gateway. A server that is slower
//! under twice the load shows that in addition.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail, and prints what it finds")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anbiq_domain::{Entry, TwinMode};
use anbiq_lab::mock::{Manner, Mock as Server, Pace, Various};
use anbiq_upstream::{Upstream, UpstreamConfig};
use common::{House, Setup, hello, with};
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::json;

/// Streams of each condition.
const STREAMS: usize = 3000;

/// Streams under way at the same time.
const SIDE_BY_SIDE: usize = 8;

/// What is measured of a stream, in milliseconds.
const MEASURES: [&str; 5] = ["first text", "between texts", "longest gap", "last text to end", "whole"];

/// How twins are drawn.
const CONDITIONS: [(&str, TwinMode, bool); 3] = [
    ("no twin is drawn (deferred): what chance gives", TwinMode::Deferred, false),
    ("together, each draw a request of its own", TwinMode::Together, false),
    ("together, one request for all draws (`several = true`)", TwinMode::Together, true),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of some minutes"]
async fn what_a_clock_tells() {
    println!("area under the curve of the best threshold on one measure; 0.500 tells nothing");
    for (name, mode, several) in CONDITIONS {
        let (alone, twinned) = measure(mode, several).await;
        println!("\n{name}: {} twinned streams, {} others", twinned.len(), alone.len());
        // Of two samples of one distribution.
        let (n, m) = (alone.len() as f64, twinned.len() as f64);
        println!("  standard error by chance {:.3}", ((n + m + 1.0) / (12.0 * n * m)).sqrt());
        for (place, measure) in MEASURES.iter().enumerate() {
            let column = |rows: &[[f64; 5]]| rows.iter().map(|row| row[place]).collect::<Vec<_>>();
            println!("  {measure:<18} {:.3}", area(&column(&alone), &column(&twinned)));
        }
    }
}

/// The measures of streams that were not twinned, and of those that were.
async fn measure(mode: TwinMode, several: bool) -> (Vec<[f64; 5]>, Vec<[f64; 5]>) {
    let server = Server::start().await.unwrap();
    server.answer_like(Manner {
        several: true,
        various: Some(Various { seed: 1, shortest: 4, longest: 16 }),
        pace: Some(Pace { seed: 2, first: Duration::from_millis(10), between: Duration::from_millis(3) }),
        ..Manner::default()
    });
    let config = UpstreamConfig { several, ..UpstreamConfig::new("open", &*server.base_url, None) };
    let mut setup = Setup { teacher: Some(Arc::new(Upstream::new(config).unwrap())), ..Setup::default() };
    setup.plan.twin.share = 0.5;
    setup.plan.twin.mode = mode;
    setup.config.twin.deferred.queue = 0;
    let house = House::furnished(setup).await;
    let streams = futures::stream::iter(0..STREAMS).map(|_| stream(&house)).buffer_unordered(SIDE_BY_SIDE);
    let measured: Vec<(String, [f64; 5])> = streams.collect().await;
    let twinned: std::collections::HashSet<String> = house
        .entries()
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Exchange(exchange) if exchange.draws.twinning.is_some() => Some(exchange.id.to_string()),
            _ => None,
        })
        .collect();
    let (with_twin, alone): (Vec<_>, Vec<_>) = measured.into_iter().partition(|(id, _)| twinned.contains(id));
    let rows = |all: Vec<(String, [f64; 5])>| all.into_iter().map(|(_, row)| row).collect();
    (rows(alone), rows(with_twin))
}

/// One stream: its id and its measures.
async fn stream(house: &House) -> (String, [f64; 5]) {
    let request = house.post("/v1/chat/completions", &with(hello(), json!({"stream": true})), &[]);
    let begun = Instant::now();
    let response = house.open(request).await;
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    let mut texts: Vec<Instant> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.unwrap().into_data() else { continue };
        if String::from_utf8_lossy(&data).contains("\"content\":\"") {
            texts.push(Instant::now());
        }
    }
    let ended = Instant::now();
    let (first, last) = (texts[0], texts[texts.len() - 1]);
    let milliseconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
    let gaps: Vec<f64> = texts.windows(2).map(|pair| milliseconds(pair[0], pair[1])).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    (id, [milliseconds(begun, first), mean, longest, milliseconds(last, ended), milliseconds(begun, ended)])
}

/// P(a value of `two` is larger than one of `one`), ties counted half; taken in the direction that tells more.
fn area(one: &[f64], two: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> =
        one.iter().map(|value| (*value, false)).chain(two.iter().map(|value| (*value, true))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ranks: f64 = (1..).zip(&all).filter(|(_, (_, second))| *second).map(|(rank, _)| f64::from(rank)).sum();
    let (n, m) = (one.len() as f64, two.len() as f64);
    let area = (ranks - m * (m + 1.0) / 2.0) / (n * m);
    area.max(1.0 - area)
}
