//! What training would take: tokens by counting, seconds by trying a few steps of each stage as it would be done.

use std::time::{Duration, Instant};

use anbiq_lm::train::{self, Member};
use anbiq_lm::{Codec, Network};
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::course::{Plan, Plans, learnt_from, trainer};
use crate::forecast::Band;
use crate::own::Judge;
use crate::train::{Member as Sequence, Set};

/// Steps that are timed, and how long that may take before fewer must do.
const STEPS: usize = 5;
const LONG: Duration = Duration::from_secs(10);

/// What one stage of training would take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    /// Which, as [`Stage::name`](crate::Stage::name) has it.
    pub stage: String,
    /// Tokens that would pass through the student, all epochs together.
    pub tokens: Band,
    /// Seconds on this machine. The band is that of the tokens, times the quickest and the slowest of a few steps that were tried.
    pub seconds: Band,
}

/// What a stage would learn from.
pub(crate) struct Material<'a> {
    /// Some of the examples, or some like them.
    pub(crate) set: &'a Set,
    /// Tokens of all of them, read once.
    pub(crate) tokens: Band,
}

/// What trying needs.
pub(crate) struct Trial<'a> {
    pub(crate) network: &'a Network,
    pub(crate) codec: &'a Codec,
    pub(crate) judge: Option<&'a Judge>,
}

impl Trial<'_> {
    /// The stage that learns from examples by `plan`; `None` where there are none.
    pub(crate) fn learning(&self, plan: &Plan, material: &Material<'_>) -> Result<Option<Effort>, DistillError> {
        let batches = train::epochs(material.set.members(), 1, plan.batch_tokens, plan.seed);
        let whose = |own: bool| {
            let mut trainer = trainer(self.network.clone(), plan, STEPS as u64 + 1, self.judge)?;
            timed(&batches, |batch| {
                learnt_from(&mut trainer, (material.set, batch), plan, self.codec, self.judge.filter(|_| own)).map(drop)
            })
        };
        let own = plan.own.as_ref().filter(|_| self.judge.is_some());
        let taught = if own.is_some_and(|own| own.share >= 1.0) { None } else { whose(false)? };
        let judged = match own {
            Some(_) => whose(true)?,
            None => None,
        };
        let share = own.map_or(0.0, |own| own.share);
        let pace = match (taught, judged) {
            (Some(taught), Some(judged)) => taught.times(1.0 - share).plus(judged.times(share)),
            (Some(pace), None) | (None, Some(pace)) => pace,
            (None, None) => return Ok(None),
        };
        let tokens = material.tokens.times(f64::from(plan.epochs));
        Ok(Some(Effort { stage: plan.name.to_owned(), seconds: tokens.by(pace), tokens }))
    }

    /// The stage that prefers the teacher's answers to the student's own, if `plans` have it. As many tokens are written by the student, once,
    /// as the teacher's answers have.
    pub(crate) fn preferring(&self, plans: &Plans, material: &Material<'_>) -> Result<Option<Effort>, DistillError> {
        let Some((plan, own, how)) = &plans.prefer else { return Ok(None) };
        // As many as two batches of pairs take.
        let some = train::epochs(material.set.members(), 1, plan.batch_tokens, plan.seed);
        let Some(some) = some.into_iter().next() else { return Ok(None) };
        let some: Vec<Sequence> = some.into_iter().cloned().collect();
        let read: usize = some.iter().map(Member::tokens).sum();
        let begun = Instant::now();
        let pairs = own.pairs(self.network, &some, self.codec, plan)?;
        let writing = begun.elapsed().as_secs_f64() / read.max(1) as f64;
        let batches = train::epochs(&pairs, 1, plan.batch_tokens, plan.seed);
        let mut trainer = trainer(self.network.clone(), plan, STEPS as u64 + 1, None)?;
        let Some(pace) = timed(&batches, |batch| Ok(trainer.prefer(batch, how).map(drop)?))? else { return Ok(None) };
        // Beside each answer of the teacher the student has one of its own, of about its length.
        let tokens = material.tokens.times(2.0 * f64::from(plan.epochs));
        let seconds = tokens.by(pace).plus(material.tokens.times(writing));
        Ok(Some(Effort { stage: plan.name.to_owned(), tokens, seconds }))
    }
}

/// Seconds that a token takes in a few steps: their mean, the quickest and the slowest.
fn timed<M: Member>(
    batches: &[Vec<&M>],
    mut step: impl FnMut(&[&M]) -> Result<(), DistillError>,
) -> Result<Option<Band>, DistillError> {
    let (begun, mut paces) = (Instant::now(), Vec::new());
    for (number, batch) in batches.iter().cycle().take(STEPS + 1).enumerate() {
        let (now, tokens) = (Instant::now(), batch.iter().map(|member| member.tokens()).sum::<usize>());
        step(batch)?;
        // The first step touches all memory for the first time.
        if number > 0 {
            paces.push(now.elapsed().as_secs_f64() / tokens.max(1) as f64);
        }
        if begun.elapsed() > LONG && number > 0 {
            break;
        }
    }
    let count = paces.len() as f64;
    Ok((!paces.is_empty()).then(|| Band {
        expected: paces.iter().sum::<f64>() / count,
        low: paces.iter().copied().fold(f64::INFINITY, f64::min),
        high: paces.iter().copied().fold(0.0, f64::max),
    }))
}
