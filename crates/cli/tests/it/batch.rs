//! A capture in batches: nothing is lost or paid twice, whatever becomes of batches, connections and the program.

use std::time::Duration;

use anbiq_domain::PriceList;
use anbiq_lab::vendor::{BatchConfig, Can, Vendor, VendorConfig};
use serde_json::Value;

use crate::asking::{self, capture, furnish, price_list, write_recipe};
use crate::support::Place;

const PROMPTS: usize = 120;

const PRICES: &str = r#"input = "0.50", output = "2.00", batch_percent = 50"#;

fn prices() -> PriceList {
    price_list(PRICES)
}

fn place() -> Place {
    furnish((0..PROMPTS).map(|number| format!("Tell me of thing number {number}")))
}

fn recipe(place: &Place, name: &str, url: &str, ask: &str) {
    write_recipe(place, name, url, PRICES, ask);
}

fn nanos(asking: &Value, what: &str) -> i64 {
    asking::nanos(&asking[what])
}

/// The rows without the word that they came in a batch.
fn rows(place: &Place, name: &str) -> String {
    place.read(&format!("{name}.jsonl")).replace(",\"batch\":true", "")
}

const BATCH: &str = "ceiling = \"1\"\nbatch = { size = 50, poll_ms = 5 }";

async fn vendor(batches: BatchConfig) -> Vendor {
    Vendor::start(VendorConfig { batches: Some(batches), ..VendorConfig::default() }, prices()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_fail_in_every_way_give_what_single_requests_give() {
    let place = place();
    let calm = vendor(BatchConfig::default()).await;
    recipe(&place, "single", &calm.base_url, "ceiling = \"1\"");
    capture(&place, "single.toml");

    let config = BatchConfig { questions: 2, failing: 0.1, expiring: 0.1, cut_makings: 1, cut_files: 2 };
    let rough = vendor(config).await;
    recipe(&place, "batch", &rough.base_url, BATCH);
    let asking = capture(&place, "batch.toml");
    assert_eq!((&asking["answered"], &asking["refused"]), (&PROMPTS.into(), &0.into()), "{asking}");
    assert_eq!(rows(&place, "batch"), rows(&place, "single"));
    let books = rough.books();
    assert_eq!((books.twice, books.different), (0, PROMPTS as u64));
    assert!(books.batches > 2 && books.failed > 0, "{books:?}");
    assert_eq!((nanos(&asking, "cost"), nanos(&asking, "lost")), (books.nanos, 0));
    // Half the price, by what the vendor charged and by what was counted.
    assert_eq!(books.nanos * 2, calm.books().nanos, "{books:?}");
    assert!(!place.path("batch.jsonl.batch").exists() && !place.path("batch.jsonl.batch.json").exists());
    assert_eq!(capture(&place, "batch.toml")["reused"], PROMPTS);
    assert_eq!(rough.books().requests, books.requests, "nothing is asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_killed_finds_its_batch_again() {
    let place = place();
    // Batches take their time, so that kills find them under way.
    let vendor = vendor(BatchConfig { questions: 15, cut_makings: 1, ..BatchConfig::default() }).await;
    recipe(&place, "batch", &vendor.base_url, BATCH);
    for made in 1..=3 {
        let mut program = place.command("distill capture batch.toml").spawn().unwrap();
        let reached = async {
            while vendor.books().batches < made {
                assert!(program.try_wait().unwrap().is_none(), "it ended by itself");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
        // While a batch is under way nothing is asked one by one.
        program.kill().unwrap();
        program.wait().unwrap();
        if made == 1 {
            recipe(&place, "other", &vendor.base_url, "ceiling = \"1\"");
            let text = place.read("other.toml").replace("other.jsonl", "batch.jsonl");
            place.write("other.toml", &text);
            let done = place.run("distill capture other.toml");
            assert_eq!(done.code, 2);
            assert!(done.err.contains("a batch of this capture is under way"), "{}", done.err);
        }
    }
    let asking = capture(&place, "batch.toml");
    let books = vendor.books();
    assert_eq!((books.twice, books.different, books.batches), (0, PROMPTS as u64, 3), "{books:?}");
    assert_eq!((nanos(&asking, "cost"), nanos(&asking, "lost")), (books.nanos, 0));
    assert_eq!(place.read("batch.jsonl").lines().count(), PROMPTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ceiling_is_held_before_a_batch_is_sent() {
    let place = place();
    let vendor = vendor(BatchConfig::default()).await;
    recipe(&place, "batch", &vendor.base_url, "ceiling = \"0.0012\"\nbatch = { size = 1000, poll_ms = 5 }");
    let asking = capture(&place, "batch.toml");
    let books = vendor.books();
    assert!(asking["stopped"].as_str().unwrap().contains("the ceiling of $0.0012"), "{asking}");
    assert!(books.nanos > 0 && books.nanos <= 1_200_000 && books.different < PROMPTS as u64, "{books:?}");
    assert_eq!(nanos(&asking, "cost"), books.nanos);

    // A server without batches says so, and nothing is lost by it.
    let none = Vendor::start(VendorConfig::default(), prices()).await.unwrap();
    recipe(&place, "none", &none.base_url, BATCH);
    let done = place.run("distill capture none.toml");
    assert_eq!(done.code, 2);
    assert!(done.err.contains("there are no batches here"), "{}", done.err);
    recipe(&place, "none", &vendor.base_url, BATCH);
    assert_eq!(nanos(&capture(&place, "none.toml"), "lost"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_answers_are_one_line_of_a_batch_where_the_server_has_it() {
    let place = furnish((0..60).map(|number| format!("Tell me of thing number {number}")));
    let start = async |several, batches| {
        let can = Can { several, ..Can::default() };
        let config = VendorConfig { can, batches: Some(batches), ..VendorConfig::default() };
        Vendor::start(config, prices()).await.unwrap()
    };
    let ask = "ceiling = \"1\"\nanswers = 3\nbatch = { size = 25, poll_ms = 5 }";
    let calm = BatchConfig::default();
    let alone = start(false, calm).await;
    recipe(&place, "alone", &alone.base_url, ask);
    let asking = capture(&place, "alone.toml");
    assert_eq!((&asking["requests"], &asking["answered"]), (&180.into(), &180.into()));
    assert_eq!((nanos(&asking, "cost"), nanos(&asking, "lost")), (alone.books().nanos, 0), "{:?}", alone.books());

    // The same answers for a third of the lines and of the prompts, whatever becomes of batches and files.
    let rough = BatchConfig { questions: 2, failing: 0.1, expiring: 0.1, cut_makings: 1, cut_files: 2 };
    for (name, batches) in [("together", calm), ("rough", rough)] {
        let vendor = start(true, batches).await;
        recipe(&place, name, &vendor.base_url, ask);
        let asking = capture(&place, &format!("{name}.toml"));
        let books = vendor.books();
        assert_eq!((&asking["answered"], &asking["refused"]), (&180.into(), &0.into()), "{asking}");
        assert_eq!((books.different, books.twice), (60, 0), "{books:?}");
        assert!(books.prompt_tokens * 2 < alone.books().prompt_tokens, "{books:?}");
        assert_eq!((nanos(&asking, "cost"), nanos(&asking, "lost")), (books.nanos, 0), "{asking}");
        assert_eq!(
            crate::capture::unpriced(&place, &format!("{name}.jsonl")),
            crate::capture::unpriced(&place, "alone.jsonl")
        );
        let again = capture(&place, &format!("{name}.toml"));
        assert_eq!((&again["reused"], &again["cost"]), (&180.into(), &asking["cost"]), "{again}");
    }

    // Killed while a batch is under way: its lines are found again, with all that each of them asks for.
    let vendor = start(true, BatchConfig { questions: 15, ..calm }).await;
    recipe(&place, "killed", &vendor.base_url, ask);
    let mut program = place.command("distill capture killed.toml").spawn().unwrap();
    let reached = async {
        while vendor.books().batches < 2 {
            assert!(program.try_wait().unwrap().is_none(), "it ended by itself");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    let asking = capture(&place, "killed.toml");
    assert_eq!(vendor.books().different, 60, "{:?}", vendor.books());
    assert_eq!((nanos(&asking, "cost"), nanos(&asking, "lost")), (vendor.books().nanos, 0), "{asking}");
    assert_eq!(place.read("killed.jsonl"), place.read("together.jsonl"));

    // Where the ceiling does not hold three answers it may hold one.
    let vendor = start(true, calm).await;
    recipe(&place, "poor", &vendor.base_url, &ask.replace("\"1\"", "\"0.002\""));
    let asking = capture(&place, "poor.toml");
    let books = vendor.books();
    assert!(books.nanos <= 2_000_000 && books.nanos == nanos(&asking, "cost"), "{books:?} {asking}");
    assert!(asking["stopped"].as_str().unwrap().starts_with("the ceiling of $0.002"), "{asking}");
}
