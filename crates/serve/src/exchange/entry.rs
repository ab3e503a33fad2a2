//! What the journal is told of an exchange.

use anbiq_domain::{
    Answer, Draws, Entry, Exchange, Finish, Keeping, Money, Outcome, SealedTexts, Texts, TwinMode, Twinning, Usage,
    commit_bytes,
};
use anbiq_journal::TextsError;

use super::Conductor;
use super::drawn::Drawn;
use crate::admission::Admitted;
use crate::twins::{Lot, Together, TwinPieces};

/// What an entry says of all draws.
#[derive(Default)]
struct Told {
    answers: Vec<Answer>,
    open: Vec<u8>,
    fingerprints: Vec<String>,
    twinning: Option<Twinning>,
}

impl Conductor {
    pub(super) fn entry(
        &self,
        drawn: &Drawn,
        twins: &TwinPieces,
        usage: Usage,
        cost: Money,
        outcome: Outcome,
    ) -> Entry {
        let Admitted { id, terms, price, .. } = &self.admitted;
        let prompt = &self.request.prompt;
        let told = self.told(drawn, twins);
        let mut draws = Draws::commit(&self.gateway.coin, *id, prompt, &told.answers);
        if let Some(vectors) = &drawn.vectors {
            draws.texts.push(commit_bytes(&self.gateway.coin.salt(*id, 0), &vectors.bytes()));
        }
        draws.open = told.open;
        draws.fingerprints = told.fingerprints;
        draws.twinning = told.twinning;
        let answers = told.answers;
        let (texts, sealed) = match self.policy.keeps(draws.twinning.is_some()) {
            Keeping::Nothing => (None, None),
            Keeping::Plain => (Some(Texts { prompt: prompt.clone(), answers }), None),
            Keeping::Sealed => (None, self.seal(&Texts { prompt: prompt.clone(), answers })),
        };
        Entry::Exchange(Box::new(Exchange {
            id: *id,
            at: self.at,
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            account: self.account.clone(),
            key: self.key.clone(),
            model: self.admitted.model.name().to_owned(),
            terms: terms.clone(),
            grant: price.grant.clone(),
            request: self.facts.clone(),
            client: self.client,
            sketch: self.sketch.clone(),
            usage,
            cost,
            outcome,
            draws,
            texts,
            sealed,
        }))
    }

    /// Does the journal keep the texts of draws that are recorded after the answer? Only in the open: what is sealed is
    /// sealed with the exchange, so that of later draws an account under seal has the commitments alone.
    pub(super) fn keeps_later(&self) -> bool {
        self.policy.keeps(true) == Keeping::Plain
    }

    /// All draws as they are known now, in the order of their index.
    fn told(&self, drawn: &Drawn, twins: &TwinPieces) -> Told {
        let mut told = Told { answers: drawn.answers(), ..Told::default() };
        let build = |told: &mut Told, fingerprints: Vec<String>| {
            // Nothing is said where no server says anything.
            told.fingerprints = if fingerprints.iter().all(String::is_empty) { Vec::new() } else { fingerprints };
        };
        let (epoch, stalled) = (self.gateway.epoch, drawn.stalled);
        match &self.admitted.lot {
            Lot::Alone => {}
            Lot::Deferred { .. } => {
                build(&mut told, vec![drawn.fingerprint.clone()]);
                told.twinning = Some(Twinning { epoch, stalled, mode: TwinMode::Deferred, ..Twinning::default() });
            }
            Lot::Together(Together { index, draws, .. }) => {
                let served = usize::from(*index);
                let mut all = vec![Answer::new(String::new(), Finish::Length); usize::from(*draws)];
                let mut fingerprints = vec![String::new(); usize::from(*draws)];
                let mut ended = vec![false; usize::from(*draws)];
                if let (Some(slot), Some(answer)) = (all.get_mut(served), told.answers.pop()) {
                    *slot = answer;
                    fingerprints[served].clone_from(&drawn.fingerprint);
                    ended[served] = drawn.all_ended();
                }
                for twin in &twins.ended {
                    let place = usize::from(twin.index);
                    if let Some(slot) = all.get_mut(place) {
                        *slot = twin.answer.clone();
                        fingerprints[place].clone_from(&twin.fingerprint);
                        ended[place] = true;
                    }
                }
                told.answers = all;
                told.open = (0..*draws).zip(ended).filter(|(_, ended)| !ended).map(|(index, _)| index).collect();
                build(&mut told, fingerprints);
                let cost = twins.cost(&self.admitted.price.list);
                told.twinning = Some(Twinning { epoch, stalled, served: *index, cost, ..Twinning::default() });
            }
        }
        told
    }

    /// The texts under the account's key. Where that cannot be had they are not kept: never in the open, and the
    /// commitments stay.
    fn seal(&self, texts: &Texts) -> Option<SealedTexts> {
        let id = self.admitted.id;
        let keys = self.gateway.texts.as_ref().ok_or(TextsError::Absent);
        let sealed = keys.and_then(|keys| keys.seal(&self.account, id, texts));
        let told =
            |error: &TextsError| tracing::error!(exchange = %id, code = error.code(), %error, "texts were not kept");
        sealed.inspect_err(told).ok()
    }

    /// The length of the prompt of an exchange that was cancelled before the model told it: English has about four
    /// bytes a token, and a guess that is too low is the provider's loss.
    pub(super) fn guess_prompt_tokens(&self) -> u64 {
        self.request.prompt.bytes().div_ceil(4) as u64
    }
}
