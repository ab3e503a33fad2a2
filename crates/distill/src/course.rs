//! The stages that learn: each goes on where it was killed, to the same bits.

use std::path::Path;
use std::time::{Duration, Instant};

use anbiq_domain::Digest;
use anbiq_lm::lora::{self, Adapter};
use anbiq_lm::train::{self, Divergence, Hardware, HiddenStates, Member, Pair, Preference, Trainer};
use anbiq_lm::{Codec, Network};
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::own::{Judge, OwnAnswers};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::store::Store;
use crate::train::{Member as Sequence, Set};

/// Into so many parts, at most, the course of a loss is summed up.
const PARTS: u64 = 120;

/// How a stage learns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) epochs: u32,
    pub(crate) learning_rate: f64,
    pub(crate) batch_tokens: usize,
    pub(crate) kl_weight: f64,
    pub(crate) divergence: Divergence,
    pub(crate) temperature: f64,
    pub(crate) lora: Option<lora::Shape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hidden: Option<HiddenStates>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) own: Option<OwnAnswers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preference: Option<Preference>,
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    /// Stages from before there was a choice are the processor's.
    #[serde(skip_serializing_if = "Hardware::is_cpu")]
    pub(crate) device: Hardware,
    /// Changes no bit of what comes out, so it is no part of a key.
    #[serde(skip)]
    pub(crate) activation_checkpointing: bool,
}

/// What a stage did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Which.
    pub name: String,
    /// The digest of everything that it depends on.
    pub key: Digest,
    /// Was it taken from the store? Its times are then those of the run that did the work.
    pub reused: bool,
    /// Sequences, each once; of a stage that prefers, pairs of them.
    pub examples: u64,
    /// Sequences that were cut to the context.
    pub cut: u64,
    /// Sequences that were left out, since they do not fit the context.
    pub too_long: u64,
    /// Tokens that passed through the network, all epochs together.
    pub tokens: u64,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Steps that were left out, since their gradient was not finite.
    pub skipped: u64,
    /// Steps that learnt from the student's own answers.
    #[serde(default)]
    pub own_steps: u64,
    /// Mean loss over the first tenth of the steps, in nats a target; of a stage that prefers, a pair.
    pub first_loss: f64,
    /// Mean loss over the last tenth.
    pub last_loss: f64,
    /// The course of the loss: means over equal parts of the steps, in order; the last part may be shorter.
    #[serde(default)]
    pub losses: Vec<f64>,
    /// Seconds on the wall, of all runs that worked on it, up to what was written down before one was killed.
    pub wall_seconds: f64,
    /// Seconds of processors, where the system says.
    pub cpu_seconds: Option<f64>,
}

/// How the stages of a recipe learn.
pub(crate) struct Plans {
    pub(crate) pretrain: Plan,
    pub(crate) train: Plan,
    pub(crate) prefer: Option<(Plan, OwnAnswers, Preference)>,
}

impl Plans {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        let (seed, threads) = (recipe.seed, recipe.threads());
        let (pretrain, train) = (&recipe.pretrain, &recipe.train);
        let first = Plan {
            name: "pretrain",
            epochs: pretrain.epochs,
            learning_rate: pretrain.learning_rate,
            batch_tokens: pretrain.batch_tokens,
            kl_weight: 0.0,
            divergence: Divergence::default(),
            temperature: 1.0,
            lora: None,
            hidden: None,
            own: None,
            preference: None,
            seed,
            threads,
            device: train.device,
            activation_checkpointing: train.activation_checkpointing,
        };
        let second = Plan {
            name: "train",
            epochs: train.epochs,
            learning_rate: train.learning_rate,
            batch_tokens: train.batch_tokens,
            kl_weight: train.kl_weight,
            divergence: train.divergence(),
            temperature: train.temperature,
            lora: train.lora.clone(),
            own: train.on_policy.as_ref().map(|part| OwnAnswers {
                share: part.share,
                temperature: part.temperature,
                max_tokens: part.max_tokens as usize,
                alternatives: part.alternatives,
            }),
            ..first.clone()
        };
        let prefer = train.preference.as_ref().map(|part| {
            let how = Preference { beta: part.beta, likelihood: part.likelihood };
            let own = OwnAnswers {
                share: 1.0,
                temperature: part.temperature,
                max_tokens: part.max_tokens as usize,
                alternatives: 0,
            };
            let plan = Plan {
                name: "prefer",
                epochs: part.epochs,
                learning_rate: part.learning_rate,
                batch_tokens: train.batch_tokens,
                own: Some(own.clone()),
                preference: Some(how),
                ..first.clone()
            };
            (plan, own, how)
        });
        Self { pretrain: first, train: second, prefer }
    }

    /// How a student learns that is compared with the one of the recipe: as that one, from the texts of something else.
    pub(crate) fn other(&self, name: &'static str, epochs: u32) -> Plan {
        Plan { name, epochs, kl_weight: 0.0, hidden: None, own: None, ..self.train.clone() }
    }
}

