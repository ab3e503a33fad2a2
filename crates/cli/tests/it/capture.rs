//! A capture that is killed goes on exactly: nothing is lost, nothing is paid twice, and the bytes are those of a run that
//! was never disturbed. `cargo xtask bench distill` does it with ten thousand requests and three kills.

use std::time::Duration;

use anbiq_domain::PriceList;
use anbiq_lab::vendor::{Books, Can, Vendor, VendorConfig};
use serde_json::Value;

use crate::asking::{capture, furnish, nanos, price_list, shards, write_recipe};
use crate::gateway::Running;
use crate::support::Place;

const PROMPTS: usize = 300;

const PRICES: &str = r#"input = "0.50", output = "2.00""#;

fn prices() -> PriceList {
    price_list(PRICES)
}

/// Most requests at the same time.
const UNDER_WAY: u64 = 16;

fn place() -> Place {
    furnish((0..PROMPTS).map(|number| {
        let more = "and more of it ".repeat(number % 7);
        format!("Tell me of thing number {number} {more}")
    }))
}

fn recipe(place: &Place, name: &str, url: &str, ask: &str) {
    write_recipe(place, name, url, PRICES, &format!("concurrency = {UNDER_WAY}\n{ask}"));
}

/// Kills the program each time that so many answers more were charged.
async fn killed(place: &Place, recipe: &str, vendor: &Vendor, each: u64, kills: u64) {
    for kill in 1..=kills {
        let mut program = place.command(&format!("distill capture {recipe}")).spawn().unwrap();
        let reached = async {
            while vendor.books().charged < each * kill {
                assert!(program.try_wait().unwrap().is_none(), "it ended by itself");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
        program.kill().unwrap();
        program.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_capture_pays_for_nothing_twice() {
    let place = place();
    let calm = Vendor::start(VendorConfig::default(), prices()).await.unwrap();
    recipe(&place, "calm", &calm.base_url, "ceiling = \"1\"");
    let asking = capture(&place, "calm.toml");
    assert_eq!((&asking["answered"], &asking["retries"]), (&300.into(), &0.into()));
    assert_eq!(nanos(&asking["cost"]), calm.books().nanos);

    let unruly = VendorConfig {
        busy: 0.2,
        failing: 0.05,
        cut: 0.01,
        retry_after: Duration::from_millis(5),
        ..VendorConfig::default()
    };
    let vendor = Vendor::start(VendorConfig { pause: Duration::from_millis(3), ..unruly }, prices()).await.unwrap();
    recipe(&place, "killed", &vendor.base_url, "ceiling = \"1\"");
    killed(&place, "killed.toml", &vendor, 120, 1).await;
    let asking = capture(&place, "killed.toml");
    let books = vendor.books();
    assert!(books.busy > 30 && books.failed > 3 && books.replayed > 0, "{books:?}");
    assert_eq!((books.different, books.twice), (300, 0), "{books:?}");
    assert_eq!(place.read("killed.jsonl"), place.read("calm.jsonl"), "the bytes of a calm run");
    assert_eq!(nanos(&asking["cost"]), books.nanos, "{asking} {books:?}");
    // Whatever was cut was given again. What is lost can only be what was written down to be sent when the program was killed,
    // and then not sent: nobody knows that of it.
    assert!(asking["lost_tries"].as_u64().unwrap() <= UNDER_WAY, "{asking}");
    assert_eq!(asking["reused"].as_u64().unwrap() + asking["answered"].as_u64().unwrap(), 300);

    // Once more: nothing is asked.
    assert_eq!(capture(&place, "killed.toml")["reused"], 300);
    assert_eq!(vendor.books(), books);

    // A vendor who knows no names may charge twice for what was under way, and what it may have charged is counted.
    let strict =
        Vendor::start(VendorConfig { keys: false, pause: Duration::from_millis(3), ..unruly }, prices()).await.unwrap();
    recipe(&place, "strict", &strict.base_url, "ceiling = \"1\"");
    killed(&place, "strict.toml", &strict, 120, 1).await;
    let asking = capture(&place, "strict.toml");
    let books = strict.books();
    assert_eq!(books.different, 300);
    assert_eq!(place.read("strict.jsonl"), place.read("calm.jsonl"));
    assert!(books.twice <= asking["lost_tries"].as_u64().unwrap(), "{asking} {books:?}");
    let counted = nanos(&asking["cost"]) + nanos(&asking["lost"]);
    assert!(books.nanos <= counted, "{asking} {books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_is_shelved_to_the_same_bytes_whatever_happened() {
    let place = place();
    let can = Can { logprobs: Some(5), ..Can::default() };
    let calm = Vendor::start(VendorConfig { can, ..VendorConfig::default() }, prices()).await.unwrap();
    let ask = "ceiling = \"1\"\nlogprobs = 5";
    recipe(&place, "calm", &calm.base_url, ask);
    capture(&place, "calm.toml");
    let (rows, told) = (place.read("calm.jsonl"), shards(&place, "calm.jsonl"));
    assert!(rows.lines().all(|row| row.contains("\"told\":{\"file\":") && !row.contains("logprobs")));

    // A pilot is shelved; what comes after it is killed among rows of both forms, and again.
    let unruly = VendorConfig {
        can,
        busy: 0.1,
        failing: 0.05,
        cut: 0.01,
        pause: Duration::from_millis(3),
        ..VendorConfig::default()
    };
    let vendor =
        Vendor::start(VendorConfig { retry_after: Duration::from_millis(5), ..unruly }, prices()).await.unwrap();
    recipe(&place, "killed", &vendor.base_url, ask);
    capture(&place, "killed.toml --pilot");
    let piloted = shards(&place, "killed.jsonl");
    assert!(piloted.len() < told.len());
    let charged = vendor.books().charged;
    killed(&place, "killed.toml", &vendor, charged + 20, 1).await;
    assert_eq!(shards(&place, "killed.jsonl"), piloted, "what is there stays until it is written anew");
    killed(&place, "killed.toml", &vendor, charged + 40, 1).await;
    place.write(&format!("killed.jsonl.{}.told", "0".repeat(32)), "what a kill may leave");
    place.write("killed.jsonl.told.new", "and this");
    let asking = capture(&place, "killed.toml");
    // Whether seeds are kept is found out by asking one thing twice.
    assert_eq!((vendor.books().twice, calm.books().twice), (1, 1), "{asking}");
    assert_eq!(place.read("killed.jsonl"), rows);
    assert!(shards(&place, "killed.jsonl") == told);
    // Once more: nothing is asked, and nothing is written.
    assert_eq!(capture(&place, "killed.toml")["reused"], 300);
    assert!(place.read("killed.jsonl") == rows && shards(&place, "killed.jsonl") == told);

    // Nothing is asked for beside shards that are gone, since it could not be made one with them.
    let name: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    let name = format!("killed.jsonl.{}.told", name["told"]["file"].as_str().unwrap());
    std::fs::remove_file(place.path(&name)).unwrap();
    std::fs::rename(place.path(&name.replace("killed", "calm")), place.path("elsewhere")).unwrap();
    let (books, done) = (vendor.books(), place.run("distill capture killed.toml"));
    assert_eq!(done.code, 2);
    assert!(
        done.err.contains("and is not there")
            && done.err.contains("hint: the log-probabilities of a capture are in a file beside it: copy both"),
        "{}",
        done.err
    );
    assert_eq!(vendor.books(), books);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_makes_the_ceiling_be_passed() {
    let place = place();
    for keys in [true, false] {
        let unruly = VendorConfig {
            busy: 0.1,
            cut: 0.1,
            keys,
            retry_after: Duration::from_millis(5),
            ..VendorConfig::default()
        };
        let vendor = Vendor::start(VendorConfig { pause: Duration::from_millis(3), ..unruly }, prices()).await.unwrap();
        let name = format!("ceiling-{keys}");
        recipe(&place, &name, &vendor.base_url, "ceiling = \"0.006\"");
        killed(&place, &format!("{name}.toml"), &vendor, 15, 2).await;
        let asking = capture(&place, &format!("{name}.toml"));
        let (books, ceiling) = (vendor.books(), 6_000_000);
        assert!(asking["stopped"].as_str().unwrap().starts_with("the ceiling of $0.006"), "{asking}");
        assert!(books.nanos <= ceiling && nanos(&asking["cost"]) + nanos(&asking["lost"]) <= ceiling, "{books:?}");
        assert!(books.nanos > ceiling / 4, "it is used: {books:?} {asking}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_of_its_limits_is_kept() {
    let place = place();
    let window = Duration::from_millis(400);
    let config = VendorConfig { limit: Some(60), window, ..VendorConfig::default() };
    let vendor = Vendor::start(config, prices()).await.unwrap();
    recipe(&place, "limited", &vendor.base_url, "ceiling = \"1\"");
    let asking = capture(&place, "limited.toml");
    let books = vendor.books();
    assert_eq!(asking["answered"], 300);
    // The first round knows nothing yet; after it the head of each answer says how much is left.
    assert!(books.over <= 16, "{books:?}");

    let vendor = Vendor::start(VendorConfig::default(), prices()).await.unwrap();
    recipe(&place, "slow", &vendor.base_url, "ceiling = \"1\"\nrequests_per_minute = 6000");
    let begun = std::time::Instant::now();
    capture(&place, "slow.toml");
    // A hundred at once, then a hundred less a sixtieth a second.
    assert!(begun.elapsed() > Duration::from_secs_f64(200.0 / 98.4), "{:?}", begun.elapsed());
    assert_ne!(vendor.books(), Books::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pilot_says_what_the_whole_will_cost() {
    let place = place();
    let vendor = Vendor::start(VendorConfig::default(), prices()).await.unwrap();
    recipe(&place, "pilot", &vendor.base_url, "ceiling = \"1\"");
    let pilot = capture(&place, "pilot.toml --pilot");
    let sample = pilot["forecast"]["sample"].as_u64().unwrap();
    assert!((150..250).contains(&sample), "{pilot}");
    assert_eq!(pilot["asking"]["answered"], sample);
    let band = |field: &str| pilot["forecast"]["money"][field].as_f64().unwrap();
    let again = place.run("distill run pilot.toml --dry-run --json");
    let estimate: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(estimate["forecast"]["money"], pilot["forecast"]["money"], "a dry run reads it from the capture");

    let asking = capture(&place, "pilot.toml");
    assert_eq!((asking["reused"].as_u64(), &asking["requests"]), (Some(sample), &300.into()));
    let bill = vendor.books().nanos as f64 / 1e9;
    assert!(band("low") <= bill && bill <= band("high"), "{bill} {pilot}");
    assert!((band("expected") / bill - 1.0).abs() < 0.05, "{bill} {pilot}");
}

/// What `distill probe` finds, without how much it asked.
fn probed(place: &Place, recipe: &str) -> String {
    let done = place.run(&format!("distill probe {recipe}"));
    assert_eq!(done.code, 0, "{}", done.err);
    done.out.lines().filter(|line| !line.starts_with("asked with")).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_teacher_can_tell_is_found_by_asking() {
    let place = place();
    let plain = Vendor::start(VendorConfig { keys: false, ..VendorConfig::default() }, prices()).await.unwrap();
    recipe(&place, "plain", &plain.base_url, "ceiling = \"1\"");
    insta::assert_snapshot!(probed(&place, "plain.toml"), @r"
    log-probabilities  none
      of given text    none
    token numbers      no
    several answers    no
    seeds are kept     yes
    tokens counted     yes, in streams no
    Idempotency-Key    no
    the teacher tells  its answers
      lost             no log-probabilities: a student learns from the texts alone
      lost             no log-probabilities of given text: this teacher cannot judge a student's own answers
      lost             `Idempotency-Key` is not kept: an answer that is cut off may be charged twice, and counts so
    ");
    let can = Can { logprobs: Some(5), echo: true, several: true, token_ids: true, usage_in_streams: true };
    // It is found in spite of faults.
    let config = VendorConfig { can, busy: 0.2, failing: 0.1, cut: 0.05, ..VendorConfig::default() };
    let able = Vendor::start(config, prices()).await.unwrap();
    recipe(&place, "able", &able.base_url, "ceiling = \"1\"\nlogprobs = \"best\"");
    insta::assert_snapshot!(probed(&place, "able.toml"), @r"
    log-probabilities  of the 5 likeliest tokens, with their bytes
      of given text    by `echo`
    token numbers      yes
    several answers    yes
    seeds are kept     yes
    tokens counted     yes, in streams yes
    Idempotency-Key    yes
    the teacher tells  its answers, with the likeliest tokens at each place; of given text too
      lost             5 alternatives a token, not 20: all others count as one class
    ");

    // What it cost counts, and the capture uses what was found without asking again.
    let before = able.books();
    let asking = capture(&place, "able.toml");
    assert_eq!((&asking["signal"]["tier"], &asking["signal"]["logprobs"]), (&"given".into(), &5.into()));
    assert_eq!(able.books().different - before.different, 300);
    assert!(nanos(&asking["cost"]) + nanos(&asking["lost"]) >= able.books().nanos, "{asking} {:?}", able.books());
    let first: Value = serde_json::from_str(place.read("able.jsonl").lines().next().unwrap()).unwrap();
    // What it told is shelved, token by token.
    assert_eq!(first["told"]["answers"][0][2], first["usage"]["completion_tokens"], "{first}");
    assert!(first.get("logprobs").is_none() && !shards(&place, "able.jsonl").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_probed_and_asked_like_any_server() {
    let place = Place::gateway();
    let toml = place.read("anbiq.toml").replace("# requests_per_minute = 60 ", "max_logprobs = 20 #");
    place.write("anbiq.toml", &toml);
    assert_eq!(place.run("account open acme --plan standard --budget 5").code, 0);
    assert_eq!(place.run("terms accept acme teacher").code, 0);
    let grant = place.run("grant give class --account acme --model teacher --purpose tests --days 9");
    place.write("grant.json", &grant.out);
    let acme = crate::gateway::key(&place, "acme");
    let gateway = Running::start(&place);
    place.write("prompts.jsonl", &"{\"prompt\": \"Tell me of a fox.\"}\n{\"prompt\": \"And of a mill.\"}\n".repeat(2));
    let text = r#"
out = "student"
[teacher]
name = "teacher"
terms = "terms.json"
account = "acme"
grant = "grant.json"
prices = { input = "0.50", output = "2.00", distillation_output = "6.00" }
[capture]
source = "answers.jsonl"
[capture.ask]
url = "URL"
key_env = "TEACHER_KEY"
prompts = "prompts.jsonl"
answers = 2
max_tokens = 16
logprobs = "best"
ceiling = "1"
[student]
name = "student"
init = "teacher"
"#;
    place.write("recipe.toml", &text.replace("URL", gateway.url()));
    let run = |words: &str| {
        let output = place.command(words).env("TEACHER_KEY", &acme).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    insta::assert_snapshot!(run("distill probe recipe.toml"), @r"
    log-probabilities  of the 20 likeliest tokens, with their bytes
      of given text    none
    token numbers      no
    several answers    yes
    seeds are kept     no
    tokens counted     yes, in streams yes
    Idempotency-Key    yes
    the teacher tells  its answers, with the likeliest tokens at each place
      lost             no log-probabilities of given text: this teacher cannot judge a student's own answers
      lost             seeds are not kept: another capture would hold other answers
    asked with 11 requests
    ");
    let asking: Value = serde_json::from_str(&run("distill capture recipe.toml --json")).unwrap();
    assert_eq!(
        (&asking["requests"], &asking["answered"]),
        (&4.into(), &4.into()),
        "two prompts, each twice in the file"
    );
    assert_eq!(gateway.stop(), 0);
    // The gateway's own books agree to the nano-dollar.
    let budget: Value = serde_json::from_str(&place.run("account budget acme").out).unwrap();
    assert_eq!(nanos(&budget["spent"]), nanos(&asking["cost"]) + nanos(&asking["lost"]), "{budget} {asking}");
}

/// The rows of a capture without what their usage says.
pub(crate) fn unpriced(place: &Place, file: &str) -> Vec<Value> {
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().remove("usage");
        row
    };
    place.read(file).lines().map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_answers_are_asked_for_at_once_where_the_server_has_it() {
    let place = furnish((0..60).map(|number| format!("Tell me of thing number {number}")));
    let can = |several| Can { logprobs: Some(3), several, ..Can::default() };
    let start = |several, faults: VendorConfig| Vendor::start(VendorConfig { can: can(several), ..faults }, prices());
    let (calm, ask) = (VendorConfig::default(), "ceiling = \"1\"\nanswers = 3\nlogprobs = 2");
    let alone = start(false, calm).await.unwrap();
    recipe(&place, "alone", &alone.base_url, ask);
    let asking = capture(&place, "alone.toml");
    assert_eq!((&asking["requests"], &asking["answered"]), (&180.into(), &180.into()));
    assert!(alone.books().different >= 180, "{:?}", alone.books());

    // The same bytes for a third of the requests and of the prompts.
    let together = start(true, calm).await.unwrap();
    recipe(&place, "together", &together.base_url, ask);
    let asking = capture(&place, "together.toml");
    let books = together.books();
    assert_eq!((&asking["answered"], &asking["retries"]), (&180.into(), &0.into()));
    // Some twenty more to find out what it can do.
    assert!((60..90).contains(&books.different), "{books:?}");
    assert!(books.prompt_tokens * 2 < alone.books().prompt_tokens, "{books:?}");
    assert_eq!(place.read("together.jsonl"), place.read("alone.jsonl"));

    // Faults and a kill change neither them nor what is paid.
    let unruly = VendorConfig { busy: 0.2, failing: 0.05, cut: 0.02, retry_after: Duration::from_millis(5), ..calm };
    for keys in [true, false] {
        let vendor = start(true, VendorConfig { keys, pause: Duration::from_millis(3), ..unruly }).await.unwrap();
        let name = format!("killed-{keys}");
        recipe(&place, &name, &vendor.base_url, ask);
        killed(&place, &format!("{name}.toml"), &vendor, 35, 1).await;
        let asking = capture(&place, &format!("{name}.toml"));
        let (books, counted) = (vendor.books(), nanos(&asking["cost"]) + nanos(&asking["lost"]));
        assert_eq!(place.read(&format!("{name}.jsonl")), place.read("alone.jsonl"));
        assert!(shards(&place, &format!("{name}.jsonl")) == shards(&place, "alone.jsonl"));
        assert!(books.nanos <= counted, "{books:?} {asking}");
    }

    // Without log-probabilities only how many tokens each answer has is a matter of its length.
    let ask = "ceiling = \"1\"\nanswers = 3";
    for (name, several) in [("apart", false), ("joined", true)] {
        let vendor = start(several, calm).await.unwrap();
        recipe(&place, name, &vendor.base_url, ask);
        let asking = capture(&place, &format!("{name}.toml"));
        assert_eq!(nanos(&asking["cost"]), vendor.books().nanos, "{asking} {:?}", vendor.books());
        assert_eq!(asking["lost_tries"], 0);
        // Once more: nothing is asked, and the books are the same.
        let again = capture(&place, &format!("{name}.toml"));
        assert_eq!((&again["reused"], &again["cost"]), (&180.into(), &asking["cost"]));
    }
    assert_eq!(unpriced(&place, "joined.jsonl"), unpriced(&place, "apart.jsonl"));

    // What is held is the price of all of them; where the ceiling does not hold that, they are asked for one by one.
    let vendor = start(true, calm).await.unwrap();
    recipe(&place, "poor", &vendor.base_url, "ceiling = \"0.004\"\nanswers = 3");
    let asking = capture(&place, "poor.toml");
    assert!(asking["stopped"].as_str().unwrap().starts_with("the ceiling of $0.004"), "{asking}");
    let (books, ceiling) = (vendor.books(), 4_000_000);
    assert!(books.nanos <= ceiling && books.nanos == nanos(&asking["cost"]), "{books:?} {asking}");
    assert!(books.nanos > ceiling * 9 / 10, "it is used: {books:?} {asking}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pilot_knows_that_answers_share_a_prompt() {
    let place = furnish((0..400).map(|number| {
        let more = "and more of it ".repeat(number % 7);
        format!("Tell me of thing number {number} {more}")
    }));
    let can = Can { several: true, ..Can::default() };
    let vendor = Vendor::start(VendorConfig { can, ..VendorConfig::default() }, prices()).await.unwrap();
    recipe(&place, "pilot", &vendor.base_url, "ceiling = \"1\"\nanswers = 4");
    let pilot = capture(&place, "pilot.toml --pilot");
    let band = |field: &str| pilot["forecast"]["money"][field].as_f64().unwrap();
    let sample = pilot["forecast"]["sample"].as_u64().unwrap();
    assert!(sample >= 200 && sample.is_multiple_of(4), "{pilot}");
    capture(&place, "pilot.toml");
    let bill = vendor.books().nanos as f64 / 1e9;
    assert!(band("low") <= bill && bill <= band("high"), "{bill} {pilot}");
    assert!((band("expected") / bill - 1.0).abs() < 0.05, "{bill} {pilot}");
}
