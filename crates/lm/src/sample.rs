//! A network's own answers to many prompts at once: what a student is judged by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anbiq_model::{Sampling, Shape};

use crate::decode::{Cache, Decoder, Row, Workspace};
use crate::optimizer::side_by_side;
use crate::sampler::{Sampler, Scratch};
use crate::{LmError, Network, Precision, graph};

/// Answers that one thread writes side by side, at most.
const TOGETHER: usize = 32;

/// Tokens of prompts that are read in one step.
const PROMPT_ROWS: usize = 256;

/// How answers are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Draws {
    /// Sampling temperature; 0 takes the likeliest token.
    pub temperature: f32,
    /// Longest answer, in tokens, with the token that ends it.
    pub max_tokens: usize,
    /// Longest prompt and answer together, in tokens.
    pub context: usize,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// Answer `i` depends on this, on `i` and on its prompt, not on what is answered beside it.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
}

/// One answer of `network` to each prompt, its end token with it where it came to one. An answer is empty where its prompt
/// leaves no room for a token.
///
/// # Errors
///
/// A prompt is empty, longer than the network bears, or holds an unknown token.
pub fn answers(network: Arc<Network>, prompts: &[&[u32]], draws: &Draws) -> Result<Vec<Vec<u32>>, LmError> {
    let context = draws.context.min(network.config.max_positions);
    for (index, prompt) in prompts.iter().enumerate() {
        // A prompt has the form of a sequence whose last token is its target, but for its being predicted.
        if prompt.len() > 1 {
            graph::check(&network.config, index, prompt, prompt.len() - 1)?;
        } else if prompt.iter().all(|&token| token as usize >= network.config.vocab_size) {
            return Err(LmError::Sequence { index, problem: "its prompt has no token".into() });
        }
    }
    let longest = prompts.iter().map(|prompt| prompt.len() + draws.max_tokens).max().unwrap_or(0);
    let decoder = Decoder::new(network, longest.min(context).max(1), Precision::F32);
    let together = prompts.len().div_ceil(draws.threads.max(1)).clamp(1, TOGETHER);
    let groups: Vec<(usize, &[&[u32]])> =
        prompts.chunks(together).enumerate().map(|(number, group)| (number * together, group)).collect();
    let next = AtomicUsize::new(0);
    let written = side_by_side(0..draws.threads.clamp(1, groups.len().max(1)), |_| {
        let mut written = Vec::new();
        while let Some(&(first, group)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            written.push((first, write(&decoder, group, first, context, draws)));
        }
        written
    });
    let mut written: Vec<_> = written.into_iter().flatten().collect();
    written.sort_by_key(|(first, _)| *first);
    Ok(written.into_iter().flat_map(|(_, answers)| answers).collect())
}

/// An answer under way.
struct Answer {
    cache: Cache,
    sampler: Sampler,
    tokens: Vec<u32>,
    most: usize,
    last: u32,
}

/// Writes the answers to `prompts`, which are counted from `first`.
fn write(decoder: &Decoder, prompts: &[&[u32]], first: usize, context: usize, draws: &Draws) -> Vec<Vec<u32>> {
    let sampling = Sampling { temperature: draws.temperature, ..Sampling::default() };
    let (mut space, mut scratch) = (Workspace::default(), Scratch::default());
    let mut answers: Vec<Answer> = Vec::with_capacity(prompts.len());
    for (at, prompt) in prompts.iter().enumerate() {
        let most = draws.max_tokens.min(context.saturating_sub(prompt.len()));
        let sampler = Sampler::new(&sampling, &Shape::default(), prompt, draws.seed, (first + at) as u32);
        let cache = decoder.cache(if most > 0 { prompt.len() + most } else { 0 });
        answers.push(Answer { cache, sampler, tokens: Vec::new(), most, last: prompt.last().copied().unwrap_or(0) });
    }
    for (answer, prompt) in answers.iter_mut().zip(prompts).filter(|(answer, _)| answer.most > 0) {
        for part in prompt[..prompt.len() - 1].chunks(PROMPT_ROWS) {
            let rows: Vec<Row> = part.iter().map(|&token| Row { cache: 0, token, wanted: false }).collect();
            decoder.step(&rows, &mut [&mut answer.cache], &mut space);
        }
    }
    let mut going: Vec<&mut Answer> = answers.iter_mut().filter(|answer| answer.most > 0).collect();
    while !going.is_empty() {
        let row = |(cache, answer): (usize, &&mut Answer)| Row { cache, token: answer.last, wanted: true };
        let rows: Vec<Row> = going.iter().enumerate().map(row).collect();
        let mut caches: Vec<&mut Cache> = going.iter_mut().map(|answer| &mut answer.cache).collect();
        let logits = decoder.step(&rows, &mut caches, &mut space);
        let vocabulary = logits.len() / rows.len();
        for (answer, logits) in going.iter_mut().zip(logits.chunks_exact(vocabulary)) {
            answer.last = answer.sampler.draw(logits, &mut scratch);
            answer.tokens.push(answer.last);
        }
        going.retain(|answer| answer.tokens.len() < answer.most && !draws.ends.contains(&answer.last));
    }
    answers.into_iter().map(|answer| answer.tokens).collect()
}
