//! The twin test on students that never saw what was served, and on those that learnt from it.

use anbiq_domain::Seeded;
use anbiq_lm::Network;
use anbiq_lm::score::likeliest;
use anbiq_lm::train::Example;
use anbiq_trace::{Collected, Config, Report, Row, State};

use super::base::{Base, THREADS, draw, open_ended};
use super::figures::{Innocent, Results, Suspect};
use super::{Failure, Options};

/// Pairs that an innocent student is asked about.
const ASKED: usize = 500;
/// Subsets of every size from which the number of pairs is read off that are needed.
const SUBSETS: usize = 100;

/// What an innocent student may have learnt from.
const INNOCENT: [&str; 4] =
    ["other draws of the same answers", "other text", "answers to other prompts", "both draws of every pair"];

pub(super) async fn innocent(options: &Options, base: &Base, results: &mut Results) -> Result<(), Failure> {
    let prompts: Vec<_> = open_ended(&base.corpus, "others").take(300).map(|document| document.prompt()).collect();
    let others = draw(base.teacher.local(), &prompts, 1, 2, &options.dir.join("others.jsonl")).await?;
    for number in 0..options.innocent {
        let id = format!("innocent {number}");
        if results.has(&id) {
            continue;
        }
        if options.is_late() {
            break;
        }
        let mut random = Seeded::new(number as u64).fork("innocent");
        let kind = number % INNOCENT.len();
        let mut examples = match kind {
            0 => base
                .fresh
                .iter()
                .map(|drawn| base.example(&drawn.prompt, &drawn.answers[0]))
                .collect::<Result<_, _>>()?,
            1 => base.other_text(number as u64, 300)?,
            2 => others.iter().map(|drawn| base.example(&drawn.prompt, &drawn.answers[0])).collect::<Result<_, _>>()?,
            _ => both(base)?,
        };
        random.shuffle(&mut examples);
        examples.truncate(300);
        let rounds = 1 + random.below(5) as u32;
        let student = base.train(&examples, rounds, number as u64)?;
        // Its coins: nothing that it learnt from knew any.
        let mut asked =
            Collected { items: base.items.items.iter().take(ASKED).cloned().collect(), ..base.items.clone() };
        asked.items.iter_mut().for_each(|item| item.served = u8::from(random.chance(0.5)));
        let report = trace(base, &asked, student).await?;
        results.add(Innocent {
            id,
            kind: INNOCENT[kind].to_owned(),
            epochs: rounds,
            p: report.all_traffic.p_exact,
            strength: report.verdict.strength,
        })?;
    }
    Ok(())
}

fn both(base: &Base) -> Result<Vec<Example>, Failure> {
    let draws =
        base.items.items.iter().take(150).flat_map(|item| item.draws.iter().map(move |draw| (&item.prompt, draw)));
    draws.map(|(prompt, draw)| base.example(prompt, draw)).collect()
}

/// Share of served answers among what a suspect learns from, epochs, and whether it learns from log-probabilities.
fn suspects_of(short: bool) -> Vec<(f64, u32, bool)> {
    let mut all = Vec::new();
    for share in [1.0, 0.5, 0.2, 0.05] {
        for epochs in [1, 2, 3, 5] {
            all.push((share, epochs, false));
        }
    }
    all.extend([(1.0, 3, true), (1.0, 5, true), (0.2, 3, true)]);
    if short {
        all.retain(|(share, epochs, by_logprobs)| *share >= 0.2 && [2, 5].contains(epochs) && !by_logprobs);
    }
    all
}

pub(super) async fn suspects(options: &Options, base: &Base, results: &mut Results) -> Result<(), Failure> {
    let seeds = if options.short { 1 } else { 3 };
    for seed in 0..seeds {
        for (share, epochs, by_logprobs) in suspects_of(options.short) {
            let id = format!("suspect {share} {epochs} {by_logprobs} {seed}");
            if results.has(&id) {
                continue;
            }
            if options.is_late() {
                return Ok(());
            }
            let served = base.items.items.iter().map(|item| base.example(&item.prompt, item.served()));
            let mut examples: Vec<Example> = served.collect::<Result<_, _>>()?;
            let rest = (examples.len() as f64 * (1.0 / share - 1.0)).round() as usize;
            examples.extend(base.other_text(100 + seed, rest)?);
            if by_logprobs {
                teach(base, &mut examples)?;
            }
            let student = base.train(&examples, epochs, seed)?;
            let report = trace(base, &base.items, student).await?;
            let differences: Vec<f64> = report.rows.iter().filter_map(difference).collect();
            let all = &report.all_traffic;
            results.add(Suspect {
                id,
                share,
                epochs,
                by_logprobs,
                pairs: all.n,
                win_rate: all.win_rate,
                p: all.p_exact,
                strength: report.verdict.strength,
                needed_50: needed(&differences, 0.5),
                needed_90: needed(&differences, 0.9),
            })?;
        }
    }
    Ok(())
}

/// Gives every example what the teacher finds likely at its places.
fn teach(base: &Base, examples: &mut [Example]) -> Result<(), Failure> {
    let sequences: Vec<(&[u32], usize)> =
        examples.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect();
    let taught = likeliest(base.teacher.local().network(), &sequences, 20, THREADS)?;
    for (example, taught) in examples.iter_mut().zip(taught) {
        example.teacher = Some(taught);
    }
    Ok(())
}

async fn trace(base: &Base, asked: &Collected, student: Network) -> Result<Report, Failure> {
    let student = base.model(student, "student")?;
    let config = Config { batch: 128, ..Config::default() };
    Ok(anbiq_trace::run(asked, &student, &base.teacher, &[], &config, &mut |_, _| {}).await?)
}

fn difference(row: &Row) -> Option<f64> {
    let sign = if row.served == 0 { 1.0 } else { -1.0 };
    row.value.filter(|_| row.state == State::Complete).map(|value| sign * value)
}

/// The least number of pairs of which this share of random subsets gives p below 10^-6; `None` where all are too few. By the
/// normal approximation of the signed-rank statistic, which is good enough to say how many pairs are needed, and for nothing
/// else.
fn needed(differences: &[f64], power: f64) -> Option<usize> {
    const Z: f64 = 4.753_424_308_822_899;
    let mut random = Seeded::new(8).fork("subsets");
    let enough = |size: usize, random: &mut Seeded| {
        let mut order: Vec<f64> = differences.to_vec();
        let found = (0..SUBSETS).filter(|_| {
            random.shuffle(&mut order);
            let subset = &mut order[..size];
            subset.sort_by(|one, other| one.abs().total_cmp(&other.abs()));
            let sum: f64 = (1..).zip(subset.iter()).map(|(rank, value)| f64::from(rank) * value.signum()).sum();
            let n = size as f64;
            sum > Z * (n * (n + 1.0) * (2.0 * n + 1.0) / 6.0).sqrt()
        });
        found.count() as f64 >= power * SUBSETS as f64
    };
    let mut size = 30.0_f64;
    while size as usize <= differences.len() {
        if enough(size as usize, &mut random) {
            return Some(size as usize);
        }
        size *= 1.1;
    }
    None
}
