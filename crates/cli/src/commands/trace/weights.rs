//! `anbiq trace weights`: are a suspect's weights derived from the teacher's?

use std::collections::HashMap;

use anbiq_lm::{Codec, Network, Tokenizer};
use anbiq_trace::Strength;
use anbiq_trace::weights::{Anatomy, LAYERS, Tokens, compare, render_weights, spaced};
use anyhow::Context;

use super::asked::folder_name;
use crate::args::TraceWeights;
use crate::commands::Outcome;
use crate::talk;

/// Tokens by whose embedding the dimensions of the residual stream are compared, evenly spaced among those that both have.
const TOKENS: usize = 4_096;

pub(super) fn run(args: &TraceWeights) -> anyhow::Result<Outcome> {
    let load = |folder: &std::path::Path| -> anyhow::Result<(Network, Codec)> {
        let cannot = || format!("cannot load the model `{}`", folder.display());
        Ok((Network::load(folder).with_context(cannot)?, Codec::load(folder).with_context(cannot)?))
    };
    let (suspect, own) = load(&args.suspect)?;
    let (teacher, theirs) = load(&args.teacher)?;
    let (tokens, shared) = shared(&own.tokenizer, &theirs.tokenizer);
    let chosen: Vec<(u32, u32)> = spaced(shared.len(), TOKENS).into_iter().map(|place| shared[place]).collect();
    let rows = |of: fn(&(u32, u32)) -> u32| chosen.iter().map(|pair| of(pair) as usize).collect::<Vec<_>>();
    let depth = suspect.config.layers.min(teacher.config.layers);
    let suspect = anatomy(&suspect, depth, &rows(|(own, _)| *own));
    let teacher = anatomy(&teacher, depth, &rows(|(_, theirs)| *theirs));
    let name = |folder: &std::path::Path, name| folder_name(&folder.display().to_string(), name);
    let (own, theirs) = (name(&args.suspect, args.name.as_deref()), name(&args.teacher, None));
    let report = compare((&own, &suspect), (&theirs, &teacher), tokens);
    talk::report(&report, args.output.json, args.output.out.as_deref(), render_weights)?;
    Ok(Outcome::found(report.strength == Strength::Established))
}

/// What of a network is compared: the first `depth` layers, or some of them, and the embedding of the tokens `rows`.
fn anatomy(network: &Network, depth: usize, rows: &[usize]) -> Anatomy {
    let (weights, config) = (&network.weights, &network.config);
    let layers = spaced(depth, LAYERS).into_iter().map(|layer| {
        let layer = weights.layer(layer);
        [layer.gate, layer.up, layer.down]
    });
    Anatomy::of((config.hidden_size, config.intermediate_size), layers, weights.embed(), rows)
}

/// How alike two tokenizers are, and the tokens that both have: the number under one and under the other.
fn shared(own: &Tokenizer, theirs: &Tokenizer) -> (Tokens, Vec<(u32, u32)>) {
    let numbers = |of: &Tokenizer| 0..of.size() as u32;
    let mut by_bytes: HashMap<&[u8], u32> = HashMap::new();
    for token in numbers(theirs) {
        by_bytes.entry(theirs.bytes(token)).or_insert(token);
    }
    let pair = |token: u32| {
        let same = (token as usize) < theirs.size() && own.bytes(token) == theirs.bytes(token);
        let other = if same { Some(token) } else { by_bytes.get(own.bytes(token)).copied() };
        Some((token, other?))
    };
    let shared: Vec<(u32, u32)> = numbers(own).filter_map(pair).collect();
    let tokens = Tokens {
        suspect: own.size() as u64,
        teacher: theirs.size() as u64,
        shared: shared.len() as u64,
        same_number: shared.iter().filter(|(own, theirs)| own == theirs).count() as u64,
    };
    (tokens, shared)
}