/// Where finished stages and those under way are kept.
pub(crate) struct Workshop<'a> {
    pub(crate) store: &'a Store,
    pub(crate) codec: &'a Codec,
    /// How long a stage may work before it writes down where it is.
    pub(crate) each: Duration,
    pub(crate) progress: &'a dyn Progress,
}

impl Workshop<'_> {
    /// Trains `network` on `set`, or takes the result from the store. `judge` is asked about the student's own answers and
    /// about hidden states, where the plan wants that.
    pub(crate) fn learn(
        &self,
        origin: &Digest,
        network: Network,
        set: &Set,
        plan: &Plan,
        judge: Option<&Judge>,
    ) -> Result<(Network, Stage), DistillError> {
        let judge = judge.filter(|_| plan.own.is_some() || plan.hidden.is_some());
        let judged = judge.map(Judge::digest);
        let key = key(origin, &[set.digest()?, judged.unwrap_or_else(|| Digest::of(b""))], plan)?;
        let batches = || train::epochs(set.members(), plan.epochs, plan.batch_tokens, plan.seed);
        self.stage(
            key,
            network,
            (plan, judge),
            (set.len(), set.cut(), set.too_long),
            batches,
            |trainer, batch: &[&Sequence]| {
                let own = plan.own.as_ref().is_some_and(|own| own.takes(trainer.steps(), plan.seed));
                learnt_from(trainer, (set, batch), plan, self.codec, judge.filter(|_| own))
            },
        )
    }

    /// Trains `network` to prefer the teacher's answers to its own, or takes the result from the store.
    pub(crate) fn prefer(
        &self,
        origin: &Digest,
        network: Network,
        set: &Set,
        plan: &Plan,
        own: &OwnAnswers,
        how: &Preference,
    ) -> Result<(Network, Stage), DistillError> {
        let key = key(origin, &[set.digest()?, Digest::of(b"prefer")], plan)?;
        if let Some(found) = self.found(plan, &key)? {
            return Ok(found);
        }
        self.progress.stage("answering for itself", None);
        let pairs = own.pairs(&network, set.members(), self.codec, plan)?;
        if pairs.is_empty() {
            let why = "the student answers every prompt as its teacher does: there is nothing to prefer";
            return Err(DistillError::Nothing(why.to_owned()));
        }
        let batches = || train::epochs(&pairs, plan.epochs, plan.batch_tokens, plan.seed);
        self.stage(
            key,
            network,
            (plan, None),
            (pairs.len(), set.cut(), set.too_long),
            batches,
            |trainer, batch: &[&Pair]| {
                let step = trainer.prefer(batch, how)?;
                Ok(Did { loss: step.loss, applied: step.applied, own: false })
            },
        )
    }

    fn found(&self, plan: &Plan, key: &Digest) -> Result<Option<(Network, Stage)>, DistillError> {
        let Some((network, stage)) = self.store.find(plan.name, key)? else { return Ok(None) };
        self.progress.note(&format!("{}: taken from the store", plan.name));
        // A run that was killed just after its end left where it was.
        self.store.forget(&self.store.under_way(plan.name, key))?;
        Ok(Some((network, Stage { reused: true, ..stage })))
    }

    /// Goes through `batches` with `step`, from where a killed run left it. A step depends on what the trainer is, on its
    /// number and on its batch alone, so that it does not matter where that was.
    fn stage<'set, M: Member + 'set>(
        &self,
        key: Digest,
        network: Network,
        (plan, judge): (&Plan, Option<&Judge>),
        (examples, cut, too_long): (usize, u64, u64),
        batches: impl FnOnce() -> Vec<Vec<&'set M>>,
        mut step: impl FnMut(&mut Trainer, &[&M]) -> Result<Did, DistillError>,
    ) -> Result<(Network, Stage), DistillError> {
        if let Some(found) = self.found(plan, &key)? {
            return Ok(found);
        }
        let batches = batches();
        let size = |batch: &Vec<&M>| batch.iter().map(|member| member.tokens() as u64).sum::<u64>();
        let total: u64 = batches.iter().map(size).sum();
        self.progress.stage(plan.name, Some(total));
        let steps = batches.len() as u64;
        let mut trainer = trainer(network, plan, steps, judge)?;
        if let Some((card, needs, _)) = trainer.card() {
            self.progress.note(&format!(
                "{}: on {card}, with about {:.2} GB of its memory",
                plan.name,
                needs as f64 / 1e9
            ));
        }
        let path = self.store.under_way(plan.name, &key);
        let mut past = self.go_on(&path, &mut trainer, plan.name, steps)?;
        let (begun, cpu) = (Instant::now(), crate::cost::cpu_seconds());
        let done = usize::try_from(trainer.steps()).unwrap_or(usize::MAX).min(batches.len());
        self.progress.advance(batches[..done].iter().map(size).sum());
        let mut saved = Instant::now();
        let before = (past.wall_seconds, past.cpu_seconds);
        let timed = |past: &Past| Past {
            wall_seconds: before.0 + begun.elapsed().as_secs_f64(),
            cpu_seconds: before.1.zip(crate::cost::cpu_since(cpu)).map(|(past, now)| past + now),
            ..past.clone()
        };
        let (tenth, part) = ((steps / 10).max(1), steps.div_ceil(PARTS).max(1));
        past.losses.resize(steps.div_ceil(part) as usize, 0.0);
        for (number, batch) in batches.iter().enumerate().skip(done) {
            let did = step(&mut trainer, batch)?;
            let number = number as u64;
            past.first += if number < tenth { did.loss } else { 0.0 };
            past.last += if number >= steps.saturating_sub(tenth) { did.loss } else { 0.0 };
            past.losses[(number / part) as usize] += if did.loss.is_finite() { did.loss } else { 0.0 };
            past.skipped += u64::from(!did.applied);
            past.own += u64::from(did.own);
            self.progress.learnt(size(batch), did.loss);
            if saved.elapsed() >= self.each {
                self.write_down(&path, &mut trainer, &timed(&past))?;
                saved = Instant::now();
            }
        }
        let past = timed(&past);
        let mean = |sum: f64| sum / tenth.min(steps.max(1)) as f64;
        let parts = past.losses.iter().enumerate();
        let losses = parts.map(|(number, sum)| sum / part.min(steps - number as u64 * part) as f64).collect();
        let stage = Stage {
            name: plan.name.to_owned(),
            key,
            reused: false,
            examples: examples as u64,
            cut,
            too_long,
            tokens: total,
            steps,
            skipped: past.skipped,
            own_steps: past.own,
            first_loss: mean(past.first),
            last_loss: mean(past.last),
            losses,
            wall_seconds: past.wall_seconds,
            cpu_seconds: past.cpu_seconds,
        };
        let adapter = trainer.adapter()?.cloned();
        let network = trainer.into_network()?;
        self.store.keep(&network, adapter.as_ref(), self.codec, &stage)?;
        self.store.forget(&path)?;
        Ok((network, stage))
    }

    /// Takes up what a killed run wrote down, if it did and if that is whole; else the stage begins anew.
    fn go_on(&self, path: &Path, trainer: &mut Trainer, name: &str, steps: u64) -> Result<Past, DistillError> {
        let anew = Past { cpu_seconds: Some(0.0), ..Past::default() };
        if !path.exists() {
            return Ok(anew);
        }
        let note = match trainer.resume(path) {
            Ok(note) => note,
            Err(error) => {
                self.progress.note(&format!("{name}: begins again, since where it was cannot be read ({error})"));
                return Ok(anew);
            }
        };
        let past = serde_json::from_str(&note).map_err(|error| DistillError::Row {
            path: path.to_owned(),
            line: 1,
            problem: format!("{error}: remove the file to begin the stage anew"),
        })?;
        self.progress.note(&format!("{name}: goes on after step {} of {steps}", trainer.steps()));
        Ok(past)
    }

    /// A disk that takes no checkpoint is no reason to stop: what is lost is time, and only if the run is killed.
    fn write_down(&self, path: &Path, trainer: &mut Trainer, past: &Past) -> Result<(), DistillError> {
        let note = serde_json::to_string(past).map_err(|error| DistillError::Interrupted(error.to_string()))?;
        if let Err(error) = self.store.prepare().and_then(|()| Ok(trainer.save(path, &note)?)) {
            self.progress.note(&format!("where training is could not be written down: {error}"));
        }
        Ok(())
    }
}

