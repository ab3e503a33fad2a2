use anbiq_domain::{AccountId, Digest, OperatorId, TwinMode};
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::items::{Collected, by_account};
use crate::slices::parts;
use crate::{Alternative, By, Statistic, Strength, TraceError};

/// How to trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is tested of each pair.
    pub statistic: Statistic,
    /// Fewest pairs for all traffic, and for an operator to be tested by itself. 20 pairs that all point one way give
    /// p = 2^-20, just below 10^-6.
    pub minimum_items: usize,
    /// Pairs that a model scores at a time.
    pub batch: usize,
    /// Attempts at a batch before a failing model ends the trace.
    pub attempts: u32,
    /// Longest wait for a batch, in milliseconds.
    pub batch_timeout_ms: u64,
    /// How many exact tests are made side by side, this one among them: every p-value answers for all of them.
    pub tests: usize,
    /// By what pairs are parted, besides by operators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<By>,
    /// The models that stand behind a server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<AtServer>,
    /// At how many places of a draw a model behind a server is probed, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub places: Option<usize>,
    /// What the pairs may exclude; without it a trace cannot acquit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternative: Option<Alternative>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            statistic: Statistic::Residual,
            minimum_items: 20,
            batch: 16,
            attempts: 3,
            batch_timeout_ms: 300_000,
            tests: 1,
            by: Vec::new(),
            servers: Vec::new(),
            places: None,
            alternative: None,
        }
    }
}

/// A model that is asked over the network, where nobody sees which one answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtServer {
    /// Its name in the trace.
    pub model: String,
    /// What was asked before anything else; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

/// A comparison of the answers of a server with those of what it is said to be: see [`crate::endpoint`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// SHA-256 of the file of its report.
    pub report: Digest,
    /// What it was compared with.
    pub reference: String,
    /// That the two answer alike; large where no difference was seen.
    pub p_value: f64,
}

impl AtServer {
    /// The server of `model`, which was compared as the report of that digest says.
    ///
    /// # Errors
    ///
    /// The report is about another model, or it shows strongly that the server is not what it is said to be: then nothing that it answers
    /// counts.
    pub fn compared(model: &str, report: Digest, endpoint: &Endpoint) -> Result<Self, TraceError> {
        let refused = |why: String| Err(TraceError::Server { model: model.to_owned(), why });
        if endpoint.endpoint != model {
            return refused(format!("the report compares `{}` with `{}`", endpoint.endpoint, endpoint.reference));
        }
        if endpoint.differ >= Strength::Strong {
            let (reference, p_value) = (&endpoint.reference, endpoint.p_value);
            return refused(format!("it was seen not to answer as `{reference}` does (p {p_value:.1e})"));
        }
        let (reference, p_value) = (endpoint.reference.clone(), endpoint.p_value);
        Ok(Self { model: model.to_owned(), compared: Some(Compared { report, reference, p_value }) })
    }

    /// What is known of it, for a report.
    pub(crate) fn in_words(&self) -> String {
        match &self.compared {
            Some(Compared { reference, p_value, .. }) => format!(
                "That what answered as {} at its server is that model: beside {reference} no difference was seen (p {p_value:.3}), \
                 which does not show that there is none.",
                self.model
            ),
            None => format!(
                "That what answered as {} at its server is that model: nobody asked (`anbiq trace endpoint`).",
                self.model
            ),
        }
    }
}

/// The accounts of one operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorAccounts {
    /// Which operator.
    pub operator: OperatorId,
    /// Its accounts.
    pub accounts: Vec<AccountId>,
}

