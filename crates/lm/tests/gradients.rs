//! The way back, checked against differences of the way forward.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use anbiq_domain::Seeded;
use anbiq_lm::lora::{Adapter, Shape, Target};
use anbiq_lm::train::{Config as Training, Example, Guide, HiddenStates, Measure, Pair, Preference, Trainer};
use anbiq_lm::{Config, Family, Network, RopeScaling, Variant, score};

fn shape(heads: usize, kv_heads: usize, head_dim: usize, tied: bool) -> Config {
    Config {
        variant: Variant::default(),
        vocab_size: 19,
        hidden_size: 12,
        intermediate_size: 20,
        layers: 2,
        heads,
        kv_heads,
        head_dim,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tied,
        max_positions: 128,
        bos: None,
        eos: vec![],
        pad: None,
    }
}

/// A network whose weights are large enough for every part to matter.
fn network(shape: Config, seed: u64) -> Network {
    let mut network = Network::random(shape, seed).unwrap();
    let mut random = Seeded::new(seed).fork("test");
    for weight in network.weights.data_mut() {
        *weight += (random.normal() * 0.25) as f32;
    }
    network
}

fn examples(network: &Network, taught: bool) -> Vec<Example> {
    let mut random = Seeded::new(11);
    let teacher = self::network(network.config.clone(), 99);
    let lengths = [(9, 1), (2, 1), (70, 40), (5, 3)];
    let mut examples: Vec<Example> = lengths
        .iter()
        .map(|&(length, first_target)| Example {
            tokens: (0..length).map(|_| random.below(19) as u32).collect(),
            first_target,
            teacher: None,
        })
        .collect();
    if taught {
        let sequences: Vec<_> = examples.iter().map(|e| (e.tokens.as_slice(), e.first_target)).collect();
        let mut known = score::likeliest(&teacher, &sequences, 4, 1).unwrap();
        // One place without a teacher, one with a single token.
        known[0][2].clear();
        known[0][3].truncate(1);
        for (example, known) in examples.iter_mut().zip(known) {
            example.teacher = Some(known);
        }
    }
    examples
}

/// The loss by definition, in 64 bits from the whole distributions.
fn reference_loss(network: &Network, examples: &[Example], share: f64) -> f64 {
    let sequences: Vec<_> = examples.iter().map(|e| (e.tokens.as_slice(), e.first_target)).collect();
    let sum = std::sync::Mutex::new((0.0, 0));
    let visit = |sequence: usize, place: usize, logprobs: &[f32]| {
        let example = &examples[sequence];
        let entropy = -f64::from(logprobs[example.tokens[example.first_target + place] as usize]);
        let known = example.teacher.as_ref().map(|teacher| &teacher[place]).filter(|known| !known.is_empty());
        let loss = known.map_or(entropy, |known| {
            let p: Vec<f64> = known.iter().map(|&(_, logprob)| f64::from(logprob).exp()).collect();
            let q: Vec<f64> = known.iter().map(|&(token, _)| f64::from(logprobs[token as usize]).exp()).collect();
            let (p_rest, q_rest) = (1.0 - p.iter().sum::<f64>(), 1.0 - q.iter().sum::<f64>());
            let known: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
            (1.0 - share) * entropy + share * (known + p_rest * (p_rest / q_rest).ln())
        });
        let mut sum = sum.lock().unwrap();
        *sum = (sum.0 + loss, sum.1 + 1);
    };
    score::distributions(network, &sequences, 1, &visit).unwrap();
    let (loss, count) = sum.into_inner().unwrap();
    loss / f64::from(count)
}

