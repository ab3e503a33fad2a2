//! The twin test.

use std::sync::atomic::AtomicU32;

use anbiq_domain::{
    Answer, CoinKey, Draws, Entry, Exchange, Finish, OperatorId, Outcome, Prompt, Seeded, Texts, Timestamp, ToolCall,
    TwinDraw, TwinMismatch, TwinMode, Twinning, Twins,
};
use anbiq_model::{Abilities, Generation, Model, ModelError, Request, ScoreRequest, Scored};
use anbiq_trace::{
    Collected, Config, Fixed, LeftOut, Report, Selection, State, Statistic, Strength, TwinItem, TwinsPlan, items,
    recheck, render_text, run_planned,
};

use crate::support::{COIN, Mock, account, collected, exchange, exchanges, journal, selection, served, trace};

fn operators(report: &Report) -> Vec<&str> {
    report.verdict.points_at.iter().map(OperatorId::as_str).collect()
}

#[test]
fn a_suspect_that_remembers_is_established_and_points_at_its_operator() {
    for seed in [1, 2, 3] {
        let collected = collected(seed);
        let suspect = Mock::trained_on("suspect", served(&collected, "b"), 4.0);
        for statistic in [Statistic::Residual, Statistic::MinusTeacher] {
            let report = trace(&collected, &suspect, &[], &Config { statistic, ..Config::default() }).unwrap();
            assert_eq!(report.verdict.strength, Strength::Established, "{}", render_text(&report));
            assert_eq!(report.verdict.anytime, Strength::Established);
            assert_eq!(operators(&report), ["op-b"]);
            assert!(report.per_operator[0].result.p_holm > 0.01);
            assert!(report.blind_baseline.passed);
            assert_eq!(recheck(&report), Ok(()));
        }
    }
}

#[test]
fn an_independent_suspect_is_not_shown() {
    for seed in [1, 2, 3] {
        let report = trace(&collected(seed), &Mock::named("innocent"), &[], &Config::default()).unwrap();
        assert_eq!(report.verdict.strength, Strength::NotShown);
        assert_eq!(operators(&report), [""; 0]);
    }
}

#[test]
fn one_that_was_trained_on_the_twins_is_not_shown_either() {
    let collected = collected(4);
    let twins = collected.items.iter().map(|item| item.twin().text.clone());
    let report = trace(&collected, &Mock::trained_on("contrary", twins, 6.0), &[], &Config::default()).unwrap();
    assert_eq!(report.verdict.strength, Strength::NotShown);
    assert!(report.all_traffic.p_exact > 0.999 && report.all_traffic.win_rate < 0.3);
}

#[test]
fn controls_sharpen_the_residual() {
    /// Shares the suspect's own noise, as one with the same base model does.
    #[derive(Debug)]
    struct Sibling;
    #[async_trait::async_trait]
    impl Model for Sibling {
        fn name(&self) -> &str {
            "sibling"
        }
        fn abilities(&self) -> Abilities {
            Mock::named("x").abilities()
        }
        async fn generate(&self, request: Request) -> Result<Generation, ModelError> {
            Mock::named("x").generate(request).await
        }
        async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
            Mock::named("suspect").score(requests).await
        }
    }
    let collected = collected(5);
    let suspect = Mock::trained_on("suspect", served(&collected, "a"), 1.5);
    let without = trace(&collected, &suspect, &[], &Config::default()).unwrap();
    let with = trace(&collected, &suspect, &[&Sibling], &Config::default()).unwrap();
    assert!(with.all_traffic.p_exact < 1e-3 * without.all_traffic.p_exact);
    assert_eq!(operators(&with), ["op-a"]);
    assert_eq!(recheck(&with), Ok(()));
}