/// What was fixed before the first score was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// The model in question.
    pub suspect: String,
    /// The model whose answers were served.
    pub teacher: String,
    /// Models known to be independent.
    pub controls: Vec<String>,
    /// When the twins were drawn, and so what the test rests on.
    #[serde(default, skip_serializing_if = "is_together")]
    pub mode: TwinMode,
    /// What is tested of each pair.
    pub statistic: Statistic,
    /// The same in words.
    pub statistic_in_words: String,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// What is random under it.
    pub random: String,
    /// How the p-values and e-values are made, and how many hypotheses are answered for.
    pub tests: String,
    /// Fewest pairs for a test.
    pub minimum_items: usize,
    /// How many such tests the same plan makes, this one among them: adjusted p-values are multiplied by it, and e-values
    /// that somebody acts on before the end are divided by it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub tests_side_by_side: usize,
    /// What the pairs may exclude.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternative: Option<Alternative>,
    /// The operators that are tested, if they have enough pairs, besides all traffic.
    pub operators: Vec<OperatorAccounts>,
    /// The models that are asked over the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<AtServer>,
    /// The parts of all traffic that are tested, if they have enough pairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<String>,
    /// How many pairs were taken.
    pub pairs: usize,
    /// SHA-256 over the ids of the pairs' exchanges, 16 bytes each, in the journal's order.
    pub pairs_digest: Digest,
}

const fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one(count: &usize) -> bool {
    *count == 1
}

const NULL_HYPOTHESIS: &str = "The suspect's training is independent of the gateway's secret coin: of each pair, the \
    served answer and its unserved twin were exchangeable to whoever trained the suspect. For an operator: the same, for \
    the coins of its accounts' exchanges; for a version of the teacher or a period: for those of its exchanges.";

const RANDOM: &str = "Only the coins: one for each exchange, drawn under a key that the journal committed to before. The \
    texts, the suspect, the teacher and the controls are taken as given, so nothing is assumed of their style, size, \
    data or likeness. The test itself draws no random number.";

const NULL_HYPOTHESIS_DEFERRED: &str = "The suspect's training is independent of which of two draws was served: of each pair, \
    the served answer and its twin, which was drawn later, were exchangeable to whoever trained the suspect. For an operator: \
    the same, for its accounts' exchanges; for a version of the teacher or a period: for its exchanges.";

const RANDOM_DEFERRED: &str = "The teacher's draws. No coin chose the served one: its twin was drawn later by the same request, so \
    the p-value rests on the assumption that the teacher gave the same distribution of answers then as before. Pairs whose \
    builds of the model are known to differ are left out. A change that the server does not name would look like evidence.";

const TESTS: &str = "One-sided Wilcoxon signed-rank test with the exact distribution given the magnitudes (above about 3,000 \
    pairs an upper bound where the exact one is too costly); Holm's adjustment over all traffic and every operator, \
    version and period with enough pairs; the verdict rests on the adjusted p-value. Beside it an e-process that bets on each sign in the \
    journal's order and stays valid if one looks before the end. Cancelled exchanges count as the largest differences against the suspicion.";

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_together(mode: &TwinMode) -> bool {
    matches!(mode, TwinMode::Together)
}

impl Protocol {
    /// What a trace of `collected` by `config` would fix, before any model is asked.
    ///
    /// # Errors
    ///
    /// An account belongs to two operators.
    pub fn fix(
        collected: &Collected,
        suspect: &str,
        teacher: &str,
        controls: Vec<String>,
        config: &Config,
    ) -> Result<Self, TraceError> {
        by_account(&collected.operators)?;
        let ids: Vec<&[u8]> = collected.items.iter().map(|item| item.exchange.as_bytes().as_slice()).collect();
        let (null_hypothesis, random) = match collected.mode {
            TwinMode::Together => (NULL_HYPOTHESIS, RANDOM),
            TwinMode::Deferred => (NULL_HYPOTHESIS_DEFERRED, RANDOM_DEFERRED),
        };
        Ok(Self {
            mode: collected.mode,
            suspect: suspect.to_owned(),
            teacher: teacher.to_owned(),
            controls,
            statistic: config.statistic,
            statistic_in_words: config.statistic.in_words().to_owned(),
            null_hypothesis: null_hypothesis.to_owned(),
            random: random.to_owned(),
            tests: TESTS.to_owned(),
            minimum_items: config.minimum_items,
            tests_side_by_side: config.tests.max(1),
            alternative: config.alternative.clone(),
            operators: collected.operators.clone(),
            servers: config.servers.clone(),
            slices: parts(&collected.items),
            pairs: collected.items.len(),
            pairs_digest: Digest::of_parts(&ids),
        })
    }
}
