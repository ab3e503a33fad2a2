//! A protocol that is fixed before the first query.
//!
//! A [`Plan`] says which models, pairs and answers are tested, how, against which null hypotheses, and when it ends. Whoever
//! traces writes it, signs it and hands its digest to somebody else *before* any model is asked; [`crate::run_planned`]
//! refuses whatever is not as the plan says. Otherwise one could try statistics, pairs and suspects until one of them looks
//! like evidence. All tests of a plan are run and reported, whatever they show.

use anbiq_domain::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::controls::Part;
use crate::items::Collected;
use crate::power::{self, Needed, Power};
use crate::report::{Mismatch, compare, json};
use crate::style::StyleReport;
use crate::verdict::ESTABLISHED;
use crate::{Config, LeftOut, Protocol, TraceError};

/// The version of a plan's form.
pub const FORMAT: u32 = 1;

/// The kind of document that a plan is signed as.
pub const KIND: &str = "application/vnd.anbiq.trace-plan+json";

/// What the software that writes and follows plans calls itself.
pub const SOFTWARE: &str = concat!("anbiq ", env!("CARGO_PKG_VERSION"));

/// When a trace by a plan ends, and what it does with chance.
pub const STOPPING_RULE: &str = "Every planned test is made once, on all planned pairs or answers, and reported whatever it shows. \
    There is no earlier end and no second sample. The e-process of a twin test may be looked at on the way without loss.";

/// Where the numbers of a trace could come from but the coins of the journal.
pub const SEEDS: &str =
    "None: no test of this plan draws a random number, so whoever repeats it gets the same numbers.";

/// What a trace will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this form: 1.
    pub format: u32,
    /// Name and version of the software that has to follow it.
    pub software: String,
    /// When it was written, by the clock of whoever wrote it: a signature does not prove it.
    pub made_at: Timestamp,
    /// When it ends.
    pub stopping_rule: String,
    /// Where random numbers come from.
    pub seeds: String,
    /// The journal of the twin tests, as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalState>,
    /// The models of the twin tests: suspect, teacher, controls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<PlannedModel>,
    /// The twin tests, one for each mode in which twins were drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub twins: Vec<TwinsPlan>,
    /// The comparison of styles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<StylePlan>,
    /// The effect that is looked for, and how many pairs it needs; it binds nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Needed>,
}

/// A journal up to some entry. A journal that has grown since still has this beginning; one that was changed has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalState {
    /// Where it is; may be elsewhere when the plan is run.
    pub place: String,
    /// Its id.
    pub id: String,
    /// The key that its checkpoints are signed with.
    pub key: String,
    /// The place of the first entry that was still there.
    pub first: u64,
    /// How many entries it had, those that were deleted among them.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

/// What a model is in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelRole {
    /// Its origin is in question.
    Suspect,
    /// Its answers were served.
    Teacher,
    /// Known to be independent.
    Control,
}

/// One model and how to know it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedModel {
    /// What it is in the trace.
    pub role: ModelRole,
    /// Its name in reports.
    pub name: String,
    /// A folder or file, which may be elsewhere when the plan is run, or the base URL of a server, which may not.
    pub place: String,
    /// The files that it is made of. A model behind a URL has none: that it is the same model later is not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PlannedFile>,
    /// What a model behind a URL is asked as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_as: Option<String>,
    /// The environment variable that holds the key of its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// The folder whose chat template puts conversations in form for its server, and SHA-256 of that and of what ends a turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PlannedFile>,
}

/// A file and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedFile {
    /// Its name: within the folder of a model, or as it was given.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

/// One twin test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwinsPlan {
    /// Hypotheses, statistic, operators and pairs.
    pub protocol: Protocol,
    /// How models are asked.
    pub settings: Config,
    /// Twinned exchanges that are left out, and why.
    pub left_out: LeftOut,
    /// What so many pairs can show.
    pub power: Power,
}

/// One comparison of styles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StylePlan {
    /// The files of answers.
    pub answers: Vec<PlannedFile>,
    /// Who is who.
    pub parts: Vec<Part>,
    /// The family whose answers the suspects are asked about.
    pub accused: String,
    /// What the p-values are about.
    pub null_hypothesis: String,
    /// What is random under it.
    pub random: String,
    /// The score in words.
    pub statistic_in_words: String,
    /// How the p-values are made.
    pub tests: String,
}