#[test]
fn p_is_uniform_when_the_coins_are_thrown_again() {
    let mut random = Seeded::new(12);
    let mut collected = collected(6);
    collected.items.truncate(60);
    // A suspect that remembers some texts, served or not: only the coins are random.
    let remembered = collected.items.iter().step_by(3).map(|item| item.draws[0].text.clone()).collect::<Vec<_>>();
    let suspect = Mock::trained_on("suspect", remembered.into_iter(), 8.0);
    let p_values: Vec<f64> = (0..1000)
        .map(|_| {
            for item in &mut collected.items {
                item.served = u8::from(random.chance(0.5));
            }
            trace(&collected, &suspect, &[], &Config::default()).unwrap().all_traffic.p_exact
        })
        .collect();
    for level in [0.01, 0.05, 0.25, 0.5, 0.9] {
        let share = p_values.iter().filter(|p| **p <= level).count() as f64 / 1000.0;
        let error = (level * (1.0 - level) / 1000.0_f64).sqrt();
        assert!((share - level).abs() <= 4.0 * error, "P(p <= {level}) = {share}");
    }
}

#[test]
fn the_models_never_learn_which_draw_was_served() {
    let collected = collected(7);
    let mut turned = collected.clone();
    for item in &mut turned.items {
        item.served = 1 - item.served;
    }
    let suspect = Mock::trained_on("suspect", served(&collected, "a"), 4.0);
    let (one, other) =
        (trace(&collected, &suspect, &[], &Config::default()), trace(&turned, &suspect, &[], &Config::default()));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.protocol, other.protocol);
    let values = |report: &Report| report.rows.iter().map(|row| row.value).collect::<Vec<_>>();
    assert_eq!(values(&one), values(&other));
}

#[test]
fn recheck_finds_every_change() {
    let collected = collected(8);
    let suspect = Mock::trained_on("suspect", served(&collected, "b"), 4.0);
    let report = trace(&collected, &suspect, &[], &Config::default()).unwrap();
    // As a reader gets it.
    let report: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(recheck(&report), Ok(()));
    let changes: [fn(&mut Report); 8] = [
        |report| report.rows[17].gaps.as_mut().unwrap().suspect += 0.01,
        |report| report.rows[17].gaps.as_mut().unwrap().teacher -= 1.0,
        |report| report.rows[17].served = 1 - report.rows[17].served,
        |report| report.all_traffic.p_exact *= 0.999,
        |report| report.per_operator[1].result.log10_e += 0.1,
        |report| report.verdict.points_at.clear(),
        |report| drop(report.rows.pop()),
        |report| report.protocol.minimum_items = 500,
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut changed = report.clone();
        change(&mut changed);
        assert!(recheck(&changed).is_err(), "change {place}");
    }
}

