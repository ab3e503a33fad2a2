//! The teacher's column of an evaluation, where the teacher is behind a server.

use std::fmt::Write as _;

use anbiq_lab::vendor::{Vendor, VendorConfig};
use serde_json::Value;

use crate::asking::{furnish, nanos, price_list, write_recipe};
use crate::support::Place;

const PRICES: &str = r#"input = "0.50", output = "2.00""#;

/// Writes the recipe `name` for a student of twelve answers that is measured on ten tasks.
fn recipe(place: &Place, name: &str, url: &str, ceiling: &str, evaluate: &str) {
    write_recipe(place, name, url, PRICES, &format!("ceiling = \"{ceiling}\""));
    let file = format!("{name}.toml");
    let more = "[train]\nepochs = 1\n[evaluate]\ntasks = \"tasks.jsonl\"\nmax_tokens = 8\nscratch = false\nbase = false\ncapture_share = 0.0\n";
    place.write(
        &file,
        &format!("{}{more}{evaluate}", place.read(&file).replace("out = \"student\"", &format!("out = \"{name}\""))),
    );
}

fn run(place: &Place, words: &str) -> (Value, String) {
    let done = place.run(&format!("distill run {words} --json"));
    assert_eq!(done.code, 0, "{}", done.err);
    (serde_json::from_str(&done.out).unwrap(), done.err)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_teacher_behind_a_server_answers_the_tasks_within_the_ceiling() {
    let place = furnish((0..12).map(|number| format!("Tell me of thing number {number}")));
    let mut tasks = String::new();
    for number in 0..10 {
        writeln!(tasks, "{{\"prompt\": \"What is word {number}?\", \"expected\": \"word{number}\"}}").unwrap();
    }
    place.write("tasks.jsonl", &tasks);
    let vendor = Vendor::start(VendorConfig::default(), price_list(PRICES)).await.unwrap();
    recipe(&place, "asked", &vendor.base_url, "1", "");
    let (estimate, _) = run(&place, "asked.toml --dry-run");
    assert_eq!((&estimate["requests"], &estimate["tasks"]), (&12.into(), &10.into()));

    let (report, _) = run(&place, "asked.toml");
    let models = |report: &Value| {
        let columns = report["evaluation"].as_array().unwrap();
        columns.iter().map(|column| column["model"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(models(&report), ["teacher", "student"]);
    let teacher = &report["evaluation"][0];
    assert_eq!(teacher["tasks"]["asked"], 10);
    let (cost, books) = (&report["cost"], vendor.books());
    assert_eq!(nanos(&cost["price"]) + nanos(&cost["tasks"]), books.nanos, "{cost} {books:?}");
    assert_eq!(nanos(&teacher["speed"]["price_a_thousand"]), nanos(&cost["tasks"]) * 100);
    assert!(nanos(&estimate["most_money"]) >= books.nanos);
    // Answers that were cut off are left out.
    let kept = &report["capture"]["curated"]["kept"];
    assert!(report["preflight"]["samples"] == *kept && report["preflight"]["ended"] == *kept, "{report}");
    assert!(place.read("asked/preflight.txt").contains("the loss counts what stands in [brackets]"));

    // Once more: it is asked nothing.
    let (again, _) = run(&place, "asked.toml");
    assert_eq!((models(&again), vendor.books()), (models(&report), books));
    assert_eq!(again["evaluation"][0]["tasks"], teacher["tasks"]);

    // Both count against one ceiling; where it does not hold all tasks there is no column.
    let vendor = Vendor::start(VendorConfig::default(), price_list(PRICES)).await.unwrap();
    recipe(&place, "poor", &vendor.base_url, "0.0006", "");
    let (report, said) = run(&place, "poor.toml");
    assert_eq!(models(&report), ["student"]);
    assert!(said.contains("not all tasks were answered by the teacher"), "{said}");
    let books = vendor.books();
    assert!(books.nanos <= 600_000 && books.nanos > 450_000, "{books:?}");

    let vendor = Vendor::start(VendorConfig::default(), price_list(PRICES)).await.unwrap();
    recipe(&place, "alone", &vendor.base_url, "1", "teacher = false\n");
    assert_eq!(models(&run(&place, "alone.toml").0), ["student"]);
    assert_eq!(vendor.books().charged, 12);
}
