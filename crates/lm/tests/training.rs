//! Training makes a network better, the same way every time, and refuses what makes no sense.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use anbiq_domain::Seeded;
use anbiq_lm::lora::{Adapter, Shape};
use anbiq_lm::sample::{self, Draws};
use anbiq_lm::train::{Config as Training, Example, Guide, HiddenStates, Measure, Pair, Preference, Trainer, epochs};
use anbiq_lm::{Config, LmError, Network, Precision, RopeScaling, Variant, score};

fn network(seed: u64) -> Network {
    let shape = Config {
        variant: Variant::default(),
        vocab_size: 32,
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tied: true,
        max_positions: 64,
        bos: None,
        eos: vec![],
        pad: None,
    };
    Network::random(shape, seed).unwrap()
}

/// A start, a step width, and then the sequence: the answer follows from the prompt.
fn examples(count: usize, seed: u64) -> Vec<Example> {
    let mut random = Seeded::new(seed);
    let example = |_| {
        let (start, width, length) = (random.below(29), 1 + random.below(4), 4 + random.below(8));
        let steps = (0..length).map(|step| ((start + step * width) % 29 + 3) as u32);
        let tokens = [width as u32 % 3].into_iter().chain(steps).collect();
        Example { tokens, first_target: 3, teacher: None }
    };
    (0..count).map(example).collect()
}

fn sequences(examples: &[Example]) -> Vec<(&[u32], usize)> {
    examples.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect()
}

fn settings() -> Training {
    Training {
        learning_rate: 5e-3,
        warmup_steps: 10,
        total_steps: 280,
        batch_tokens: 400,
        threads: 2,
        ..Training::default()
    }
}

fn train(network: Network, examples: &[Example], settings: &Training) -> Network {
    let mut trainer = Trainer::new(network, settings.clone()).unwrap();
    for batch in epochs(examples, 30, settings.batch_tokens, settings.seed) {
        assert!(trainer.step(&batch).unwrap().applied);
    }
    trainer.into_network().unwrap()
}

#[test]
fn a_teacher_learns_and_a_student_comes_near_it() {
    let (data, held_out) = (examples(400, 1), examples(60, 2));
    let before = score::mean_loss(&network(1), &sequences(&held_out), 2).unwrap();
    assert!((before - 32_f64.ln()).abs() < 0.2, "an untrained network should guess: {before}");
    let teacher = train(network(1), &data, &settings());
    let after = score::mean_loss(&teacher, &sequences(&held_out), 2).unwrap();
    assert!(after < 0.5, "{before} -> {after}");
    let scores = score::score(&teacher, &sequences(&held_out), 2).unwrap();
    let right: Vec<bool> = scores.iter().flat_map(|score| score.greedy.iter().copied()).collect();
    assert!(right.iter().filter(|right| **right).count() * 10 > right.len() * 8);

    let known = score::likeliest(&teacher, &sequences(&data), 5, 2).unwrap();
    let taught: Vec<Example> =
        data.iter().zip(known).map(|(example, known)| Example { teacher: Some(known), ..example.clone() }).collect();
    let student = train(network(7), &taught, &Training { kl_weight: 1.0, ..settings() });
    let near = score::compare(&teacher, &student, &sequences(&held_out), 2).unwrap();
    let far = score::compare(&teacher, &network(7), &sequences(&held_out), 2).unwrap();
    assert!(near.kl < 0.2 * far.kl && near.top1 > far.top1, "{near:?} {far:?}");
    let same = score::compare(&teacher, &teacher, &sequences(&held_out), 2).unwrap();
    assert!(same.kl.abs() < 1e-9 && same.top1 == 1.0);
    assert_eq!(same.positions, right.len() as u64);
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let data = examples(120, 3);
    let bits = |seed| -> Vec<u32> {
        let trained = train(network(2), &data, &Training { seed, ..settings() });
        trained.weights.data().iter().map(|weight| weight.to_bits()).collect()
    };
    assert_eq!(bits(4), bits(4));
    assert_ne!(bits(4), bits(5));
}

