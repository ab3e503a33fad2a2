//! The draws of an exchange that are not served: paid, waited for, or put off.

use std::sync::Arc;

use anbiq_domain::{Entry, Money, TwinDraw, TwinMode, Twinning, Twins};
use anbiq_model::Request;

use super::Conductor;
use super::drawn::Drawn;
use crate::twins::{self, Drawing, Job, Lot, Together, Twin, TwinPieces};

impl Conductor {
    /// The exchange is answered and recorded: its other draws are paid, waited for, or put off.
    pub(super) fn see_to_twins(&mut self, drawn: &mut Drawn, ended: &TwinPieces) {
        match std::mem::replace(&mut self.admitted.lot, Lot::Alone) {
            Lot::Alone => {}
            Lot::Deferred { draws } => self.put_off(draws),
            Lot::Together(together) => {
                let spent = self.count(ended);
                for _ in 0..ended.failed {
                    self.gateway.metrics.twin_refused(TwinMode::Together, twins::reason::FAILED);
                }
                match drawn.others.take().filter(Drawing::goes_on) {
                    None => together.hold.spend(spent),
                    Some(others) => drop(tokio::spawn(self.late(drawn.stalled, together, others, spent))),
                }
            }
        }
    }

    /// Waits for the draws that are slower than what was served, and records them. What it needs of the exchange goes with
    /// it.
    fn late(
        &self,
        stalled: bool,
        together: Together,
        mut others: Drawing,
        spent: Money,
    ) -> impl Future<Output = ()> + Send + 'static {
        let gateway = Arc::clone(&self.gateway);
        let (exchange, account) = (self.admitted.id, self.account.clone());
        let (model, route) = (self.admitted.model.name().to_owned(), self.facts.route);
        let (list, keep) = (self.admitted.price.list, self.keeps_later());
        gateway.metrics.twins_late();
        async move {
            let Together { index, draws, hold, place } = together;
            let pieces = others.rest().await;
            let (cost, tokens) = (pieces.cost(&list), pieces.tokens);
            hold.spend(spent + cost);
            gateway.metrics.twins_drawn(TwinMode::Together, route, &model, &pieces.measured(&list));
            for _ in 0..pieces.failed {
                gateway.metrics.twin_refused(TwinMode::Together, twins::reason::FAILED);
            }
            if pieces.ended.is_empty() {
                return;
            }
            let commit =
                |twin: Twin| TwinDraw::commit(&gateway.coin, exchange, twin.index, twin.fingerprint, twin.answer, keep);
            let entry = Entry::TwinsDrawn(Box::new(Twins {
                exchange,
                at: gateway.clock.now(),
                account,
                model,
                total: draws,
                twinning: Twinning { epoch: gateway.epoch, served: index, stalled, cost, ..Twinning::default() },
                draws: pieces.ended.into_iter().map(commit).collect(),
                tokens,
            }));
            if let Err(error) = gateway.record(&entry).await {
                tracing::error!(%exchange, code = error.code(), %error, "slower draws could not be journalled");
            }
            drop(place);
        }
    }

    /// Lets the exchange wait for deferred twins.
    fn put_off(&self, draws: u8) {
        let mut request = Request { logprobs: None, ..self.request.clone() };
        request.sampling.seed = None;
        let job = Job {
            exchange: self.admitted.id,
            account: self.account.clone(),
            model: self.admitted.model.name().to_owned(),
            route: self.facts.route,
            request,
            draws,
            keep: self.keeps_later(),
            since: self.gateway.clock.now(),
            tries: 0,
        };
        if !self.gateway.deferral.push(job) {
            self.gateway.metrics.twin_refused(TwinMode::Deferred, twins::reason::QUEUE);
        }
    }

    /// Nobody was served in full, so the other draws are of no use; what they cost so far is paid.
    pub(super) fn pay(&mut self, given_up: &TwinPieces) {
        if let Lot::Together(together) = std::mem::replace(&mut self.admitted.lot, Lot::Alone) {
            together.hold.spend(self.count(given_up));
        }
    }

    /// Counts draws that were not served; gives what they cost the provider.
    fn count(&self, twins: &TwinPieces) -> Money {
        let drawn = twins.measured(&self.admitted.price.list);
        let model = self.admitted.model.name();
        self.gateway.metrics.twins_drawn(TwinMode::Together, self.facts.route, model, &drawn);
        drawn.cost
    }
}