/// The gradient that a step computes. The first step of AdamW with `betas` of 0 and an unbounded clip moves every weight by
/// rate * g / (|g| + 1e-8), which hides the size; so the trainer offers the gradient itself.
fn gradient(network: &Network, examples: &[Example], share: f64, threads: usize) -> (f64, Vec<f32>) {
    let training = Training { kl_weight: share, threads, clip_norm: 1e30, ..Training::default() };
    let mut trainer = Trainer::new(network.clone(), training).unwrap();
    let report = trainer.step(examples).unwrap();
    (report.loss, trainer.gradient().unwrap().to_vec())
}

#[test]
fn gradients_equal_differences() {
    for (heads, kv_heads, head_dim, tied) in [(2, 2, 6, true), (4, 2, 8, false), (3, 1, 4, true), (2, 1, 10, false)] {
        for (taught, share) in [(false, 0.5), (true, 0.7), (true, 1.0), (true, 0.0)] {
            let network = network(shape(heads, kv_heads, head_dim, tied), 3);
            equal_differences(&network, taught, share);
        }
    }
}

/// Every part that a family may have, with and without YaRN.
fn families() -> Vec<Network> {
    let family = |family| Variant { family, ..Variant::default() };
    let yarn = RopeScaling::Yarn { factor: 4.0, original: 16.0, fast: 8.0, slow: 1.0, attention: 1.3, truncate: false };
    // A window within a tile of 64 rows, and one that reaches over two.
    let variants = [
        Variant { attention_bias: true, mlp_bias: true, ..family(Family::Llama) },
        Variant { window: Some(7), windowed: vec![true; 2], ..family(Family::Mistral) },
        Variant { window: Some(66), windowed: vec![false, true], ..family(Family::Qwen2) },
        Variant { attention_bias: true, window: Some(1), windowed: vec![true, false], ..family(Family::Qwen3) },
        family(Family::Qwen3),
        Variant { attention_bias: true, mlp_bias: true, unplaced: vec![false, true], ..family(Family::SmolLm3) },
        Variant { window: Some(5), windowed: vec![true, false], unplaced: vec![true; 2], ..family(Family::SmolLm3) },
    ];
    let both = |variant: Variant| {
        [(RopeScaling::None, true), (yarn, false)].map(|(rope_scaling, tied)| {
            network(Config { variant: variant.clone(), rope_scaling, ..shape(4, 2, 6, tied) }, 3)
        })
    };
    variants.into_iter().flat_map(both).collect()
}

#[test]
fn gradients_of_every_family_equal_differences() {
    for network in families() {
        equal_differences(&network, true, 0.5);
    }
}

#[test]
fn what_is_computed_again_gives_the_same_bits() {
    for network in families() {
        let examples = examples(&network, true);
        let bits = |activation_checkpointing| -> Vec<u32> {
            let training = Training { threads: 2, activation_checkpointing, ..Training::default() };
            let mut trainer = Trainer::new(network.clone(), training).unwrap();
            // The second step finds what the first left in memory.
            trainer.step(&examples[..3]).unwrap();
            trainer.step(&examples[1..]).unwrap();
            trainer.gradient().unwrap().iter().map(|number| number.to_bits()).collect()
        };
        assert!(bits(true) == bits(false), "{:?}", network.config.variant);
    }
}

fn equal_differences(network: &Network, taught: bool, share: f64) {
    let examples = examples(network, taught);
    let (loss, gradient) = gradient(network, &examples, share, 2);
    let exact = reference_loss(network, &examples, share);
    assert!((loss - exact).abs() < 1e-5, "loss {loss} is not {exact}");

    // Along random directions, so that every weight takes part: |g . u| against a central difference.
    let mut random = Seeded::new(17);
    for _ in 0..3 {
        let direction: Vec<f32> = gradient.iter().map(|_| random.normal() as f32).collect();
        agree(network, &examples, share, &gradient, &direction, "everywhere");
    }
    // And for each tensor alone, so that a small one cannot hide.
    for name in NAMES {
        let mut marked = network.clone();
        marked.weights.data_mut().fill(0.0);
        if !mark(&mut marked, name) {
            continue;
        }
        let direction: Vec<f32> = marked.weights.data().iter().map(|&mark| mark * random.normal() as f32).collect();
        agree(network, &examples, share, &gradient, &direction, name);
    }
}