/// One step on `batch` of a set; where there is a judge, on what the student itself says to its prompts.
pub(crate) fn learnt_from(
    trainer: &mut Trainer,
    (set, batch): (&Set, &[&Sequence]),
    plan: &Plan,
    codec: &Codec,
    judge: Option<&Judge>,
) -> Result<Did, DistillError> {
    let judged = match (&plan.own, judge) {
        (Some(own), Some(judge)) => own.judged(trainer, batch, codec, judge, plan)?,
        _ => Vec::new(),
    };
    // Where nothing of what it wrote can be judged it learns from the teacher's answers too.
    let own = !judged.is_empty();
    let step =
        if own { trainer.step_towards(&judged, 1.0)? } else { trainer.step(&set.batch(batch.iter().copied())?)? };
    Ok(Did { loss: step.loss, applied: step.applied, own })
}

/// What a step did.
pub(crate) struct Did {
    loss: f64,
    applied: bool,
    /// Did it learn from the student's own answers?
    own: bool,
}

/// What is known of the steps of a stage that are done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Past {
    /// Sum of the losses of the first tenth of all steps.
    first: f64,
    /// The same of the last tenth.
    last: f64,
    /// The same of each part of [`PARTS`].
    losses: Vec<f64>,
    skipped: u64,
    own: u64,
    wall_seconds: f64,
    cpu_seconds: Option<f64>,
}

