//! What the student answers itself: judged by a teacher, or put beside what the teacher answers.

use std::sync::Arc;

use anbiq_domain::{Digest, Seeded};
use anbiq_lm::sample::{self, Draws};
use anbiq_lm::score;
use anbiq_lm::train::{Example, Guide, HiddenStates, Pair, Trainer};
use anbiq_lm::{Codec, Network};
use serde::Serialize;

use crate::DistillError;
use crate::course::Plan;
use crate::train::Member;

/// How the student answers while it learns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct OwnAnswers {
    /// The share of steps that learn from the student's own answers.
    pub(crate) share: f64,
    pub(crate) temperature: f32,
    pub(crate) max_tokens: usize,
    /// The likeliest tokens at each place that the teacher is asked for.
    pub(crate) alternatives: usize,
}

/// A teacher that says how likely it finds what it did not write itself, and what it thinks on the way.
#[derive(Debug)]
pub(crate) struct Judge {
    network: Arc<Network>,
    digest: Digest,
}

impl Judge {
    /// A teacher whose weights are at hand and whose tokens are the student's.
    pub(crate) fn new(network: &Arc<Network>) -> Self {
        let bytes: Vec<u8> = network.weights.data().iter().flat_map(|number| number.to_le_bytes()).collect();
        let digest = Digest::of_parts(&[b"judge\0", network.config.to_json("float32").as_bytes(), b"\0", &bytes]);
        Self { network: Arc::clone(network), digest }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The teacher as one whose hidden states `network` is to match.
    pub(crate) fn guide(&self, network: &Network, how: &HiddenStates, seed: u64) -> Result<Guide, DistillError> {
        Ok(Guide::new(Arc::clone(&self.network), &network.config, how.clone(), seed)?)
    }
}

impl OwnAnswers {
    /// Does step `step` learn from the student's own answers? By a coin of each step, so that a run that goes on throws
    /// the same (Agarwal et al. 2024, algorithm 1).
    pub(crate) fn takes(&self, step: u64, seed: u64) -> bool {
        Seeded::new(seed).fork("own answers").fork(&step.to_string()).unit() < self.share
    }

    /// What the student answers now to the prompts of `batch`, and what the teacher says of each token of it. No gradient
    /// goes through the drawing.
    pub(crate) fn judged(
        &self,
        trainer: &mut Trainer,
        batch: &[&Member],
        codec: &Codec,
        judge: &Judge,
        plan: &Plan,
    ) -> Result<Vec<Example>, DistillError> {
        let seed = Seeded::new(plan.seed).fork("draws").fork(&trainer.steps().to_string()).bits();
        let answered = self.answers(trainer.snapshot()?, batch.iter().copied(), codec, seed, plan.threads)?;
        let mut own: Vec<Example> = answered.into_iter().flatten().collect();
        let most = judge.network.config.max_positions;
        own.retain(|example| example.tokens.len() <= most);
        let sequences: Vec<(&[u32], usize)> =
            own.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect();
        let said = score::judge(&judge.network, &sequences, self.alternatives, plan.threads)?;
        for (example, said) in own.iter_mut().zip(said) {
            example.teacher = Some(said);
        }
        Ok(own)
    }

    /// The teacher's answers beside those that `network` gives itself; prompts to which it gives the same one are left out.
    pub(crate) fn pairs(
        &self,
        network: &Network,
        members: &[Member],
        codec: &Codec,
        plan: &Plan,
    ) -> Result<Vec<Pair>, DistillError> {
        let seed = Seeded::new(plan.seed).fork("snapshot").bits();
        let snapshot = Arc::new(network.clone());
        let own = self.answers(snapshot, members.iter(), codec, seed, plan.threads)?;
        let pairs = members.iter().zip(own).filter_map(|(chosen, own)| {
            let rejected = own.filter(|own| own.tokens != chosen.tokens)?;
            Some((chosen.untold(), rejected))
        });
        Ok(Pair::under(network, pairs.collect(), plan.threads)?)
    }

    /// One answer to the prompt of each member; `None` where there was no room for one.
    fn answers<'set>(
        &self,
        network: Arc<Network>,
        members: impl Iterator<Item = &'set Member>,
        codec: &Codec,
        seed: u64,
        threads: usize,
    ) -> Result<Vec<Option<Example>>, DistillError> {
        let prompts: Vec<&[u32]> = members.map(|member| &member.tokens[..member.first_target]).collect();
        let draws = Draws {
            temperature: self.temperature,
            max_tokens: self.max_tokens,
            context: codec.context,
            ends: codec.eos.clone(),
            seed,
            threads,
        };
        let answers = sample::answers(network, &prompts, &draws)?;
        let example = |(prompt, answer): (&&[u32], Vec<u32>)| {
            let tokens = [*prompt, &answer].concat();
            (!answer.is_empty()).then_some(Example { tokens, first_target: prompt.len(), teacher: None })
        };
        Ok(prompts.iter().zip(answers).map(example).collect())
    }
}
