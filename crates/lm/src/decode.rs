use std::fmt;
use std::sync::Arc;

use crate::device::{HeadNorms, norm_heads};
use crate::graph::Rotary;
use crate::kernel::{KEY_BLOCK, Packed, Write, add_to_rows, attend, rms_norm, rotate, silu_gate};
use crate::{Config, Network, Precision};

/// A network made ready to go on with texts token by token.
///
/// One call of [`Decoder::step`] takes any mixture of rows: many tokens of one prompt, one token each of many
/// completions. What a row gives depends on its own sequence alone, to the last bit: not on the rows beside it, on how
/// a prompt was cut into steps, or on whether its cache was filled or copied. That is so because everything is computed
/// row by row, the matrix products too (see [`Packed`]).
pub(crate) struct Decoder {
    network: Arc<Network>,
    layers: Vec<Layer>,
    head: Packed,
    cosines: Vec<f32>,
    sines: Vec<f32>,
    context: usize,
}

struct Layer {
    qkv: Packed,
    o: Packed,
    gate_up: Packed,
    down: Packed,
}

/// The keys and values of one sequence.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    /// For each layer the keys, then the values, in the order that [`attend`] wants.
    numbers: Vec<f32>,
    capacity: usize,
    length: usize,
}

/// A token to go on from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Which of the caches of this step the token is added to.
    pub(crate) cache: usize,
    /// The token.
    pub(crate) token: u32,
    /// Are the logits of what follows wanted?
    pub(crate) wanted: bool,
}

/// Room for one step, kept from step to step.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    positions: Vec<u32>,
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    plain: Vec<f32>,
    plain_inverse: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    gated: Vec<f32>,
    scores: Vec<f32>,
    inverse: Vec<f32>,
    logits: Vec<f32>,
    room: Vec<f32>,
}

impl Decoder {
    /// Makes `network` ready for sequences of up to `context` tokens. This holds a second copy of its matrices, in
    /// `precision`; what the network holds itself should be rounded to that ([`Precision::round`]).
    pub(crate) fn new(network: Arc<Network>, context: usize, precision: Precision) -> Self {
        let (config, weights) = (&network.config, &network.weights);
        let (d, ffn) = (config.hidden_size, config.intermediate_size);
        let layer = |index: usize| Layer {
            qkv: Packed::new(weights.qkv(index), d, precision),
            o: Packed::new(weights.layer(index).o, config.query_size(), precision),
            gate_up: Packed::new(weights.gate_up(index), d, precision),
            down: Packed::new(weights.layer(index).down, ffn, precision),
        };
        let layers = (0..config.layers).map(layer).collect();
        let head = Packed::new(weights.output(), d, precision);
        let mut rotary = Rotary::new(config);
        let (cosines, sines) = rotary.tables(context);
        let (cosines, sines) = (cosines.to_vec(), sines.to_vec());
        Self { layers, head, cosines, sines, context, network }
    }

    /// An empty cache for `tokens` tokens.
    pub(crate) fn cache(&self, tokens: usize) -> Cache {
        let capacity = tokens.next_multiple_of(KEY_BLOCK);
        let config = &self.network.config;
        Cache { numbers: vec![0.0; config.layers * 2 * config.kv_size() * capacity], capacity, length: 0 }
    }

    /// Copies all that `from` holds into `to`, which must be at least as long.
    pub(crate) fn copy(&self, from: &Cache, to: &mut Cache) {
        let config = &self.network.config;
        let head = config.head_dim;
        // Whole blocks of keys are copied; what lies behind the length in the last one is never looked at.
        let used = from.length.next_multiple_of(KEY_BLOCK) * head;
        let parts =
            from.numbers.chunks_exact(head * from.capacity).zip(to.numbers.chunks_exact_mut(head * to.capacity));
        for (from, to) in parts {
            to[..used].copy_from_slice(&from[..used]);
        }
        to.length = from.length;
    }

    /// Bytes of cache that a sequence of `tokens` tokens takes.
    pub(crate) fn cache_bytes(&self, tokens: usize) -> usize {
        let config = &self.network.config;
        let bytes_a_token = config.layers * 2 * config.kv_size() * size_of::<f32>();
        tokens.next_multiple_of(KEY_BLOCK).saturating_mul(bytes_a_token)
    }