#[test]
fn scores_do_not_depend_on_company_or_threads() {
    let (network, data) = (network(3), examples(300, 4));
    let all = score::score(&network, &sequences(&data), 1).unwrap();
    assert_eq!(all, score::score(&network, &sequences(&data), 3).unwrap());
    for (index, example) in data.iter().enumerate().step_by(50) {
        let alone = score::score(&network, &sequences(std::slice::from_ref(example)), 1).unwrap();
        for (a, b) in alone[0].logprobs.iter().zip(&all[index].logprobs) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn epochs_hold_every_example_once_each() {
    let data = examples(90, 5);
    let batches = epochs(&data, 3, 200, 1);
    assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 270);
    for example in &data {
        let times = batches.iter().flatten().filter(|other| std::ptr::eq(**other, example)).count();
        assert_eq!(times, 3);
    }
    for batch in &batches {
        assert!(batch.iter().map(|example| example.tokens.len()).sum::<usize>() <= 220);
    }
    assert_ne!(batches, epochs(&data, 3, 200, 2));
    assert!(epochs::<Example>(&[], 3, 200, 1).is_empty());
}

#[test]
fn the_learning_rate_rises_and_falls() {
    let settings = Training { learning_rate: 1.0, warmup_steps: 4, total_steps: 104, ..Training::default() };
    for (step, rate) in [(0, 0.25), (3, 1.0), (4, 1.0), (54, 0.55), (104, 0.1), (1000, 0.1)] {
        assert!((settings.rate(step) - rate).abs() < 1e-9, "step {step}: {}", settings.rate(step));
    }
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut trainer = Trainer::new(network(1), settings()).unwrap();
    let before = trainer.network().unwrap().weights.data().to_vec();
    let example = |tokens: &[u32], first_target, teacher| Example { tokens: tokens.to_vec(), first_target, teacher };
    let cases: Vec<(Vec<Example>, &str)> = vec![
        (vec![], "the batch is empty"),
        (vec![example(&[1, 2], 0, None)], "its first target 0 must be at least 1"),
        (vec![example(&[1, 2], 2, None)], "its first target 2 must be at least 1 and below its length 2"),
        (vec![example(&[1, 2], 1, None), example(&[1, 32], 1, None)], "sequence 1: token 32 is not among the 32"),
        (vec![example(&[1; 66], 1, None)], "66 tokens are more than the model's 64"),
        (vec![example(&[1, 2], 1, Some(vec![]))], "its teacher speaks of 0 places, not of 1"),
        (vec![example(&[1, 2], 1, Some(vec![vec![(40, -1.0)]]))], "its teacher's token 40"),
        (vec![example(&[1, 2], 1, Some(vec![vec![(4, 0.5)]]))], "log-probability 0.5 is not at most 0"),
        (vec![example(&[1, 2], 1, Some(vec![vec![(4, -1.0), (4, -2.0)]]))], "names token 4 twice"),
    ];
    for (batch, words) in cases {
        let error = trainer.step(&batch).unwrap_err();
        assert!(matches!(error, LmError::Sequence { .. }));
        assert!(error.to_string().contains(words), "`{words}` is not in: {error}");
    }
    assert_eq!(trainer.network().unwrap().weights.data(), before);
    for wrong in [
        Training { learning_rate: f64::NAN, ..settings() },
        Training { threads: 0, ..settings() },
        Training { kl_weight: 1.5, ..settings() },
        Training { betas: (0.9, 1.0), ..settings() },
        Training { clip_norm: 0.0, ..settings() },
    ] {
        assert_eq!(Trainer::new(network(1), wrong).unwrap_err().code(), "setting_invalid");
    }
}

/// A trainer of the network or of an adapter of it.
fn begin(adapted: bool, settings: Training) -> Trainer {
    if adapted {
        let adapter = Adapter::new(&network(2), Shape { rank: 2, ..Shape::default() }, 4).unwrap();
        Trainer::with_adapter(network(2), adapter, settings).unwrap()
    } else {
        Trainer::new(network(2), settings).unwrap()
    }
}

#[test]
fn a_training_goes_on_to_the_same_bits() {
    let data = examples(60, 3);
    let batches = epochs(&data, 4, 150, 4);
    let bits = |trainer: &mut Trainer| -> Vec<u32> {
        trainer.network().unwrap().weights.data().iter().map(|w| w.to_bits()).collect()
    };
    let dir = tempfile::tempdir().unwrap();
    for adapted in [false, true] {
        let mut whole = begin(adapted, settings());
        batches.iter().for_each(|batch| assert!(whole.step(batch).unwrap().applied));
        // Stopped after every step, with nothing but the file to go on from.
        let path = dir.path().join(format!("{adapted}.under-way"));
        for (step, batch) in batches.iter().enumerate() {
            let mut trainer = begin(adapted, settings());
            if step > 0 {
                assert_eq!(trainer.resume(&path).unwrap(), format!("after {step}"));
            }
            assert_eq!(trainer.steps(), step as u64);
            trainer.step(batch).unwrap();
            trainer.save(&path, &format!("after {}", step + 1)).unwrap();
        }
        let mut last = begin(adapted, settings());
        last.resume(&path).unwrap();
        assert_eq!(bits(&mut last), bits(&mut whole), "adapted: {adapted}");
        // Nothing else is left in the folder, and what does not belong here is refused and changes nothing.
        let others = begin(adapted, Training { seed: 9, ..settings() }).resume(&path).unwrap_err();
        assert!(others.to_string().contains("other settings"), "{others}");
        let mut other = begin(!adapted, settings());
        let before = bits(&mut other);
        assert_eq!(other.resume(&path).unwrap_err().code(), "model_file_malformed");
        let file = std::fs::read(&path).unwrap();
        for length in [0, 7, 200, file.len() - 1] {
            std::fs::write(&path, &file[..length]).unwrap();
            begin(adapted, settings()).resume(&path).unwrap_err();
        }
        assert_eq!((bits(&mut other), other.steps()), (before, 0));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// A training that is guided by a network twice as wide and one layer deeper.
fn guided(weight: f64, settings: Training) -> Trainer {
    let teacher = Config { hidden_size: 64, layers: 3, ..network(5).config };
    let teacher = std::sync::Arc::new(Network::random(teacher, 5).unwrap());
    let (student, layers) = (network(1), HiddenStates::evenly(2, 3));
    let how = HiddenStates { weight, measure: Measure::Cosine, layers };
    let guide = Guide::new(teacher, &student.config, how, 6).unwrap();
    Trainer::new(student, settings).unwrap().guided(guide).unwrap()
}

#[test]
fn a_training_may_begin_to_compute_again_halfway() {
    let data = examples(60, 3);
    let batches = epochs(&data, 2, 150, 4);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("under-way");
    let kinds: [&dyn Fn(Training) -> Trainer; 3] =
        [&|settings| begin(false, settings), &|settings| begin(true, settings), &|settings| guided(1.0, settings)];
    for kind in kinds {
        let bits = |trainer: &mut Trainer| -> Vec<u32> {
            trainer.network().unwrap().weights.data().iter().map(|weight| weight.to_bits()).collect()
        };
        let mut whole = kind(settings());
        batches.iter().for_each(|batch| assert!(whole.step(batch).unwrap().applied));
        let mut first = kind(settings());
        let half = batches.len() / 2;
        batches[..half].iter().for_each(|batch| assert!(first.step(batch).unwrap().applied));
        first.save(&path, "").unwrap();
        let mut second = kind(Training { activation_checkpointing: true, ..settings() });
        second.resume(&path).unwrap();
        batches[half..].iter().for_each(|batch| assert!(second.step(batch).unwrap().applied));
        assert!(bits(&mut second) == bits(&mut whole));
    }
}

#[test]
fn a_guided_training_comes_nearer_and_goes_on_to_the_same_bits() {
    let data = examples(60, 3);
    let batches = epochs(&data, 4, 150, 4);
    let bits = |trainer: &mut Trainer| -> Vec<u32> {
        let guide = trainer.guide().unwrap().projection().to_vec();
        let network = trainer.network().unwrap().weights.data();
        network.iter().chain(&guide).map(|number| number.to_bits()).collect()
    };
    let mut whole = guided(1.0, settings());
    let apart: Vec<f64> = batches.iter().map(|batch| whole.step(batch).unwrap().states).collect();
    assert!(apart[apart.len() - 1] < 0.6 * apart[0], "{apart:?}");
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("under-way");
    for (step, batch) in batches.iter().enumerate() {
        let mut trainer = guided(1.0, settings());
        if step > 0 {
            trainer.resume(&path).unwrap();
        }
        trainer.step(batch).unwrap();
        trainer.save(&path, "").unwrap();
    }
    let mut last = guided(1.0, settings());
    last.resume(&path).unwrap();
    assert_eq!(bits(&mut last), bits(&mut whole));
    // Another weight is another training, and so is one without a guide.
    let others = guided(0.5, settings()).resume(&path).unwrap_err();
    assert!(others.to_string().contains("other settings"), "{others}");
    begin(false, settings()).resume(&path).unwrap_err();
}

#[test]
fn guides_that_make_no_sense_are_refused() {
    let teacher = std::sync::Arc::new(network(5));
    for (weight, layers, says) in [
        (0.0, vec![(1, 1)], "its weight 0 is not positive"),
        (1.0, vec![], "no layers"),
        (1.0, vec![(1, 1), (3, 2)], "the student has the layers 1 to 2, and no layer 3"),
        (1.0, vec![(1, 0)], "the teacher has the layers 1 to 2, and no layer 0"),
    ] {
        let how = HiddenStates { weight, measure: Measure::Cosine, layers };
        let error = Guide::new(std::sync::Arc::clone(&teacher), &network(1).config, how, 1).unwrap_err();
        assert_eq!(error.code(), "setting_invalid");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    assert_eq!(HiddenStates::evenly(2, 3), [(1, 2), (2, 3)]);
    assert_eq!(HiddenStates::evenly(4, 12), [(1, 3), (2, 6), (3, 9), (4, 12)]);
    assert_eq!(HiddenStates::evenly(3, 1), [(1, 1), (2, 1), (3, 1)]);
}

/// The answers of examples as the chosen ones, others in their place as the rejected ones.
fn pairs(network: &Network, data: &[Example]) -> Vec<Pair> {
    let mut random = Seeded::new(8);
    let spoilt = |example: &Example| {
        let mut other = example.clone();
        other.tokens[example.first_target..].fill_with(|| random.below(32) as u32);
        (example.clone(), other)
    };
    Pair::under(network, data.iter().map(spoilt).collect(), 2).unwrap()
}

#[test]
fn a_student_learns_to_prefer() {
    let (data, held_out) = (examples(200, 1), examples(40, 2));
    let begun = network(1);
    let (learnt, unseen) = (pairs(&begun, &data), pairs(&begun, &held_out));
    let margin = |network: &Network| {
        let total = |example: &Example| {
            score::score(network, &[(&example.tokens, example.first_target)], 1).unwrap()[0].total()
        };
        let gains = unseen.iter().map(|pair| total(&pair.chosen) - total(&pair.rejected) - pair.reference);
        gains.sum::<f64>() / unseen.len() as f64
    };
    assert!(margin(&begun).abs() < 1e-3, "the reference prefers nothing by more than it does");
    let mut trainer = Trainer::new(begun, settings()).unwrap();
    let how = Preference::default();
    let mut reports = Vec::new();
    for batch in epochs(&learnt, 20, 600, 1) {
        reports.push(trainer.prefer(&batch, &how).unwrap());
    }
    let (first, last) = (reports[0], reports[reports.len() - 1]);
    assert!((first.loss - std::f64::consts::LN_2 - 0.2 * first.cross_entropy).abs() < 1e-3, "{first:?}");
    assert!(
        last.loss < 0.6 * first.loss && last.won == last.pairs && last.cross_entropy < first.cross_entropy,
        "{last:?}"
    );
    assert!(margin(trainer.network().unwrap()) > 3.0, "{}", margin(trainer.network().unwrap()));

    for wrong in [Preference { beta: 0.0, ..how }, Preference { likelihood: -1.0, ..how }] {
        assert_eq!(trainer.prefer(&[&learnt[0]], &wrong).unwrap_err().code(), "setting_invalid");
    }
    assert_eq!(trainer.prefer(&[], &how).unwrap_err().code(), "sequence_invalid");
}

#[test]
fn own_answers_have_the_distribution_of_the_network() {
    let mut network = network(3);
    network.weights.data_mut().iter_mut().for_each(|weight| *weight *= 4.0);
    let prompts: Vec<Vec<u32>> = (0..3000).map(|at| vec![at % 3, 5, 6]).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let draws = Draws { temperature: 1.0, max_tokens: 6, context: 8, ends: vec![7, 9], seed: 5, threads: 1 };
    let shared = std::sync::Arc::new(network);
    let answers = sample::answers(shared.clone(), &prompts, &draws).unwrap();
    let again = sample::answers(shared.clone(), &prompts, &Draws { threads: 3, ..draws.clone() }).unwrap();
    assert_eq!(answers, again, "whatever the number of threads");
    let alone = sample::answers(shared.clone(), &prompts[..40], &draws).unwrap();
    assert_eq!(alone, answers[..40], "whatever is answered beside");
    for answer in &answers {
        // The context leaves room for five tokens; an end ends.
        assert!(answer.len() == 5 || answer.last().is_some_and(|last| draws.ends.contains(last)), "{answer:?}");
        assert!(answer[..answer.len() - 1].iter().all(|token| !draws.ends.contains(token)));
    }
    // The first token of a thousand answers to one prompt, against the network's own probabilities.
    let visit = |sequence: usize, _: usize, logprobs: &[f32]| {
        let mut statistic = 0.0;
        for (token, logprob) in logprobs.iter().enumerate() {
            let expected = 1000.0 * f64::from(*logprob).exp();
            let drawn = answers.iter().skip(sequence).step_by(3).filter(|answer| answer[0] as usize == token).count();
            statistic += (drawn as f64 - expected).powi(2) / expected;
        }
        // Chi-square of 31 degrees: above 70 with probability 8e-5.
        assert!(statistic < 70.0, "{statistic}");
    };
    let sequences: Vec<Vec<u32>> = (0..3).map(|at| vec![at, 5, 6, 0]).collect();
    let sequences: Vec<(&[u32], usize)> = sequences.iter().map(|tokens| (tokens.as_slice(), 3)).collect();
    score::distributions(&shared, &sequences, 1, &visit).unwrap();
    let full = sample::answers(shared.clone(), &[&[1; 8], &[1; 7]], &draws).unwrap();
    assert_eq!((full[0].len(), full[1].len()), (0, 1), "where there is no room there is no answer");
    for (wrong, says) in [(&[][..], "no token"), (&[40, 1][..], "not among"), (&[40][..], "no token")] {
        let error = sample::answers(shared.clone(), &[wrong], &draws).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let judged = score::judge(&shared, &[(&[1, 5, 6, 31], 3)], 2, 1).unwrap();
    assert!(judged[0][0].iter().any(|&(token, _)| token == 31), "the target is judged, however unlikely");
}

#[test]
fn eight_bits_a_weight_say_nearly_the_same() {
    let data = examples(200, 1);
    let teacher = train(network(1), &data, &settings());
    let mut rounded = teacher.clone();
    Precision::Int8.round(&mut rounded);
    assert_ne!(rounded.weights.data(), teacher.weights.data());
    let near = score::compare(&teacher, &rounded, &sequences(&examples(60, 2)), 2).unwrap();
    assert!(near.kl < 5e-3 && near.top1 > 0.97, "{near:?}");
    let mut again = rounded.clone();
    Precision::Int8.round(&mut again);
    let worst = again.weights.data().iter().zip(rounded.weights.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-6, "what is rounded stays: {worst}");
    let mut same = teacher.clone();
    Precision::F32.round(&mut same);
    assert_eq!(same.weights.data(), teacher.weights.data());
}
