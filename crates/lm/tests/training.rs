//! Training makes a network better, the same way every time, and refuses what makes no sense.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use anbiq_domain::Seeded;
use anbiq_lm::train::{Config as Training, Example, Trainer, epochs};
use anbiq_lm::{Config, LmError, Network, RopeScaling, Variant, score};

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
    trainer.into_network()
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
    assert!(epochs(&[], 3, 200, 1).is_empty());
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
    let before = trainer.network().weights.data().to_vec();
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
    assert_eq!(trainer.network().weights.data(), before);
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
