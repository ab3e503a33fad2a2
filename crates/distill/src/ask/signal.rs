//! What the teacher tells: the best that its server can give of what the recipe wants, and what is lost by it.

use std::path::{Path, PathBuf};

use anbiq_domain::{Digest, Usage};
use anbiq_model::{Abilities, Fault, ModelError};
use anbiq_upstream::probe::MOST_TOKENS;
use anbiq_upstream::{Client, Probe, Scores};
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::purse::{Held, Purse};
use super::send::{PURPOSE, from_client};
use super::{Endpoint, Limits};
use crate::DistillError;
use crate::data::read_json;
use crate::recipe::{AskPart, Logprobs};
use crate::store::write_json;

/// Most alternatives a token that are looked for where the recipe wants the best.
const BEST: u8 = 20;

/// What a teacher can tell, and what of it a capture uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// How much is known of what the teacher would say.
    pub tier: Tier,
    /// Alternatives a token that are asked for; `None` where no log-probabilities are.
    pub logprobs: Option<u8>,
    /// What its server can do.
    pub can: Probe,
    /// What is lost by what it cannot do, in words.
    pub lost: Vec<String>,
}

/// How much is known of what a teacher would say. Each holds those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Its answers.
    Text,
    /// The probability of each token that it wrote.
    Chosen,
    /// The likeliest tokens at each place of its answers.
    Top,
    /// The same of any text.
    Given,
}

/// What was found once, so that it is not paid for at every start.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    url: String,
    model: String,
    can: Probe,
}

impl Signal {
    /// The best of `can` for one who wants `wanted`.
    pub(crate) fn choose(wanted: Option<Logprobs>, can: Probe) -> Self {
        let most = wanted.map(|wanted| wanted.most().unwrap_or(BEST));
        let logprobs = most.zip(can.logprobs).map(|(most, given)| most.min(given));
        let tier = match (can.logprobs, can.scoring) {
            (None, _) => Tier::Text,
            (Some(0), None) => Tier::Chosen,
            (Some(_), None) => Tier::Top,
            (Some(_), Some(_)) => Tier::Given,
        };
        let mut lost = Vec::new();
        let mut lose = |is: bool, what: String| lost.extend(is.then_some(what));
        match (most, can.logprobs) {
            (_, None) => lose(true, "no log-probabilities: a student learns from the texts alone".to_owned()),
            (_, Some(0)) => {
                lose(true, "log-probabilities without alternatives: a student learns from the texts alone".to_owned());
            }
            (Some(most), Some(given)) if given < most => {
                lose(true, format!("{given} alternatives a token, not {most}: all others count as one class"));
            }
            _ => {}
        }
        let told = can.logprobs.is_some_and(|given| given > 0);
        lose(
            told && !can.token_bytes,
            "tokens without their bytes: where one is a part of a character, its answer teaches by its text".to_owned(),
        );
        lose(
            can.scoring.is_none(),
            "no log-probabilities of given text: this teacher cannot judge a student's own answers".to_owned(),
        );
        lose(can.seeds == Some(false), "seeds are not kept: another capture would hold other answers".to_owned());
        lose(!can.usage, "tokens are not counted: each answer counts as the most that it may cost".to_owned());
        lose(
            !can.replays,
            "`Idempotency-Key` is not kept: an answer that is cut off may be charged twice, and counts so".to_owned(),
        );
        Self { tier, logprobs, can, lost }
    }
}

/// Looks for what the teacher can do, if it is not known from before; pays for it out of `purse`.
pub(crate) async fn find(
    source: &Path,
    teacher: &str,
    part: &AskPart,
    limits: Limits,
    endpoint: &Endpoint,
    disk: &mut Disk,
    purse: &mut Purse,
) -> Result<Probe, DistillError> {
    let (client, model) = match endpoint {
        Endpoint::Model(model) => return Ok(in_process(model.abilities())),
        Endpoint::Http { client, model } => (client, model),
    };
    let path = probe_path(source);
    if let (Some(url), true) = (&part.url, path.exists()) {
        let found: Found = read_json(&path)?;
        if found.url == *url && found.model == *model {
            return Ok(found.can);
        }
    }
    let can = ask(teacher, part, limits, client, model, disk, purse).await?;
    if let Some(url) = &part.url {
        write_json(&path, &Found { url: url.clone(), model: model.clone(), can: can.clone() })?;
    }
    Ok(can)
}