const NAMES: [&str; 21] = [
    "embed",
    "attn_norm",
    "q",
    "k",
    "v",
    "q_bias",
    "k_bias",
    "v_bias",
    "q_norm",
    "k_norm",
    "o",
    "o_bias",
    "mlp_norm",
    "gate",
    "up",
    "gate_bias",
    "up_bias",
    "down",
    "down_bias",
    "norm",
    "head",
];

/// Sets the numbers of the named tensor of the second layer (or of the network) to 1.
fn mark(network: &mut Network, name: &str) -> bool {
    let base = network.weights.data().as_ptr() as usize;
    let slice = {
        let (weights, layer) = (&network.weights, network.weights.layer(1));
        match name {
            "embed" => Some(weights.embed()),
            "norm" => Some(weights.norm()),
            "head" => weights.head(),
            "attn_norm" => Some(layer.attn_norm),
            "q" => Some(layer.q),
            "k" => Some(layer.k),
            "v" => Some(layer.v),
            "q_bias" => Some(layer.q_bias),
            "k_bias" => Some(layer.k_bias),
            "v_bias" => Some(layer.v_bias),
            "q_norm" => Some(layer.q_norm),
            "k_norm" => Some(layer.k_norm),
            "o_bias" => Some(layer.o_bias),
            "gate_bias" => Some(layer.gate_bias),
            "up_bias" => Some(layer.up_bias),
            "down_bias" => Some(layer.down_bias),
            "o" => Some(layer.o),
            "mlp_norm" => Some(layer.mlp_norm),
            "gate" => Some(layer.gate),
            "up" => Some(layer.up),
            _ => Some(layer.down),
        }
        .map(|slice| ((slice.as_ptr() as usize - base) / 4, slice.len()))
    };
    let Some((start, length)) = slice.filter(|(_, length)| *length > 0) else { return false };
    network.weights.data_mut()[start..start + length].fill(1.0);
    true
}

fn agree(network: &Network, examples: &[Example], share: f64, gradient: &[f32], direction: &[f32], what: &str) {
    let length = direction.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let step = 4e-3 / length;
    let moved = |sign: f64| {
        let mut other = network.clone();
        for (weight, &direction) in other.weights.data_mut().iter_mut().zip(direction) {
            *weight += (sign * step * f64::from(direction)) as f32;
        }
        reference_loss(&other, examples, share)
    };
    let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step) / length;
    let product: f64 = gradient.iter().zip(direction).map(|(&g, &u)| f64::from(g) * f64::from(u)).sum::<f64>() / length;
    assert!(
        (difference - product).abs() < 2e-4 + 5e-3 * difference.abs(),
        "{what}: {product} is not {difference} (share {share}, {} heads, {:?})",
        network.config.heads,
        network.config.variant
    );
}

#[test]
fn one_thread_and_three_find_the_same_gradient() {
    let network = network(shape(4, 2, 6, true), 5);
    let examples = examples(&network, true);
    let (_, one) = gradient(&network, &examples, 0.5, 1);
    let (_, three) = gradient(&network, &examples, 0.5, 3);
    let worst = one.iter().zip(&three).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}

/// Two answers to each prompt: what one pair's chosen and rejected answers are.
fn pairs(network: &Network) -> Vec<Pair> {
    let mut random = Seeded::new(23);
    let mut example = |length: usize, first_target: usize| Example {
        tokens: (0..length).map(|_| random.below(19) as u32).collect(),
        first_target,
        teacher: None,
    };
    let both: Vec<(Example, Example)> = [(9, 4, 3), (3, 12, 2), (66, 70, 40)]
        .map(|(one, two, first)| (example(one, first), example(two, first)))
        .into();
    Pair::under(&self::network(network.config.clone(), 41), both, 1).unwrap()
}

