//! Suspects that give no log-probabilities, versions of the teacher and periods, and servers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anbiq_domain::{Digest, Finish, Prompt, Role, Usage};
use anbiq_model::{Abilities, Event, Generation, Model, ModelError, Request, ScoreRequest, Scored};
use anbiq_trace::endpoint::Endpoint;
use anbiq_trace::probe::{GoingOn, Probe};
use anbiq_trace::{AtServer, By, Collected, Config, Report, Statistic, Strength, items, recheck, render_text, run};
use serde_json::json;

use crate::support::{Mock, collected, exchanges, journal, selection, served, trace};

/// Says what it remembers word for word, and cannot score.
#[derive(Debug, Default)]
struct Parrot {
    name: &'static str,
    /// What it would answer.
    remembers: HashMap<String, String>,
    asked: Arc<Mutex<Vec<Request>>>,
}

#[async_trait::async_trait]
impl Model for Parrot {
    fn name(&self) -> &str {
        self.name
    }

    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    async fn generate(&self, request: Request) -> Result<Generation, ModelError> {
        let Prompt::Chat(messages) = &request.prompt else { return Err(Mock::refusal()) };
        let begun =
            messages.last().filter(|last| last.role == Role::Assistant).map_or("", |last| last.content.as_str());
        let known = self.remembers.get(&messages[0].content).and_then(|whole| whole.strip_prefix(begun));
        let text = known.unwrap_or(" nothing that it knows").to_owned();
        self.asked.lock().unwrap().push(request);
        let finished = Event::Finished { index: 0, finish: Finish::Stop, tokens: 3 };
        let said = Event::Text { index: 0, text, logprobs: Vec::new() };
        Ok(Generation::ready(vec![Ok(said), Ok(finished), Ok(Event::Usage(Usage::default()))]))
    }

    async fn score(&self, _: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        Err(Mock::refusal())
    }
}

fn probed(collected: &Collected, suspect: Parrot) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let probe = |model: Parrot| Probe::new(Arc::new(model), GoingOn::Conversation(2));
    let teacher = probe(Parrot { name: "teacher", ..Parrot::default() });
    let config = Config { statistic: Statistic::Probe, places: Some(2), ..Config::default() };
    runtime.block_on(run(collected, &probe(suspect), &teacher, &[], &config, &mut |_, _| {})).unwrap()
}

#[test]
fn a_suspect_that_goes_on_as_what_was_served_is_established_without_log_probabilities() {
    let collected = collected(2);
    let of_b = collected.items.iter().filter(|item| item.account.as_str().starts_with('b'));
    let remembers = of_b.map(|item| (item.prompt.last_text().to_owned(), item.served().text.clone())).collect();
    let asked = Arc::default();
    let report = probed(&collected, Parrot { name: "suspect", remembers, asked: Arc::clone(&asked) });
    assert_eq!(report.verdict.strength, Strength::Established, "{}", render_text(&report));
    assert_eq!(report.verdict.points_at[0].as_str(), "op-b");
    assert_eq!(recheck(&report), Ok(()));

    // Either draw of a pair at two places, the beginning among them; at the other the conversation goes on.
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4 * collected.items.len());
    let shown = |request: &Request| {
        let Prompt::Chat(messages) = &request.prompt else { return String::new() };
        let said = messages.iter().map(|message| format!("{}: {}", message.role.as_str(), message.content));
        format!("{} {}", said.collect::<Vec<_>>().join(" | "), json!(request.dialect))
    };
    insta::assert_snapshot!(asked[..4].iter().map(shown).collect::<Vec<_>>().join("\n"), @r#"
    user: prompt 0 {}
    user: prompt 0 | assistant: first {"add_generation_prompt":false,"continue_final_message":true}
    user: prompt 0 {}
    user: prompt 0 | assistant: second {"add_generation_prompt":false,"continue_final_message":true}
    "#);
}

#[test]
fn a_suspect_that_remembers_the_twins_or_nothing_is_not_shown() {
    let collected = collected(3);
    let twins = collected.items.iter().map(|item| (item.prompt.last_text().to_owned(), item.twin().text.clone()));
    let contrary = probed(&collected, Parrot { name: "contrary", remembers: twins.collect(), ..Parrot::default() });
    assert_eq!(contrary.verdict.strength, Strength::NotShown);
    assert!(contrary.all_traffic.p_exact > 0.999);
    let nothing = probed(&collected, Parrot { name: "nothing", ..Parrot::default() });
    assert_eq!(nothing.verdict.strength, Strength::NotShown);
}