#[test]
fn pairs_are_left_out_whichever_draw_was_served() {
    let mut exchanges = exchanges(9);
    exchanges[0].outcome = Outcome::Failed { code: "x".into() };
    exchanges[1].texts = None;
    exchanges[2].texts.as_mut().unwrap().answers[1] = exchanges[2].texts.as_ref().unwrap().answers[0].clone();
    exchanges[3].draws.twinning = Some(Twinning { epoch: 1, ..Twinning::default() });
    exchanges[4].draws.texts.pop();
    exchanges[5].draws.twinning = None;
    exchanges[6].outcome = Outcome::Cancelled;
    exchanges[7].model = "another".into();
    // Whichever of the two it is.
    exchanges[8].texts.as_mut().unwrap().answers[1].tool_calls.push(ToolCall::default());
    let selection = Selection { model: Some("teacher".into()), most_items: Some(690), ..selection() };
    let collected = items::from_journal(journal(exchanges), &selection).unwrap();
    insta::assert_debug_snapshot!(collected.left_out, @r"
    LeftOut {
        without_texts: 1,
        equal_draws: 1,
        with_tools: 1,
        not_two_draws: 1,
        failed: 1,
        coin_not_committed: 1,
        over_limit: 2,
        twin_missing: 0,
        model_changed: 0,
        other_mode: 0,
    }
    ");
    assert_eq!(collected.items.len(), 690);
    assert_eq!(collected.items[0].state, State::Cancelled);

    let suspect =
        Mock { refuses: Some("second answer 20"), infinite: Some("first answer 33"), ..Mock::named("suspect") };
    let report = trace(&collected, &suspect, &[], &Config::default()).unwrap();
    // `second answer 20` also begins 200 to 209.
    let starts_so = collected.items.iter().filter(|item| item.draws[1].text.starts_with("second answer 20")).count();
    let others = collected.items.iter().filter(|item| item.draws[0].text.starts_with("first answer 33")).count();
    assert_eq!(report.dropped.not_scored, (starts_so + others) as u64);
    assert_eq!(report.all_traffic.against, 1);
    assert_eq!(report.all_traffic.n, 690 - starts_so - others);
    assert_eq!(recheck(&report), Ok(()));
}

#[test]
fn an_unfair_coin_gives_no_verdict() {
    let mut collected = collected(10);
    for item in &mut collected.items {
        if item.index % 2 == 0 {
            item.served = 0;
        }
    }
    let suspect = Mock::trained_on("suspect", served(&collected, "b"), 4.0);
    let report = trace(&collected, &suspect, &[], &Config::default()).unwrap();
    assert!(!report.blind_baseline.passed);
    assert_eq!(report.verdict.strength, Strength::NotShown);
    assert!(report.verdict.sentence.contains("No verdict"));
}

#[test]
fn what_cannot_be_traced_is_refused_with_what_to_do() {
    let refused = |collected: &Collected, suspect: &Mock| {
        let error = trace(collected, suspect, &[], &Config::default()).unwrap_err();
        format!("{}: {error}", error.code())
    };
    let plain = Mock::named("suspect");
    let none = items::from_journal(Vec::new(), &selection()).unwrap();
    insta::assert_snapshot!(refused(&none, &plain), @"no_twins: the journal holds no twinned exchanges of this teacher: only answers that were served while twinning was on can be traced; raise the plan's `twin_share` or `twin_first` for what comes");

    let mut without_texts = exchanges(1);
    without_texts.iter_mut().for_each(|exchange| exchange.texts = None);
    let without_texts = items::from_journal(journal(without_texts), &selection()).unwrap();
    insta::assert_snapshot!(refused(&without_texts, &plain), @"no_texts: 700 exchanges were twinned, but the journal keeps commitments only, not the texts: set the accounts' text policy to `twinned` for what comes, or run the trace where the texts are kept");

    let mut few = collected(1);
    few.items.truncate(19);
    insta::assert_snapshot!(refused(&few, &plain), @"too_few_twins: 19 pairs can be tested, at least 20 are needed: with fewer not even a perfect result is evidence");

    let blind = Mock { blind: true, ..Mock::named("suspect") };
    insta::assert_snapshot!(refused(&collected(1), &blind), @"scoring_unsupported: model `suspect` gives no log-probabilities of given text, which the twin test needs: use its weights, or an endpoint that scores prompts");

    let mut shared = selection();
    shared.operators[1].accounts.push(account("a1"));
    let error = items::from_journal(Vec::new(), &shared).unwrap_err();
    insta::assert_snapshot!(format!("{}: {error}", error.code()), @"shared_account: account `a1` belongs to both `op-a` and `op-b`: an account has one operator");
}

#[test]
fn a_busy_model_is_asked_again_but_not_for_ever() {
    let collected = collected(1);
    let busy = |times| Mock { busy: AtomicU32::new(times), ..Mock::named("suspect") };
    assert!(trace(&collected, &busy(2), &[], &Config::default()).is_ok());
    let error = trace(&collected, &busy(3), &[], &Config::default()).unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("rate_limited", true));
}

#[test]
fn disclosed_coins_are_checked() {
    let good = exchanges(1).swap_remove(0);
    assert_eq!(items::check_coin(&good, &COIN), Ok(()));
    assert!(items::check_coin(&good, &CoinKey::from_bytes([1; 32])).is_err());
    let mut other_text = good.clone();
    other_text.texts.as_mut().unwrap().answers[1].text.push('!');
    assert_eq!(items::check_coin(&other_text, &COIN), Err(TwinMismatch::Text(1)));
    let mut other_choice = good;
    let twinning = other_choice.draws.twinning.as_mut().unwrap();
    twinning.served = 1 - twinning.served;
    assert!(matches!(items::check_coin(&other_choice, &COIN), Err(TwinMismatch::Choice { .. })));
}