    /// Adds each row's token to its cache, in order, and gives the logits after those that are wanted, `[wanted, vocab]`.
    ///
    /// # Panics
    ///
    /// A cache is full or missing, or a token is none of the vocabulary: the caller checks requests before.
    pub(crate) fn step<'space>(
        &self,
        rows: &[Row],
        caches: &mut [&mut Cache],
        space: &'space mut Workspace,
    ) -> &'space [f32] {
        let config = &self.network.config;
        let d = config.hidden_size;
        space.resize(config, rows.len());
        space.positions.clear();
        for (row, x) in rows.iter().zip(space.x.chunks_exact_mut(d)) {
            let cache = &mut caches[row.cache];
            space.positions.push(cache.length as u32);
            cache.length += 1;
            let start = row.token as usize * d;
            x.copy_from_slice(&self.network.weights.embed()[start..start + d]);
        }
        for index in 0..config.layers {
            self.attention(index, rows, caches, space);
            self.feed_forward(index, space);
        }
        self.logits(rows, space)
    }

    fn attention(&self, index: usize, rows: &[Row], caches: &mut [&mut Cache], space: &mut Workspace) {
        let config = &self.network.config;
        let (layer, weights) = (&self.layers[index], self.network.weights.layer(index));
        rms_norm(&space.x, weights.attn_norm, config.rms_norm_eps, &mut space.normed, &mut space.inverse);
        layer.qkv.multiply(&space.normed, Write::Over, &mut space.qkv, &mut space.room);
        add_to_rows(&mut space.qkv, self.network.weights.qkv_bias(index));
        if config.qk_norm() {
            let scales = HeadNorms { queries: weights.q_norm, keys: weights.k_norm };
            norm_heads(config, &scales, &mut space.qkv, &mut space.plain, &mut space.plain_inverse);
        }

        let width = layer.qkv.outputs();
        let (rotated, half) = (config.heads + config.kv_heads, config.head_dim / 2);
        if config.rotates(index) {
            rotate(&mut space.qkv, width, rotated, half, &space.positions, &self.cosines, &self.sines);
        }
        let (queries, kv) = (config.query_size(), config.kv_size());
        // All rows are written before any looks back: rows of one prompt see those before them.
        for ((row, &position), qkv) in rows.iter().zip(&space.positions).zip(space.qkv.chunks_exact(width)) {
            let (keys, values) = qkv[queries..].split_at(kv);
            caches[row.cache].write(index, position as usize, config.head_dim, keys, values);
        }
        let window = config.window(index);
        let each = rows.iter().zip(&space.positions).zip(space.qkv.chunks_exact(width));
        for (((row, &position), qkv), out) in each.zip(space.attended.chunks_exact_mut(queries)) {
            let cache = &caches[row.cache];
            let (keys, values) = cache.layer(index, kv);
            space.scores.resize(cache.capacity.max(space.scores.len()), 0.0);
            let end = position as usize + 1;
            let start = end.saturating_sub(window);
            let (capacity, head_dim, kv_heads) = (cache.capacity, config.head_dim, config.kv_heads);
            attend(&qkv[..queries], keys, values, capacity, start, end, head_dim, kv_heads, &mut space.scores, out);
        }
        layer.o.multiply(&space.attended, Write::Add, &mut space.x, &mut space.room);
        add_to_rows(&mut space.x, weights.o_bias);
    }

    fn feed_forward(&self, index: usize, space: &mut Workspace) {
        let config = &self.network.config;
        let (layer, weights) = (&self.layers[index], self.network.weights.layer(index));
        rms_norm(&space.x, weights.mlp_norm, config.rms_norm_eps, &mut space.normed, &mut space.inverse);
        layer.gate_up.multiply(&space.normed, Write::Over, &mut space.gate_up, &mut space.room);
        add_to_rows(&mut space.gate_up, self.network.weights.gate_up_bias(index));
        silu_gate(&space.gate_up, config.intermediate_size, &mut space.gated);
        layer.down.multiply(&space.gated, Write::Add, &mut space.x, &mut space.room);
        add_to_rows(&mut space.x, weights.down_bias);
    }

    fn logits<'space>(&self, rows: &[Row], space: &'space mut Workspace) -> &'space [f32] {
        let config = &self.network.config;
        let d = config.hidden_size;
        let mut wanted = 0;
        for place in rows.iter().enumerate().filter_map(|(place, row)| row.wanted.then_some(place)) {
            space.x.copy_within(place * d..(place + 1) * d, wanted * d);
            wanted += 1;
        }
        space.logits.resize(wanted * config.vocab_size, 0.0);
        if wanted > 0 {
            let (x, normed) = (&space.x[..wanted * d], &mut space.normed[..wanted * d]);
            rms_norm(x, self.network.weights.norm(), config.rms_norm_eps, normed, &mut space.inverse);
            self.head.multiply(normed, Write::Over, &mut space.logits, &mut space.room);
        }
        &space.logits
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.network.config;
        f.debug_struct("Decoder").field("config", config).field("context", &self.context).finish_non_exhaustive()
    }
}