fn probe_path(source: &Path) -> PathBuf {
    source.with_added_extension("probe")
}

/// Forgets what was found before.
pub(crate) fn forget(source: &Path) -> Result<(), DistillError> {
    let path = probe_path(source);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DistillError::write(&path)(error)),
        _ => Ok(()),
    }
}

async fn ask(
    teacher: &str,
    part: &AskPart,
    limits: Limits,
    client: &Client,
    model: &str,
    disk: &mut Disk,
    purse: &mut Purse,
) -> Result<Probe, DistillError> {
    let price = |(prompt_tokens, completion_tokens)| {
        limits.prices.cost(Usage { prompt_tokens, completion_tokens, ..Usage::default() }, limits.class_of(false))
    };
    let (most, tokens) = (price(MOST_TOKENS), MOST_TOKENS.1);
    match purse.hold(most, tokens) {
        Held::Yes => {}
        // Nothing else is under way yet.
        Held::NotNow => return Err(poor("the ceiling does not hold a question")),
        Held::Never(why) => return Err(poor(&why)),
    }
    // Every probe is another one: what was given again from the last would say nothing of today.
    let name = Digest::of_parts(&[b"anbiq probe v1\0", teacher.as_bytes(), &purse.counted().to_le_bytes()]);
    let safe = disk.hold(std::iter::once((name, most, 1))).await?;
    if safe.await.is_err() {
        disk.failure().await?;
    }
    let purpose = [(PURPOSE.0.to_owned(), PURPOSE.1.to_owned())];
    let wanted = part.logprobs.and_then(Logprobs::most).unwrap_or(BEST);
    let found = anbiq_upstream::probe::probe(client, model, &purpose, &name.to_string(), wanted.max(BEST)).await;
    match found {
        Ok(can) => {
            let cost = price((can.prompt_tokens, can.completion_tokens)).min(most);
            purse.pay_extra(most, tokens, cost, can.completion_tokens.min(tokens));
            disk.paid(&name, cost).await?;
            Ok(can)
        }
        Err(error) => Err(DistillError::Teacher(from_client(error).error)),
    }
}

/// There is not enough money to ask what the teacher can do.
fn poor(why: &str) -> DistillError {
    DistillError::Teacher(ModelError::new(Fault::Setup, "ceiling_too_low", why))
}

/// What a model in this process can do is known.
fn in_process(abilities: Abilities) -> Probe {
    Probe {
        logprobs: abilities.logprobs,
        token_bytes: true,
        scoring: abilities.scoring.then_some(Scores::Echo),
        several: abilities.several,
        seeds: Some(true),
        usage: true,
        usage_in_streams: true,
        replays: true,
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Best;

    #[test]
    fn the_best_signal_is_chosen_and_what_is_lost_is_said() {
        let full = in_process(Abilities { logprobs: Some(20), scoring: true, several: true, ..Abilities::default() });
        let best = Some(Logprobs::Best(Best::Best));
        let signal = Signal::choose(best, full.clone());
        assert_eq!((signal.tier, signal.logprobs, signal.lost.len()), (Tier::Given, Some(20), 0));
        assert_eq!(Signal::choose(Some(Logprobs::Top(3)), full.clone()).logprobs, Some(3));
        assert_eq!(Signal::choose(None, full.clone()).logprobs, None);

        let five = Signal::choose(best, Probe { logprobs: Some(5), scoring: None, ..full.clone() });
        assert_eq!((five.tier, five.logprobs), (Tier::Top, Some(5)));
        assert!(five.lost[0].starts_with("5 alternatives a token, not 20"), "{:?}", five.lost);
        assert!(five.lost[1].starts_with("no log-probabilities of given text"), "{:?}", five.lost);

        let text = Signal::choose(best, Probe { requests: 9, ..Probe::default() });
        assert_eq!((text.tier, text.logprobs, text.lost.len()), (Tier::Text, None, 4));
        let chosen = Signal::choose(best, Probe { logprobs: Some(0), scoring: None, ..full });
        assert_eq!((chosen.tier, chosen.logprobs), (Tier::Chosen, Some(0)));
    }
}