/// Everything that the result of a stage depends on.
fn key(origin: &Digest, data: &[Digest; 2], plan: &Plan) -> Result<Digest, DistillError> {
    let plan = serde_json::to_string(plan).map_err(|error| DistillError::Interrupted(error.to_string()))?;
    let software = concat!("anbiq ", env!("CARGO_PKG_VERSION"));
    let parts: [&[u8]; 6] = [
        b"anbiq stage v2\0",
        software.as_bytes(),
        origin.as_bytes(),
        data[0].as_bytes(),
        data[1].as_bytes(),
        plan.as_bytes(),
    ];
    Ok(Digest::of_parts(&parts))
}

pub(crate) fn trainer(
    network: Network,
    plan: &Plan,
    steps: u64,
    judge: Option<&Judge>,
) -> Result<Trainer, DistillError> {
    let guided = plan.hidden.as_ref().zip(judge);
    let guide = guided.map(|(how, judge)| judge.guide(&network, how, plan.seed)).transpose()?;
    let settings = train::Config {
        learning_rate: plan.learning_rate,
        warmup_steps: (steps / 10).clamp(1, 100),
        total_steps: steps,
        batch_tokens: plan.batch_tokens,
        kl_weight: plan.kl_weight,
        divergence: plan.divergence,
        temperature: plan.temperature,
        threads: plan.threads,
        device: plan.device,
        activation_checkpointing: plan.activation_checkpointing,
        seed: plan.seed,
        ..train::Config::default()
    };
    let trainer = match &plan.lora {
        None => Trainer::new(network, settings)?,
        Some(shape) => {
            let adapter = Adapter::new(&network, shape.clone(), plan.seed)?;
            Trainer::with_adapter(network, adapter, settings)?
        }
    };
    Ok(match guide {
        None => trainer,
        Some(guide) => trainer.guided(guide)?,
    })
}