impl Cache {
    fn layer(&self, index: usize, kv: usize) -> (&[f32], &[f32]) {
        let size = kv * self.capacity;
        let start = index * 2 * size;
        self.numbers[start..start + 2 * size].split_at(size)
    }

    fn write(&mut self, layer: usize, position: usize, head_dim: usize, keys: &[f32], values: &[f32]) {
        let head = head_dim * self.capacity;
        let size = keys.len() * self.capacity;
        let start = layer * 2 * size;
        let (key_part, value_part) = self.numbers[start..start + 2 * size].split_at_mut(size);
        let (block, place) = (position / KEY_BLOCK * KEY_BLOCK * head_dim, position % KEY_BLOCK);
        for (keys, part) in keys.chunks_exact(head_dim).zip(key_part.chunks_exact_mut(head)) {
            let rows = part[block..block + KEY_BLOCK * head_dim].chunks_exact_mut(KEY_BLOCK);
            for (row, &key) in rows.zip(keys) {
                row[place] = key;
            }
        }
        for (values, part) in values.chunks_exact(head_dim).zip(value_part.chunks_exact_mut(head)) {
            part[position * head_dim..(position + 1) * head_dim].copy_from_slice(values);
        }
    }
}

impl Workspace {
    fn resize(&mut self, config: &Config, rows: usize) {
        let (d, ffn) = (config.hidden_size, config.intermediate_size);
        let queries = config.query_size();
        self.x.resize(rows * d, 0.0);
        self.normed.resize(rows * d, 0.0);
        self.qkv.resize(rows * (queries + 2 * config.kv_size()), 0.0);
        if config.qk_norm() {
            self.plain.resize(rows * (queries + config.kv_size()), 0.0);
            self.plain_inverse.resize(rows * (config.heads + config.kv_heads), 0.0);
        }
        self.attended.resize(rows * queries, 0.0);
        self.gate_up.resize(rows * 2 * ffn, 0.0);
        self.gated.resize(rows * ffn, 0.0);
        self.inverse.resize(rows, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anbiq_domain::Seeded;

    use super::*;
    use crate::score::distributions;
    use crate::{RopeScaling, Variant};

    fn decoder(tied: bool, heads: usize, kv_heads: usize, head_dim: usize, ffn: usize) -> Decoder {
        let config = Config {
            variant: Variant::default(),
            vocab_size: 150,
            hidden_size: 64,
            intermediate_size: ffn,
            layers: 2,
            heads,
            kv_heads,
            head_dim,
            rope_theta: 5000.0,
            rope_scaling: RopeScaling::Linear { factor: 2.0 },
            rms_norm_eps: 1e-5,
            tied,
            max_positions: 200,
            bos: None,
            eos: vec![0],
            pad: None,
        };
        let mut network = Network::random(config, 3).unwrap();
        network.weights.data_mut().iter_mut().for_each(|weight| *weight *= 3.0);
        Decoder::new(Arc::new(network), 200, Precision::F32)
    }

    fn tokens(seed: u64, length: usize) -> Vec<u32> {
        let mut random = Seeded::new(seed);
        (0..length).map(|_| random.below(150) as u32).collect()
    }

    /// The logits after every token, the sequence cut into steps of `cut` tokens.
    fn alone(decoder: &Decoder, tokens: &[u32], cut: usize) -> Vec<Vec<f32>> {
        let (mut cache, mut space) = (decoder.cache(tokens.len()), Workspace::default());
        let mut all = Vec::new();
        for part in tokens.chunks(cut) {
            let rows: Vec<Row> = part.iter().map(|&token| Row { cache: 0, token, wanted: true }).collect();
            let logits = decoder.step(&rows, &mut [&mut cache], &mut space);
            all.extend(logits.chunks_exact(decoder.network.config.vocab_size).map(<[f32]>::to_vec));
        }
        all
    }

    #[test]
    fn decoding_equals_the_whole_forward_pass() {
        for (tied, heads, kv_heads, head_dim, ffn) in
            [(true, 2, 2, 32, 100), (false, 4, 2, 16, 64), (true, 6, 1, 10, 1100)]
        {
            let decoder = decoder(tied, heads, kv_heads, head_dim, ffn);
            let tokens = tokens(1, 140);
            let logits = alone(&decoder, &tokens, 37);
            let compare = |_: usize, place: usize, logprobs: &[f32]| {
                let row = &logits[place];
                let mass: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                for (&logit, &logprob) in row.iter().zip(logprobs) {
                    assert!(
                        (f64::from(logit) - mass.ln() - f64::from(logprob)).abs() < 1e-4,
                        "{place}: {logit} {logprob}"
                    );
                }
            };
            distributions(&decoder.network, &[(&tokens, 1)], 1, &compare).unwrap();
        }
    }

    /// The folders of `golden` in which nothing is as in plain Llama, and one in which all is.
    const GOLDEN: [&str; 13] = [
        "llama3",
        "smollm2",
        "llama-bias",
        "llama-yarn",
        "mistral",
        "mistral-full",
        "qwen2",
        "qwen2-yarn",
        "qwen2-window",
        "qwen3",
        "qwen3-bias",
        "smollm3",
        "smollm3-window",
    ];

    #[test]
    fn decoding_gives_the_logits_of_transformers_however_it_is_cut() {
        #[derive(serde::Deserialize)]
        struct Golden {
            sequences: Vec<Sequence>,
        }
        #[derive(serde::Deserialize)]
        struct Sequence {
            tokens: Vec<u32>,
            places: Vec<usize>,
            logits: Vec<Vec<f32>>,
        }
        for case in GOLDEN {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(case);
            let decoder = Decoder::new(Arc::new(Network::load(&folder).unwrap()), 200, Precision::F32);
            let golden = std::fs::read_to_string(folder.join("golden.json")).unwrap();
            let golden: Golden = serde_json::from_str(&golden).unwrap();
            for sequence in &golden.sequences {
                let whole = alone(&decoder, &sequence.tokens, sequence.tokens.len());
                for (&place, expected) in sequence.places.iter().zip(&sequence.logits) {
                    for (&logit, &expected) in whole[place].iter().zip(expected) {
                        assert!((logit - expected).abs() < 1e-4, "{case} at {place}: {logit} {expected}");
                    }
                }
                assert_eq!(alone(&decoder, &sequence.tokens, 1), whole, "{case}");
                assert_eq!(alone(&decoder, &sequence.tokens, 33), whole, "{case}");
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it() {
        // 1100 inputs, 10-wide heads and 150 tokens are multiples of nothing that the kernels use.
        let decoder = decoder(true, 6, 2, 10, 1100);
        let prompts: Vec<Vec<u32>> = (0..40).map(|index| tokens(index, 70 + index as usize)).collect();
        let expected: Vec<Vec<Vec<f32>>> = prompts.iter().map(|prompt| alone(&decoder, prompt, 1)).collect();
        assert_eq!(alone(&decoder, &prompts[0], 64), expected[0]);
        for beside in [2, 3, 7, 16, 33, 40] {
            let mut caches: Vec<Cache> = prompts[..beside].iter().map(|prompt| decoder.cache(prompt.len())).collect();
            let mut space = Workspace::default();
            for place in 0..5 {
                // Each sequence moves on by another number of tokens in every step.
                let mut rows = Vec::new();
                let mut after = Vec::new();
                for (index, cache) in caches.iter().enumerate() {
                    let end = cache.length + (index + place) % 9 + 1;
                    for (at, &token) in prompts[index][..end].iter().enumerate().skip(cache.length) {
                        rows.push(Row { cache: index, token, wanted: at + 1 == end });
                    }
                    after.push(end);
                }
                let mut borrowed: Vec<&mut Cache> = caches.iter_mut().collect();
                let logits = decoder.step(&rows, &mut borrowed, &mut space);
                for ((logits, expected), &end) in logits.chunks_exact(150).zip(&expected).zip(&after) {
                    assert_eq!(logits, expected[end - 1], "{beside} beside each other");
                }
            }
        }
    }

    #[test]
    fn a_copied_prompt_goes_on_as_the_original() {
        let decoder = decoder(true, 4, 2, 16, 64);
        let tokens = tokens(2, 150);
        let expected = alone(&decoder, &tokens, 150);
        let (mut first, mut second) = (decoder.cache(100), decoder.cache(200));
        let mut space = Workspace::default();
        let rows = |part: &[u32], cache| -> Vec<Row> {
            part.iter().map(|&token| Row { cache, token, wanted: true }).collect()
        };
        decoder.step(&rows(&tokens[..70], 0), &mut [&mut first], &mut space);
        decoder.copy(&first, &mut second);
        assert_eq!(second.length, 70);
        let logits = decoder.step(&rows(&tokens[70..], 0), &mut [&mut second], &mut space);
        assert_eq!(logits.chunks_exact(150).map(<[f32]>::to_vec).collect::<Vec<_>>(), expected[70..]);
    }
}
