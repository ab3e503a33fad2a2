use std::time::Duration;

use anbiq_model::{Fault, Model, ModelError, ScoreRequest};

use crate::{Config, TraceError, TwinItem};

/// Longest pause before another attempt.
const LONGEST_PAUSE_MS: u64 = 30_000;

/// What a model says of the two draws of a pair, in the order of drawing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PairScore {
    /// Log-probability of the first draw less that of the second, in nats.
    pub(crate) gap: f64,
    /// Length of the first draw less that of the second, in the model's tokens.
    pub(crate) length: f64,
}

/// The scores of the complete items under all models: `scores[model][item]`, `None` where the model could not score one of
/// the two draws.
///
/// Models see the draws in their order of drawing and nothing that tells which was served, so not even a suspect that
/// answers over a network can act on it.
pub(crate) async fn all(
    items: &[TwinItem],
    models: &[&dyn Model],
    config: &Config,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Vec<Vec<Option<PairScore>>>, TraceError> {
    models.iter().try_for_each(|model| check_scores(*model))?;
    let items: Vec<&TwinItem> = items.iter().filter(|item| item.is_complete()).collect();
    let total = (items.len() * models.len()) as u64;
    let mut done = 0;
    let mut scores = Vec::with_capacity(models.len());
    for model in models {
        let scorer = Scorer { model: *model, config };
        let mut pairs = Vec::with_capacity(items.len());
        for batch in items.chunks(config.batch.max(1)) {
            pairs.extend(scorer.batch(batch).await?);
            done += batch.len() as u64;
            progress(done, total);
        }
        scores.push(pairs);
    }
    Ok(scores)
}

/// The log-probabilities of the answers of `requests`, asked for in batches.
pub(crate) async fn totals(
    model: &dyn Model,
    requests: &[ScoreRequest],
    config: &Config,
) -> Result<Vec<f64>, TraceError> {
    check_scores(model)?;
    let scorer = Scorer { model, config };
    let mut totals = Vec::with_capacity(requests.len());
    for batch in requests.chunks(2 * config.batch.max(1)) {
        totals.extend(scorer.attempt(batch).await?.into_iter().map(|(total, _)| total));
    }
    Ok(totals)
}

fn check_scores(model: &dyn Model) -> Result<(), TraceError> {
    match model.abilities().scoring {
        true => Ok(()),
        false => Err(TraceError::ScoringUnsupported { model: model.name().to_owned() }),
    }
}

struct Scorer<'model> {
    model: &'model dyn Model,
    config: &'model Config,
}

impl Scorer<'_> {
    async fn batch(&self, items: &[&TwinItem]) -> Result<Vec<Option<PairScore>>, TraceError> {
        let requests: Vec<ScoreRequest> = items.iter().flat_map(|item| requests_of(item)).collect();
        match self.pairs(&requests).await {
            Ok(pairs) => Ok(pairs),
            // One text may be too long for the model; find out which, and leave out its pair.
            Err(TraceError::Model { source, .. }) if source.fault == Fault::Request => self.one_by_one(items).await,
            Err(error) => Err(error),
        }
    }

    async fn one_by_one(&self, items: &[&TwinItem]) -> Result<Vec<Option<PairScore>>, TraceError> {
        let mut pairs = Vec::with_capacity(items.len());
        for item in items {
            match self.pairs(&requests_of(item)).await {
                Ok(scored) => pairs.extend(scored),
                Err(TraceError::Model { source, .. }) if source.fault == Fault::Request => {
                    tracing::debug!(exchange = %item.exchange, model = self.model.name(), code = source.code, "pair left out");
                    pairs.push(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(pairs)
    }

    /// Of requests that come in pairs.
    async fn pairs(&self, requests: &[ScoreRequest]) -> Result<Vec<Option<PairScore>>, TraceError> {
        let totals = self.attempt(requests).await?;
        Ok(totals.chunks_exact(2).map(|pair| pair_score(pair[0], pair[1])).collect())
    }

    /// The log-probability and the length of each answer.
    async fn attempt(&self, requests: &[ScoreRequest]) -> Result<Vec<(f64, f64)>, TraceError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let longest = Duration::from_millis(self.config.batch_timeout_ms);
            let error = match tokio::time::timeout(longest, self.model.score(requests)).await {
                Ok(Ok(scored)) if scored.len() == requests.len() => {
                    return Ok(scored.iter().map(|scored| (scored.total(), scored.logprobs.len() as f64)).collect());
                }
                Ok(Ok(scored)) => {
                    let (given, asked) = (scored.len(), requests.len());
                    return Err(TraceError::ScoreCount { model: self.model.name().to_owned(), given, asked });
                }
                Ok(Err(error)) => error,
                Err(_) => ModelError::new(Fault::Model, "score_timeout", "no scores came in time"),
            };
            if !error.retryable() || tried >= self.config.attempts {
                return Err(TraceError::Model { model: self.model.name().to_owned(), source: error });
            }
            let pause = error.retry_after_ms.unwrap_or(250 << tried.min(6)).min(LONGEST_PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

fn requests_of(item: &TwinItem) -> [ScoreRequest; 2] {
    item.draws.clone().map(|answer| ScoreRequest { prompt: item.prompt.clone(), answer })
}

/// `None` where one of the two is not finite: the pair is dropped whichever of them was served.
fn pair_score(first: (f64, f64), second: (f64, f64)) -> Option<PairScore> {
    let score = PairScore { gap: first.0 - second.0, length: first.1 - second.1 };
    (first.0.is_finite() && second.0.is_finite()).then_some(score)
}