#[test]
fn a_plan_is_followed_or_refused_before_any_model_is_asked() {
    let whole = collected(1);
    let settings = Config { tests: 2, ..Config::default() };
    let plan = TwinsPlan::of(&whole, "suspect", "teacher", &[], &settings).unwrap();
    assert_eq!(plan.power, run_at_once(&whole, &settings).power);
    let fixed = Fixed {
        plan: anbiq_domain::Digest::of(b"plan"),
        signer: "signer".into(),
        signature: "signature".into(),
        made_at: Timestamp::default(),
        begun_before: 1,
    };
    let planned = |collected: &Collected, suspect: &Mock| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let teacher = Mock::named("teacher");
        runtime.block_on(run_planned(collected, suspect, &teacher, &[], &plan, fixed.clone(), &mut |_, _| {}))
    };
    let suspect = Mock::trained_on("suspect", served(&whole, "b"), 1.5);
    let report = planned(&whole, &suspect).unwrap();
    assert_eq!(recheck(&report), Ok(()));
    assert!(render_text(&report).contains("It had been begun once before.\nOne of 2 exact tests"));

    // Two tests side by side answer for each other.
    let alone = trace(&whole, &suspect, &[], &Config::default()).unwrap();
    let (one, two) = (&alone.per_operator[1].result, &report.per_operator[1].result);
    assert_eq!(one.p_exact, two.p_exact);
    assert!((two.p_holm - 2.0 * one.p_holm).abs() < 1e-12 && one.p_holm < 0.05);

    // A model that is asked fails the test: it would answer with another error.
    let asked = || Mock { busy: AtomicU32::new(100), ..Mock::named("suspect") };
    let refused = |collected: &Collected, suspect: &Mock| {
        let error = planned(collected, suspect).unwrap_err();
        assert_eq!(error.code(), "not_as_planned");
        error.to_string()
    };
    let mut fewer = whole.clone();
    fewer.items.pop();
    insta::assert_snapshot!(refused(&fewer, &asked()), @"this is not what was planned: `twins.power.n` is 700 in the plan, and now 699");
    let mut others = whole.clone();
    others.items.swap(0, 1);
    assert!(refused(&others, &asked()).contains("`twins.protocol.pairs_digest` is"));
    let mut split = whole.clone();
    split.operators.pop();
    assert!(refused(&split, &asked()).contains("`twins.power."));
    let stranger = Mock { name: "stranger", ..asked() };
    insta::assert_snapshot!(refused(&whole, &stranger), @r#"this is not what was planned: `twins.protocol.suspect` is "suspect" in the plan, and now "stranger""#);
}

fn run_at_once(collected: &Collected, config: &Config) -> Report {
    trace(collected, &Mock::named("suspect"), &[], config).unwrap()
}