/// Two versions of the teacher, and two months, in turn.
fn parted(by: &[By]) -> Collected {
    let mut exchanges = exchanges(2);
    for (place, exchange) in exchanges.iter_mut().enumerate() {
        exchange.draws.fingerprints = vec![format!("fp-{}", place / 350); 2];
        if place >= 690 {
            exchange.at = anbiq_domain::Timestamp::from_milliseconds(31 * 86_400_000);
        }
    }
    items::from_journal(journal(exchanges), &anbiq_trace::Selection { by: by.to_vec(), ..selection() }).unwrap()
}

#[test]
fn versions_and_periods_are_hypotheses_of_their_own() {
    let collected = parted(&[By::Model, By::Month]);
    let late = collected.items.iter().filter(|item| item.slices[0].ends_with("fp-1"));
    let suspect = Mock::trained_on("suspect", late.map(|item| item.served().text.clone()), 4.0);
    let report = trace(&collected, &suspect, &[], &Config::default()).unwrap();
    insta::assert_snapshot!(render_text(&report).lines().skip(7).take(9).collect::<Vec<_>>().join("\n"), @r"
    pairs of                      pairs   wins   95 % interval         p   p (Holm)  log10 e
    all traffic                     700  0.619   0.581 - 0.655   1.4e-10    7.1e-10     7.38
    op-a                            300  0.597   0.539 - 0.653    5.8e-4      0.001     1.51
    op-b                            300  0.643   0.586 - 0.698    1.2e-6     3.5e-6     4.22
    model teacher, build fp-0       350  0.514   0.461 - 0.568     0.744      0.744    -0.93
    model teacher, build fp-1       350  0.723   0.673 - 0.769   7.6e-22    4.6e-21    18.21
    month 1970-01                   690  0.616   0.578 - 0.652   5.8e-10     2.3e-9     6.83
    month 1970-02                    10 too few to test
    ");
    assert_eq!(recheck(&report), Ok(()));
    // As many hypotheses as there are tests: all traffic, two operators, two versions and one month.
    let smallest = report.per_slice.iter().map(|slice| slice.result.p_exact).fold(1.0, f64::min);
    let adjusted = report.per_slice.iter().map(|slice| slice.result.p_holm).fold(1.0, f64::min);
    assert!((adjusted / smallest - 6.0).abs() < 1e-9);

    // One version alone is all traffic, and no hypothesis.
    let whole = items::from_journal(
        journal(exchanges(2)),
        &anbiq_trace::Selection { by: vec![By::Model, By::Day], ..selection() },
    );
    let report = trace(&whole.unwrap(), &suspect, &[], &Config::default()).unwrap();
    assert!(report.protocol.slices.is_empty() && report.per_slice.is_empty());
}

#[test]
fn a_server_that_was_seen_not_to_be_the_model_does_not_count() {
    let endpoint = |p_value: f64, differ: &str| -> Endpoint {
        serde_json::from_value(json!({
            "format": 1, "software": "anbiq", "endpoint": "suspect", "reference": "model", "comparison": {}, "prompts": 3,
            "discrepancy": 0.0, "p_permutation": p_value, "steps": 4, "log10_e": 0.0, "p_value": p_value, "differ": differ,
            "null_hypothesis": "", "random": "", "does_not_show": []
        }))
        .unwrap()
    };
    let refused = |model: &str, endpoint: &Endpoint| {
        let error = AtServer::compared(model, Digest::of(b""), endpoint).unwrap_err();
        format!("{}: {error}", error.code())
    };
    insta::assert_snapshot!(refused("suspect", &endpoint(1e-4, "strong")), @"server_differs: nothing that the server of `suspect` answers counts: it was seen not to answer as `model` does (p 1.0e-4)");
    insta::assert_snapshot!(refused("another", &endpoint(0.4, "not_shown")), @"server_differs: nothing that the server of `another` answers counts: the report compares `suspect` with `model`");

    let collected = collected(2);
    let suspect = Mock::trained_on("suspect", served(&collected, "b"), 4.0);
    let compared = AtServer::compared("suspect", Digest::of(b""), &endpoint(0.4, "not_shown")).unwrap();
    let unasked = AtServer { model: "teacher".into(), compared: None };
    let config = Config { servers: vec![compared, unasked], ..Config::default() };
    let report = trace(&collected, &suspect, &[], &config).unwrap();
    insta::assert_snapshot!(report.does_not_show[..2].join("\n"), @r"
    That what answered as suspect at its server is that model: beside model no difference was seen (p 0.400), which does not show that there is none.
    That what answered as teacher at its server is that model: nobody asked (`anbiq trace endpoint`).
    ");
    assert_eq!(recheck(&report), Ok(()));
}