/// Which plan fixed the protocol of a report, and who signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// SHA-256 of the plan's canonical JSON.
    pub plan: Digest,
    /// The public key that signed it.
    pub signer: String,
    /// The signature (Ed25519, DSSE), in base64.
    pub signature: String,
    /// When it was written, as it says.
    pub made_at: Timestamp,
    /// How often the plan was begun before at this place, as far as the record beside it says.
    pub begun_before: u32,
}

impl TwinsPlan {
    /// The twin test of `collected` under models of these names, without asking any of them.
    ///
    /// # Errors
    ///
    /// There are too few pairs, or the journal does not keep their texts; an account belongs to two operators.
    pub fn of(
        collected: &Collected,
        suspect: &str,
        teacher: &str,
        controls: &[String],
        settings: &Config,
    ) -> Result<Self, TraceError> {
        collected.check_enough(settings.minimum_items)?;
        let protocol = Protocol::fix(collected, suspect, teacher, controls.to_vec(), settings)?;
        let pairs = |group: &crate::OperatorAccounts| {
            collected.items.iter().filter(|item| item.operator.as_ref() == Some(&group.operator)).count()
        };
        let enough = collected.operators.iter().filter(|group| pairs(group) >= settings.minimum_items).count();
        let own = |slice: &String| collected.items.iter().filter(|item| item.slices.contains(slice)).count();
        let slices = protocol.slices.iter().filter(|slice| own(slice) >= settings.minimum_items).count();
        let hypotheses = settings.tests.max(1) * (1 + enough + slices);
        let power = power::of(collected.items.len(), ESTABLISHED, hypotheses);
        Ok(Self { protocol, settings: settings.clone(), left_out: collected.left_out, power })
    }

    /// Is what is there what was planned?
    ///
    /// # Errors
    ///
    /// As [`TwinsPlan::of`], or the first thing that is not.
    pub fn check(
        &self,
        collected: &Collected,
        suspect: &str,
        teacher: &str,
        controls: &[String],
    ) -> Result<(), TraceError> {
        same("twins", self, &Self::of(collected, suspect, teacher, controls, &self.settings)?)
    }
}

impl StylePlan {
    /// The comparison of the answers in `answers` by `parts`, in the words of this version.
    pub fn of(answers: Vec<PlannedFile>, parts: Vec<Part>, accused: &str) -> Self {
        let words = StyleReport::of(accused, 0, &parts, 0, Vec::new());
        Self {
            answers,
            parts,
            accused: accused.to_owned(),
            null_hypothesis: words.null_hypothesis,
            random: words.random,
            statistic_in_words: words.statistic_in_words,
            tests: words.tests,
        }
    }
}

impl Plan {
    /// May this version of the software follow it?
    ///
    /// # Errors
    ///
    /// It was written for another one.
    pub fn check_version(&self) -> Result<(), TraceError> {
        same("format", &self.format, &FORMAT)?;
        same("software", &self.software, &SOFTWARE)?;
        same("stopping_rule", &self.stopping_rule, &STOPPING_RULE)?;
        same("seeds", &self.seeds, &SEEDS)
    }

    /// The planned model of that role, the first of several.
    pub fn model(&self, role: ModelRole) -> Option<&PlannedModel> {
        self.models.iter().find(|model| model.role == role)
    }
}

/// Is `found` what was `planned`? An error names the first member that is not; `at` says of what it is.
///
/// # Errors
///
/// It is something else.
pub fn same(at: &str, planned: &impl Serialize, found: &impl Serialize) -> Result<(), TraceError> {
    compare(at, &json(planned), &json(found)).map_err(TraceError::NotAsPlanned)
}

/// As [`same`], for what is found to be missing or different without a value to show.
pub fn differs(at: impl Into<String>, planned: &dyn ToString, found: &dyn ToString) -> TraceError {
    let (recorded, recomputed) = (planned.to_string(), found.to_string());
    TraceError::NotAsPlanned(Mismatch { at: at.into(), recorded, recomputed })
}

/// What a report says of its plan.
pub(crate) fn in_words(plan: Option<&Fixed>) -> String {
    let Some(fixed) = plan else {
        return "Not fixed beforehand: no signed plan shows that suspect, pairs and statistic were chosen before results were seen."
            .to_owned();
    };
    let before = match fixed.begun_before {
        0 => String::new(),
        1 => " It had been begun once before.".to_owned(),
        times => format!(" It had been begun {times} times before."),
    };
    format!("Fixed by plan {} of {}, signed by {}.{before}", fixed.plan, fixed.made_at, fixed.signer)
}