#[test]
fn the_report_reads_well() {
    let collected = collected(2);
    let suspect = Mock::trained_on("suspect", served(&collected, "b"), 4.0);
    let report = trace(&collected, &suspect, &[], &Config::default()).unwrap();
    insta::assert_snapshot!(render_text(&report), @r"
    Trace of suspect against teacher teacher
    Not fixed beforehand: no signed plan shows that suspect, pairs and statistic were chosen before results were seen.

    Verdict: ESTABLISHED
      It is established that suspect was trained on answers that teacher served, on those that left through the accounts of operator op-b.
      For whoever looked before the end: established.

    pairs of                      pairs   wins   95 % interval         p   p (Holm)  log10 e
    all traffic                     700  0.601   0.564 - 0.638    4.6e-8     9.2e-8     5.45
    op-a                            300  0.480   0.422 - 0.538     0.878      0.878    -1.03
    op-b                            300  0.740   0.686 - 0.789   1.3e-19    4.0e-19    16.70

    Blind baselines, which cannot have seen the answers and must be at one half: passed
      which of the two draws was served        wins 0.506, p 0.791
      length                                   wins 0.500, p 1.000
      teacher teacher alone                    wins 0.499, p 0.981

    Power: 700 pairs establish a win rate of about 0.577 with 50 % probability, of 0.598 with 90 %.

    Null hypothesis: The suspect's training is independent of the gateway's secret coin: of each pair, the served answer and its unserved twin were exchangeable to whoever trained the suspect. For an operator: the same, for the coins of its accounts' exchanges; for a version of the teacher or a period: for those of its exchanges.
    What is random in it: Only the coins: one for each exchange, drawn under a key that the journal committed to before. The texts, the suspect, the teacher and the controls are taken as given, so nothing is assumed of their style, size, data or likeness. The test itself draws no random number.
    Statistic: Gap: a model's log-probability of one draw less that of the other. Residual of the suspect's gap in a least-squares regression without intercept, over all pairs in the order of drawing, on the teacher's gap, the difference in length in the teacher's tokens, and each control's gap; with the sign turned where the second draw was served.
    Error rate: Whoever saw nothing that was served is called moderate with at most 5 % probability, strong with 0.1 % and established with 10^-6, over all hypotheses of the report together: that is exact. Measured on 200 small students that had learnt from other draws, other prompts or other text: 8 moderate (1.7 to 7.7 %), none strong or established (0 to 1.8 %).
    What else could explain it:
      - Reposting: the served answers were published or passed on, and the suspect was trained on that copy. Leave out exchanges whose answers are found in public, and repeat.
      - Shared public data: a data set made from the same customers' exchanges was used by more than one party.
      - A common third model: the suspect learnt from another student of these same served answers.
      - Licensed use: the operator had a grant, or passed the answers on under one. The journal's grants say so.
      - Convergent style, equal base models or like training data cannot explain it: they are the same for an answer and its twin.
    What it does not show:
      - Who took the answers: the test per operator says through whose accounts they left. That several accounts are one operator is inferred elsewhere, with a certainty of its own.
      - How much of the suspect comes from them: the win rate measures memorisation, not the share of the training data.
      - Intent, breach of terms or damage.
      - Innocence: a suspect that saw each answer once, that is small for its harvest, or that learnt from rewritten answers may remember too little to be seen with so many pairs.
      - Anything about answers that were not twinned.
    ");
}

/// `cargo test -p anbiq-trace -- --ignored --nocapture speed` prints the time.
#[test]
#[ignore = "prints a time"]
fn speed() {
    let mut random = Seeded::new(1);
    let accounts = ["a1", "a2", "b1", "b2"];
    for pairs in [1000, 2000, 4000] {
        let exchanges = (0..pairs).map(|place| exchange(place, accounts[place as usize % 4], &mut random)).collect();
        let collected = items::from_journal(journal(exchanges), &selection()).unwrap();
        let start = std::time::Instant::now();
        let report = trace(&collected, &Mock::named("innocent"), &[], &Config::default()).unwrap();
        println!("{pairs} pairs: {:?}, {:?}", start.elapsed(), report.all_traffic.method);
    }
}

/// `exchange` as it is journalled when its twin ended after the answer, and the entry that says so.
fn apart(mut exchange: Exchange) -> (Exchange, Twins) {
    let twinning = exchange.draws.twinning.unwrap();
    let twin = 1 - twinning.served;
    let answers = &mut exchange.texts.as_mut().unwrap().answers;
    let cut = Answer::new(String::new(), Finish::Length);
    let answer = std::mem::replace(&mut answers[usize::from(twin)], cut.clone());
    exchange.draws.texts[usize::from(twin)] = Draws::commit_answer(&COIN, exchange.id, twin, &cut);
    exchange.draws.open = vec![twin];
    let draws = vec![TwinDraw::commit(&COIN, exchange.id, twin, String::new(), answer, true)];
    let (account, model) = (exchange.account.clone(), exchange.model.clone());
    let twins = Twins { exchange: exchange.id, at: exchange.at, account, model, total: 2, twinning, draws, tokens: 3 };
    (exchange, twins)
}

/// The same, as if the twin had been deferred.
fn put_off(exchange: Exchange) -> (Exchange, Twins) {
    let served = exchange.draws.twinning.unwrap().served;
    let deferred = |served| Twinning { served, mode: TwinMode::Deferred, ..Twinning::default() };
    let (mut exchange, mut twins) = apart(exchange);
    exchange.draws.open.clear();
    exchange.draws.twinning = Some(deferred(0));
    let answers = &mut exchange.texts.as_mut().unwrap().answers;
    *answers = vec![answers.swap_remove(usize::from(served))];
    exchange.draws.texts = vec![Draws::commit_answer(&COIN, exchange.id, 0, &answers[0])];
    twins.twinning = deferred(served);
    (exchange, twins)
}

/// The entries of `exchanges`, each followed by that of its twin where `later` gives one.
fn with_twins(exchanges: Vec<Exchange>, later: impl Fn(u64, Exchange) -> (Exchange, Option<Twins>)) -> Vec<Entry> {
    let mut entries = journal(Vec::new());
    let mut waiting = Vec::new();
    for (place, exchange) in (0..).zip(exchanges) {
        let (exchange, twins) = later(place, exchange);
        entries.push(Entry::Exchange(Box::new(exchange)));
        // They come in another order.
        waiting.extend(twins.map(|twins| Entry::TwinsDrawn(Box::new(twins))));
        if place % 7 == 6 {
            entries.extend(waiting.drain(..).rev());
        }
    }
    entries.extend(waiting);
    entries
}

#[test]
fn a_pair_is_the_same_whether_its_twin_ended_before_the_answer_or_after() {
    let at_once = items::from_journal(journal(exchanges(21)), &selection()).unwrap();
    let entries = with_twins(exchanges(21), |place, exchange| {
        if place % 3 == 0 {
            return (exchange, None);
        }
        let (exchange, twins) = apart(exchange);
        twins.check(&COIN).unwrap();
        items::check_coin(&exchange, &COIN).unwrap();
        (exchange, Some(twins))
    });
    let later = items::from_journal(entries, &selection()).unwrap();
    let but_place = |collected: &Collected| {
        collected.items.iter().map(|item| TwinItem { index: 0, ..item.clone() }).collect::<Vec<_>>()
    };
    assert_eq!(but_place(&later), but_place(&at_once));
    assert!(later.items.is_sorted_by_key(|item| item.index));
    assert_eq!(later.left_out, LeftOut::default());
}

#[test]
fn a_pair_that_is_incomplete_is_left_out_unless_its_customer_kept_the_model_waiting() {
    let entries = with_twins(exchanges(22), |place, exchange| match place {
        // The twin failed, or was lost with the gateway.
        0 => (apart(exchange).0, None),
        1 => {
            let mut exchange = apart(exchange).0;
            exchange.draws.twinning.as_mut().unwrap().stalled = true;
            (exchange, None)
        }
        2 => {
            let mut exchange = Exchange { outcome: Outcome::Failed { code: "x".into() }, ..exchange };
            exchange.draws.twinning.as_mut().unwrap().stalled = true;
            (exchange, None)
        }
        // The model's server was changed between the two.
        3 => {
            let (mut exchange, mut twins) = apart(exchange);
            exchange.draws.fingerprints = vec!["a".into(), "a".into()];
            twins.draws[0].fingerprint = "b".into();
            (exchange, Some(twins))
        }
        4 => (
            Exchange {
                draws: Draws { fingerprints: vec!["a".into(), "b".into()], ..exchange.draws.clone() },
                ..exchange
            },
            None,
        ),
        5 => {
            let (exchange, mut twins) = apart(exchange);
            twins.draws[0].answer = None;
            (exchange, Some(twins))
        }
        _ => (exchange, None),
    });
    let collected = items::from_journal(entries, &selection()).unwrap();
    let LeftOut { twin_missing, model_changed, without_texts, .. } = collected.left_out;
    assert_eq!((twin_missing, model_changed, without_texts, collected.left_out.total()), (1, 2, 1, 4));
    assert_eq!(collected.items.len(), 696);
    let against = collected.items.iter().filter(|item| item.state == State::Cancelled).count();
    assert_eq!(against, 2);
}

#[test]
fn of_more_than_two_draws_the_pair_with_the_served_one_is_taken() {
    let mut random = Seeded::new(23);
    let more: Vec<Exchange> = (0..300)
        .map(|place| {
            let mut exchange = exchange(place, "a1", &mut random);
            let total = if place % 2 == 0 { 4 } else { 3 };
            let answers: Vec<Answer> =
                (0..total).map(|draw| Answer::new(format!("draw {draw} of {place}"), Finish::Stop)).collect();
            exchange.draws = Draws::commit(&COIN, exchange.id, &Prompt::user("x"), &answers);
            let served = COIN.choose(exchange.id, total);
            exchange.draws.twinning = Some(Twinning { served, ..Twinning::default() });
            exchange.texts = Some(Texts { prompt: Prompt::user("x"), answers });
            exchange
        })
        .collect();
    let collected = items::from_journal(journal(more), &selection()).unwrap();
    // Of three draws the third has no other.
    assert_eq!(collected.items.len() as u64 + collected.left_out.not_two_draws, 300);
    assert!((20..80).contains(&collected.left_out.not_two_draws));
    for item in &collected.items {
        let numbers = item.draws.clone().map(|draw| draw.text[5..6].parse::<u8>().unwrap());
        assert!(numbers == [0, 1] || numbers == [2, 3], "{numbers:?}");
    }
    let first = collected.items.iter().filter(|item| item.served == 0).count() as f64;
    let count = collected.items.len() as f64;
    assert!((first - count / 2.0).abs() < 4.0 * (count / 4.0).sqrt(), "{first} of {count}");
}

#[test]
fn deferred_twins_are_tested_apart_and_say_what_that_rests_on() {
    let entries = || {
        with_twins(exchanges(24), |place, exchange| {
            if place < 100 {
                return (exchange, None);
            }
            let (exchange, twins) = put_off(exchange);
            let cancelled = place == 100;
            let outcome = if cancelled { Outcome::Cancelled } else { Outcome::Completed };
            (Exchange { outcome, ..exchange }, (!cancelled && place != 101).then_some(twins))
        })
    };
    let together = items::from_journal(entries(), &selection()).unwrap();
    assert_eq!((together.items.len(), together.left_out.other_mode), (100, 600));
    assert!(together.items.iter().all(|item| item.mode == TwinMode::Together));
    let selection = Selection { mode: TwinMode::Deferred, ..selection() };
    let deferred = items::from_journal(entries(), &selection).unwrap();
    assert_eq!((deferred.items.len(), deferred.left_out.other_mode, deferred.left_out.twin_missing), (599, 100, 1));
    assert!(deferred.items.iter().all(|item| item.mode == TwinMode::Deferred));
    assert_eq!(deferred.items.iter().filter(|item| item.state == State::Cancelled).count(), 1);
    // Nobody who is shown the draws in order can tell which was served.
    let first = deferred.items.iter().filter(|item| item.served == 0).count();
    assert!((240..360).contains(&first), "{first}");

    let suspect = Mock::trained_on("suspect", served(&deferred, "b"), 4.0);
    let report = trace(&deferred, &suspect, &[], &Config::default()).unwrap();
    assert_eq!((report.verdict.strength, operators(&report)), (Strength::Established, vec!["op-b"]));
    assert_eq!(report.protocol.mode, TwinMode::Deferred);
    assert!(report.protocol.random.contains("the same distribution of answers"));
    assert!(report.rival_explanations[0].starts_with("Another teacher by then"));
    let words = render_text(&report);
    assert!(words.contains("Twins were drawn later") && words.contains("twinned in the other mode"), "{words}");
    assert_eq!(recheck(&serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap()), Ok(()));

    let exact = trace(&together, &suspect, &[], &Config::default()).unwrap();
    assert!(!exact.rival_explanations[0].contains("teacher by then"));
    assert!(!serde_json::to_string(&exact).unwrap().contains("\"mode\""));
    let none = items::from_journal(journal(exchanges(24)), &selection).unwrap();
    let error = trace(&none, &suspect, &[], &Config::default()).unwrap_err();
    assert_eq!(error.code(), "other_twin_mode");
}