/// The loss of pairs by definition.
fn preference_loss(network: &Network, pairs: &[Pair], how: &Preference) -> f64 {
    let total =
        |example: &Example| score::score(network, &[(&example.tokens, example.first_target)], 1).unwrap()[0].total();
    let mut targets = 0;
    let (mut loss, mut entropy) = (0.0, 0.0);
    for pair in pairs {
        let (chosen, rejected) = (total(&pair.chosen), total(&pair.rejected));
        loss += (1.0 + (-how.beta * (chosen - rejected - pair.reference)).exp()).ln();
        entropy -= chosen;
        targets += pair.chosen.targets();
    }
    loss / pairs.len() as f64 + how.likelihood * entropy / targets as f64
}

#[test]
fn gradients_of_preferences_equal_differences() {
    for (how, adapted) in [
        (Preference { beta: 0.1, likelihood: 0.0 }, false),
        (Preference { beta: 0.02, likelihood: 0.3 }, false),
        (Preference { beta: 0.1, likelihood: 0.2 }, true),
    ] {
        let network = network(shape(4, 2, 6, false), 3);
        let pairs = pairs(&network);
        let training = Training { threads: 2, clip_norm: 1e30, ..Training::default() };
        let (mut trainer, adapter) = if adapted {
            let mut adapter = Adapter::new(&network, Shape { rank: 2, ..Shape::default() }, 5).unwrap();
            stir(&mut adapter);
            (Trainer::with_adapter(network.clone(), adapter.clone(), training).unwrap(), Some(adapter))
        } else {
            (Trainer::new(network.clone(), training).unwrap(), None)
        };
        let report = trainer.prefer(&pairs.iter().collect::<Vec<_>>(), &how).unwrap();
        let gradient = trainer.gradient().unwrap().to_vec();
        let at = |moved: &dyn Fn(usize) -> f32| {
            let mut other = network.clone();
            match &adapter {
                Some(adapter) => merged(adapter, moved, &mut other),
                None => {
                    other.weights.data_mut().iter_mut().enumerate().for_each(|(place, weight)| *weight += moved(place));
                }
            }
            preference_loss(&other, &pairs, &how)
        };
        let exact = at(&|_| 0.0);
        assert!((report.loss - exact).abs() < 1e-5 * exact.abs().max(1.0), "{} is not {exact}", report.loss);
        let mut random = Seeded::new(29);
        for _ in 0..6 {
            let direction: Vec<f32> = gradient.iter().map(|_| random.normal() as f32).collect();
            along(&gradient, &direction, &at, &format!("{how:?}"));
        }
    }
}

#[test]
fn gradients_of_hidden_states_equal_differences() {
    let student = network(shape(4, 2, 6, true), 3);
    let examples = examples(&student, true);
    let wide = Config { hidden_size: 16, layers: 3, ..shape(4, 4, 4, false) };
    for (measure, teacher, layers) in [
        (Measure::Cosine, wide.clone(), vec![(1, 2), (2, 3)]),
        (Measure::MeanSquare, wide, vec![(2, 1), (2, 3)]),
        (Measure::MeanSquare, shape(2, 2, 6, true), vec![(1, 1)]),
    ] {
        let teacher = std::sync::Arc::new(network(teacher, 7));
        let how = HiddenStates { weight: 1.5, measure, layers };
        let guide = Guide::new(teacher, &student.config, how, 5).unwrap();
        let trainer = |network: Network, guide: Guide| {
            let training = Training { kl_weight: 0.5, threads: 2, clip_norm: 1e30, ..Training::default() };
            Trainer::new(network, training).unwrap().guided(guide).unwrap()
        };
        let mut whole = trainer(student.clone(), guide.clone());
        assert!(whole.step(&examples).unwrap().states > 0.0);
        let gradient = whole.gradient().unwrap().to_vec();
        let loss = |network: Network, guide: Guide| trainer(network, guide).step(&examples).unwrap().loss;
        let moved_student = |moved: &dyn Fn(usize) -> f32| {
            let mut other = student.clone();
            other.weights.data_mut().iter_mut().enumerate().for_each(|(place, weight)| *weight += moved(place));
            loss(other, guide.clone())
        };
        let moved_projection = |moved: &dyn Fn(usize) -> f32| {
            let numbers = guide.projection().iter().enumerate().map(|(place, number)| number + moved(place));
            loss(student.clone(), guide.clone().with_projection(numbers.collect()).unwrap())
        };
        let mut random = Seeded::new(43);
        for _ in 0..4 {
            let direction: Vec<f32> = gradient.iter().map(|_| random.normal() as f32).collect();
            along(&gradient, &direction, &moved_student, &format!("{measure:?}"));
            let projection = whole.projection_gradient().unwrap();
            let direction: Vec<f32> = projection.iter().map(|_| random.normal() as f32).collect();
            if !direction.is_empty() {
                along(projection, &direction, &moved_projection, &format!("projection, {measure:?}"));
            }
        }
    }
}

