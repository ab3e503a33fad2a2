//! `anbiq watch`: alarms, a journal that is followed, indicators, and what is done about an operator.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anbiq_domain::{Entry, JournalId};
use anbiq_journal::{Journal, Options, Seal, SigningKey};
use anbiq_lab::world::{Scale, World, WorldConfig};
use serde_json::Value;

use crate::import::same::entries;
use crate::support::Place;

const LONGEST: Duration = Duration::from_secs(120);

/// The traffic of the demo: in a shorter one accounts ask too little for an alarm.
fn composed() -> Vec<Entry> {
    entries(&World::compose(&WorldConfig::new(3, Scale::Full)).unwrap(), true)
}

/// The journal of an installation, with small segments that are sealed as they close.
fn open(place: &Place) -> Journal {
    let signer = SigningKey::load_or_create(&place.path("secrets/signing.key")).unwrap();
    let seal = Some(Seal { after_bytes: 200_000, after: Duration::from_secs(3_600) });
    let options = Options { seal, ..Options::default() };
    if place.path("journal/journal.json").exists() {
        return Journal::open(&place.path("journal"), signer, options).unwrap().0;
    }
    Journal::create(&place.path("journal"), JournalId::new("gateway").unwrap(), signer, options).unwrap()
}

async fn append(journal: &Journal, entries: &[Entry]) {
    for entry in entries {
        journal.append(entry).await.unwrap();
    }
}

async fn close(journal: Journal) {
    tokio::task::spawn_blocking(move || journal.close()).await.unwrap().unwrap();
}

