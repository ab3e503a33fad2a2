//! A gateway that is killed under load: what its customers saw as finished is journalled, what is journalled is charged once,
//! and no reservation outlives its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anbiq_domain::{Entry, Exchange, Money, Seeded};

use crate::gateway::{Running, ask, key};
use crate::support::Place;

const ROUNDS: usize = 4;
const CUSTOMERS: usize = 6;

/// The exchanges of the journal, by id.
fn exchanges(place: &Place) -> BTreeMap<String, Exchange> {
    let shown = place.run("journal show journal").out;
    let entries = shown.lines().map(|line| serde_json::from_str::<Entry>(line).unwrap());
    let mut exchanges = BTreeMap::new();
    for entry in entries {
        if let Entry::Exchange(exchange) = entry {
            let again = exchanges.insert(exchange.id.to_string(), *exchange);
            assert!(again.is_none(), "an exchange is journalled once");
        }
    }
    exchanges
}

fn money(budget: &serde_json::Value, field: &str) -> Money {
    serde_json::from_value(budget[field].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_owes_nothing_and_loses_nothing() {
    let place = Place::gateway();
    let text =
        place.read("anbiq.toml").replace("[serve]", "[serve]\nrequest_timeout_ms = 4000\nreservation_ttl_ms = 4100\n");
    place.write("anbiq.toml", &text);
    assert_eq!(place.run("account open acme --plan standard --budget 100").code, 0);
    assert_eq!(place.run("terms accept acme teacher").code, 0);
    let acme = key(&place, "acme");
    let mut random = Seeded::new(5);
    let mut finished = BTreeSet::new();
    for round in 0..ROUNDS {
        let gateway = Running::start(&place);
        let served = Arc::new(AtomicUsize::new(0));
        let customers: Vec<_> = (0..CUSTOMERS)
            .map(|customer| {
                let (client, served) = (gateway.client(&acme), Arc::clone(&served));
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    for number in 0.. {
                        let asked = client.chat(&ask(&format!("{round} {customer} {number}")), &[]).await;
                        // An error that has a status is an answer of a living gateway.
                        match asked {
                            Ok(answer) => {
                                seen.push(answer.id);
                                served.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) if error.status.is_some() => {}
                            Err(_) => break,
                        }
                    }
                    seen
                })
            })
            .collect();
        // Once some have finished, at any moment.
        let begun = async {
            while served.load(Ordering::Relaxed) < CUSTOMERS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), begun).await.unwrap();
        tokio::time::sleep(Duration::from_millis(random.below(400) as u64)).await;
        gateway.kill();
        for customer in customers {
            let ids = tokio::time::timeout(Duration::from_secs(30), customer).await.unwrap().unwrap();
            finished.extend(ids.iter().map(|id| id.rsplit("chatcmpl-").next().unwrap().to_owned()));
        }
    }
    assert!(finished.len() >= ROUNDS, "the customers were served: {}", finished.len());

    // When every reservation's time is over, a gateway gives them back as it starts, and stops in good order.
    tokio::time::sleep(Duration::from_millis(4400)).await;
    let gateway = Running::start(&place);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gateway.stop(), 0);

    let verified = place.run("journal verify journal");
    assert!(verified.out.contains("every byte is whole and signed"), "{}{}", verified.out, verified.err);
    let journalled = exchanges(&place);
    let lost: Vec<_> = finished.iter().filter(|id| !journalled.contains_key(*id)).collect();
    assert!(lost.is_empty(), "finished and not journalled: {lost:?} of {finished:?}");

    let budget: serde_json::Value = serde_json::from_str(&place.run("account budget acme").out).unwrap();
    let (spent, reserved) = (money(&budget, "spent"), money(&budget, "reserved"));
    assert_eq!(reserved, Money::ZERO, "a reservation outlived its time: {budget}");
    let cost: i64 = journalled.values().map(|exchange| exchange.cost.nanos()).sum();
    assert!(cost > 0);
    assert_eq!(spent.nanos(), cost, "what is journalled is charged, once");
}