#[test]
fn gradients_of_adapters_equal_differences() {
    for targets in [Target::ALL.to_vec(), vec![Target::KProj, Target::UpProj], vec![Target::VProj, Target::OProj]] {
        let network = network(shape(4, 2, 6, true), 3);
        let examples = examples(&network, true);
        let mut adapter = Adapter::new(&network, Shape { rank: 3, alpha: 5.0, targets }, 5).unwrap();
        stir(&mut adapter);
        let training = Training { kl_weight: 0.5, threads: 2, clip_norm: 1e30, ..Training::default() };
        let mut trainer = Trainer::with_adapter(network.clone(), adapter.clone(), training).unwrap();
        trainer.step(&examples).unwrap();
        let gradient = trainer.gradient().unwrap().to_vec();
        assert_eq!(gradient.len(), adapter.data().len());
        let at = |moved: &dyn Fn(usize) -> f32| {
            let mut other = network.clone();
            merged(&adapter, moved, &mut other);
            reference_loss(&other, &examples, 0.5)
        };
        let mut random = Seeded::new(31);
        for _ in 0..6 {
            let direction: Vec<f32> = gradient.iter().map(|_| random.normal() as f32).collect();
            along(&gradient, &direction, &at, &format!("{:?}", adapter.shape().targets));
        }
    }
}

/// Gives both matrices of every projection numbers that matter: at its beginning an adapter's gradient is half zeros.
fn stir(adapter: &mut Adapter) {
    let mut random = Seeded::new(37);
    let stirred: Vec<f32> = adapter.data().iter().map(|_| (0.2 * random.normal()) as f32).collect();
    *adapter = adapter.with_data(stirred).unwrap();
}

fn merged(adapter: &Adapter, moved: &dyn Fn(usize) -> f32, network: &mut Network) {
    let data = adapter.data().iter().enumerate().map(|(place, number)| number + moved(place)).collect();
    adapter.with_data(data).unwrap().merge(network);
}

/// How far each value is moved.
type Moves<'a> = &'a dyn Fn(usize) -> f32;

/// `g . u` against a central difference along `u`.
fn along(gradient: &[f32], direction: &[f32], at: &dyn Fn(Moves<'_>) -> f64, what: &str) {
    let length = direction.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let step = 4e-3 / length;
    let moved = |sign: f64| at(&|place| (sign * step * f64::from(direction[place])) as f32);
    let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step) / length;
    let product: f64 = gradient.iter().zip(direction).map(|(&g, &u)| f64::from(g) * f64::from(u)).sum::<f64>() / length;
    assert!((difference - product).abs() < 2e-4 + 5e-3 * difference.abs(), "{what}: {product} is not {difference}");
}