/// An installation whose ledger has `accounts`, and whose journal tells of `entries` after that.
async fn installed(entries: &[Entry], accounts: &[String]) -> Place {
    let place = Place::empty();
    assert_eq!(place.run("init .").code, 0);
    for account in accounts {
        assert_eq!(place.run(&format!("account open {account} --plan standard")).code, 0);
    }
    let journal = open(&place);
    append(&journal, entries).await;
    close(journal).await;
    place
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn operators(report: &Value) -> &Vec<Value> {
    report["operators"].as_array().unwrap()
}

struct Follower(Child);

impl Follower {
    fn start(place: &Place) -> Self {
        let words = "watch journal --follow --state state --poll-ms 10 --report-seconds 1 --out live.json --json";
        Self(place.command(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits until it has reported `exchanges` of them.
    fn reaches(&mut self, place: &Place, exchanges: u64) {
        let begun = Instant::now();
        loop {
            let seen = fs::read_to_string(place.path("live.json")).ok().map(|text| json(&text)["exchanges"].as_u64());
            if seen.flatten().is_some_and(|seen| seen >= exchanges) {
                return;
            }
            assert!(self.0.try_wait().unwrap().is_none(), "it ended");
            assert!(begun.elapsed() < LONGEST, "it saw {seen:?} of {exchanges}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Tells it to stop: its exit code, and its last report.
    fn stop(self) -> (Option<i32>, String) {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        let output = self.0.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_killed_finds_what_reading_at_once_finds() {
    let entries = composed();
    let place = Place::empty();
    assert_eq!(place.run("init .").code, 0);
    let journal = open(&place);
    let exchanges = |part: &[Entry]| part.iter().filter(|entry| matches!(entry, Entry::Exchange(_))).count() as u64;
    let (first, rest) = entries.split_at(entries.len() / 3);
    append(&journal, first).await;
    let mut follower = Follower::start(&place);
    follower.reaches(&place, exchanges(first));
    // Killed while the journal goes on, perhaps after it read more than it wrote down.
    let (second, third) = rest.split_at(rest.len() / 2);
    append(&journal, second).await;
    follower.kill();
    let mut follower = Follower::start(&place);
    append(&journal, third).await;
    follower.reaches(&place, exchanges(&entries));
    let (code, followed) = follower.stop();
    close(journal).await;
    let batch = place.run("watch journal --json");
    assert_eq!((code, batch.code), (Some(1), 1), "{}", batch.err);
    assert!(followed == batch.out, "a follower finds something else");
    // Started again it has nothing to read, and finds the same.
    let (_, again) = {
        let mut follower = Follower::start(&place);
        follower.reaches(&place, exchanges(&entries));
        std::thread::sleep(Duration::from_millis(200));
        follower.stop()
    };
    assert!(again == batch.out);
    let state = fs::metadata(place.path("state")).unwrap().len();
    let accounts = json(&batch.out)["accounts"].as_u64().unwrap();
    // The account's share besides what all have in common: latest kinds of prompts.
    assert!(state / accounts < 12_000, "{state} bytes for {accounts} accounts");

    let other = place.run("watch journal --follow --state state --seed 2");
    insta::assert_snapshot!(other.told(), @r"
    exit 2
    error: `state` was made by another version or with other settings
    hint: move it away to begin anew, which reads the journal from its beginning
    ");
    let torn = fs::read(place.path("state")).unwrap();
    fs::write(place.path("state"), &torn[..torn.len() / 2]).unwrap();
    assert_eq!(place.run("watch journal --follow --state state").code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_says_when_its_alarms_were_and_what_was_gone() {
    let place = installed(&composed(), &[]).await;
    let report = json(&place.run("watch journal --json").out);
    let operator = &operators(&report)[0];
    let alarm = &operator["alarm"];
    assert_eq!((&operator["standing"]["standing"], &alarm["stage"]), (&"campaign".into(), &"act".into()), "{alarm}");
    let gone = |leak: &Value| leak["exchanges"].as_u64().unwrap();
    assert!(gone(&alarm["review"]) <= gone(&alarm["act"]));
    assert!(gone(&alarm["act"]) < operator["exchanges"].as_u64().unwrap());
    assert_eq!(operator["standing"]["leaked"], alarm["review"]);
    let text = place.run("watch journal").out;
    for said in ["  stage      act (", "  review     from ", "  act        from ", " were gone"] {
        assert!(text.contains(said), "{text}");
    }
    // Where next to nothing may be false, nothing is acted on.
    let strict = json(&place.run("watch journal --json --false-alarms 1e-200").out);
    assert_eq!(operators(&strict)[0]["alarm"]["stage"], "review");
    insta::assert_snapshot!(place.run("watch journal --false-alarms 0").told(), @r"
    exit 2
    error: invalid value '0' for '--false-alarms <PROBABILITY>': it is a number above 0 and below 1

    For more information, try '--help'.
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_written_and_is_what_the_standard_wants() {
    let place = installed(&composed(), &[]).await;
    assert_eq!(place.run("watch journal --stix bundle.json").code, 1);
    let text = place.read("bundle.json");
    assert_eq!(json(&text)["type"], "bundle");
    // With the validator of OASIS where it is at hand: `pip install stix2-validator`.
    match Command::new("stix2_validator").args(["--version", "2.1"]).arg(place.path("bundle.json")).output() {
        Err(why) => writeln!(std::io::stderr(), "SKIPPED stix2_validator: {why}").unwrap(),
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_accounts_links_and_stages_and_loads_nothing() {
    let place = installed(&composed(), &[]).await;
    let ran = place.run("watch journal --json --html page.html");
    assert_eq!(ran.code, 1);
    let (page, report) = (place.read("page.html"), json(&ran.out));
    let campaign = &operators(&report)[0];
    for member in campaign["accounts"].as_array().unwrap() {
        assert!(page.contains(member["account"].as_str().unwrap()), "{member}");
    }
    let words = campaign["accounts"][0]["reasons"][0]["words"].as_str().unwrap();
    let breach = campaign["standing"]["breach"].as_str().unwrap();
    for said in [words, &breach[1..], "Share of its use", "Over time", "is first at the stage act"] {
        assert!(page.contains(said), "{said}");
    }
    for against in campaign["standing"]["counter"].as_array().unwrap() {
        assert!(page.contains(against.as_str().unwrap()), "{against}");
    }
    let links = campaign["edges"].as_array().unwrap().len().min(100);
    assert!(page.contains(&format!("The {links} heaviest of ")));
    assert_eq!(page.matches("<svg class=\"chart wide").count(), 2, "a graph and a course of time");
    for loads in ["<script", "http://", "https://", "src=", "@import", "url(", "<link"] {
        assert!(!page.contains(loads), "{loads}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_campaign_is_acted_on_and_all_of_it_can_be_taken_back() {
    let entries = composed();
    let place = installed(&entries, &[]).await;
    let report = json(&place.run("watch journal --json").out);
    let name = |operator: &Value| operator["id"].as_str().unwrap().to_owned();
    let campaign = name(&operators(&report)[0]);
    let accounts: Vec<String> = operators(&report)[0]["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|account| account["account"].as_str().unwrap().to_owned())
        .collect();
    let honest = name(operators(&report).iter().find(|one| one["standing"]["standing"] == "unremarkable").unwrap());
    let refused = place.run(&format!("watch enforce {honest} hold --reason no"));
    assert_eq!(refused.code, 2);
    insta::assert_snapshot!(refused.err.replace(&honest, "[OPERATOR]"), @r"
    error: operator `[OPERATOR]` is at the stage `watch`
    hint: something is only done about a campaign at the stage `act`
    ");
    // This ledger does not know these accounts.
    let unknown = place.run(&format!("watch enforce {campaign} hold --reason harvest"));
    assert!(unknown.code == 2 && unknown.err.starts_with("error: the ledger has no account `"), "{}", unknown.err);
    let place = installed(&entries, &accounts).await;
    let enforce = |how: &str| place.run(&format!("watch enforce {campaign} {how} --reason harvest"));
    assert_eq!(enforce("slow").code, 2, "how much is left must be said");
    let budgets = || json(&place.run(&format!("budget list --operator {campaign} --json")).out);
    let declared = || json(&place.run(&format!("account list --operator {campaign} --json")).out);
    let dry = enforce("hold --dry-run");
    assert_eq!(dry.code, 0, "{}", dry.err);
    let would = format!("operator `{campaign}` would be held for review: {} accounts", accounts.len());
    assert!(dry.err.starts_with(&would), "{}", dry.err);
    assert!(dry.err.contains(", linked by "), "{}", dry.err);
    assert_eq!(declared().as_array().unwrap().len(), 0);
    for (how, limit, window) in [("slow --tokens 5000", 5000, "day"), ("hold", 0, "week"), ("refuse", 0, "total")] {
        let done = enforce(how);
        assert_eq!(done.code, 0, "{}", done.err);
        let budgets = budgets();
        let [budget] = &budgets.as_array().unwrap()[..] else { panic!("one measure at a time: {budgets}") };
        assert_eq!((&budget["limit"]["tokens"], &budget["window"]), (&limit.into(), &window.into()));
        assert_eq!(declared().as_array().unwrap().len(), accounts.len());
    }
    assert_eq!(place.run(&format!("watch release {campaign} --reason mistaken")).code, 0);
    assert_eq!(declared().as_array().unwrap().len(), 0);
    assert_eq!(place.run(&format!("watch release {campaign} --reason again")).code, 2);
    let journal = place.run("journal show journal").out;
    let told: Vec<String> = journal
        .lines()
        .map(json)
        .filter(|entry| entry["action"].as_str().is_some_and(|action| action.starts_with("watch.")))
        .map(|entry| format!("{} {}", entry["action"].as_str().unwrap(), entry["detail"].as_str().unwrap()))
        .collect();
    let done = ["slowed down to 5000 tokens a day: ", "held for review: ", "refused: ", "accounts; mistaken"];
    assert_eq!(told.len(), done.len(), "{told:?}");
    for (told, done) in told.iter().zip(done) {
        let action = if done.contains("mistaken") { "watch.release" } else { "watch.enforce" };
        assert!(told.starts_with(action) && told.contains(done), "{told}");
        assert!(done.contains("mistaken") || told.ends_with("; harvest"), "{told}");
    }
}
