//! Everything between the capture and the tasks: curating, training, saving and measuring.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anbiq_domain::{Clock, Digest, Money, Usage};
use anbiq_lm::lora::Adapter;
use anbiq_lm::train::HiddenStates;
use anbiq_lm::{Codec, Config, Dtype, Network};

use crate::DistillError;
use crate::ask::{self, Asking};
use crate::capture::{Capture, Sample};
use crate::cost::Cost;
use crate::course::{Plan, Plans, Stage, Workshop};
use crate::curate::{self, Curated};
use crate::evaluate::{self, Column, Measuring, Teacher};
use crate::own::Judge;
use crate::preflight::{self, render_preflight};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::report::{self, Captured, Report};
use crate::store::{self, Store};
use crate::student::Student;
use crate::terms::{self, Clearance, Facts, Papers};
use crate::train::{self, CorpusReader, How, Long, Loss, Mapping, Set};

/// Samples that a run shows while it goes on; more of them are in the student's folder.
const SHOWN: usize = 2;

/// The student and what is still to be measured.
pub(crate) struct Worked {
    pub(crate) report: Report,
    pub(crate) measuring: Measuring,
    /// Models that are to answer tasks.
    pub(crate) folders: Vec<(&'static str, PathBuf)>,
}

/// Everything between the capture and the tasks; blocks for as long as it takes.
pub(crate) fn work(
    recipe: &Recipe,
    papers: &Papers,
    asking: Option<Asking>,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<Worked, DistillError> {
    let Student { network, codec, origin } = Student::begin(recipe)?;
    let parameters = network.parameters();
    let captured = recipe.capture.as_ref().map(|part| Capture::read(&part.source, &codec)).transpose()?;
    let clearance = match (&recipe.teacher, &captured) {
        (Some(teacher), Some(captured)) => {
            let facts = Facts {
                name: &recipe.student.name,
                parameters,
                tokens: captured.usage.completion_tokens,
                now: clock.now(),
            };
            terms::judge(&teacher.name, papers, facts)?
        }
        _ => Clearance::no_teacher(),
    };
    let store = Store::new(&recipe.store);
    let each = Duration::from_secs(recipe.checkpoint_seconds);
    let workshop = Workshop { store: &store, codec: &codec, each, progress };
    let mut course = Course { recipe, plans: Plans::of(recipe), workshop, network, origin, stages: Vec::new() };

    let mut corpus = recipe.corpus.as_ref().map(|part| CorpusReader::open(&part.path)).transpose()?;
    if let Some(reader) = &mut corpus {
        course = course.pretrain(reader)?;
    }
    let mut measuring = Measuring {
        max_tokens: recipe.evaluate.max_tokens,
        threads: recipe.threads(),
        seed: recipe.seed,
        ..Measuring::default()
    };
    let (mut facts, mut others, mut in_batches, mut preflight) = (None, Vec::new(), Usage::default(), None);
    if captured.is_some() {
        others.extend(course.base()?);
    }
    if let (Some(part), Some(captured)) = (&recipe.capture, captured) {
        let Capture { samples, usage, batched, rows, uncounted } = captured;
        in_batches = batched;
        let Lesson { samples, held_out, set, mapping, curated } = Lesson::of(recipe, &codec, samples)?;
        measuring.teacher =
            train::answers(&held_out, &codec, How { long: Long::Cut, spans: false, store: &recipe.store })?.0;
        // A large teacher should not take memory while the student learns, unless it judges it.
        let teacher = load_teacher(recipe, &codec)?;
        course.plans.train.hidden = matched(recipe, &course.network, &set, teacher.as_ref())?;
        let looked = preflight::look(recipe, &codec, &samples, &set, teacher.as_ref())?;
        progress.note(render_preflight(&looked, SHOWN).trim_end());
        preflight::keep(&recipe.out, &looked)?;
        preflight = Some(looked);
        if let (Some(how), Some(teacher)) = (&course.plans.train.hidden, &teacher) {
            progress.note(&said_of(how, &course.network.config, &teacher.network.config));
        }
        others.extend(course.others(corpus.as_mut(), &set)?);
        let judge = teacher.filter(|_| course.plans.train.own.is_some() || course.plans.train.hidden.is_some());
        course = course.learn(&set, judge.as_ref())?;
        let file = file_digest(&part.source)?;
        let held_out = held_out.len() as u64;
        facts = Some(Captured { file, rows, usage, uncounted, asking, curated, held_out, mapping });
    }
    let Course { network, stages, .. } = course;
    save(&recipe.out, &network, &codec)?;

    progress.stage("measuring", None);
    if let Some(path) = &recipe.evaluate.held_out {
        measuring.held_out = train::documents(path, &codec, recipe.evaluate.most_held_out)?;
    }
    if let Some(path) = &recipe.evaluate.tasks {
        measuring.tasks = evaluate::tasks(path, recipe.evaluate.most_tasks)?;
    }
    let teacher_folder = recipe.teacher.as_ref().and_then(|teacher| teacher.folder.as_deref());
    let teacher = load_teacher(recipe, &codec)?;
    if teacher.is_none() && teacher_folder.is_some() {
        progress.note("the teacher has another tokenizer: it is not compared place by place");
    }
    let (mut evaluation, mut folders) = (Vec::new(), Vec::new());
    if let (Some(teacher), Some(folder)) = (&teacher, teacher_folder) {
        evaluation.push(measuring.losses("teacher", &teacher.network, None)?);
        folders.push(("teacher", folder.to_owned()));
    }
    if let (None, Some(folder)) = (&teacher, teacher_folder) {
        // It still answers tasks.
        let parameters = Network::load(folder)?.parameters();
        evaluation.push(Column { model: "teacher".to_owned(), parameters, ..Column::default() });
        folders.push(("teacher", folder.to_owned()));
    }
    for (model, network, folder) in others {
        evaluation.push(measuring.losses(model, &network, teacher.as_ref())?);
        folders.push((model, folder));
    }
    evaluation.push(measuring.losses("student", &network, teacher.as_ref())?);
    folders.push(("student", recipe.out.clone()));

    let report = Report {
        format: 1,
        software: concat!("anbiq ", env!("CARGO_PKG_VERSION")).to_owned(),
        student: recipe.student.name.clone(),
        folder: recipe.out.clone(),
        parameters,
        context: codec.context as u64,
        recipe: recipe.digest(),
        seed: recipe.seed,
        teacher: recipe.teacher.as_ref().map(|teacher| teacher.name.clone()),
        cost: cost(recipe, papers, &clearance, facts.as_ref(), in_batches, &stages)?,
        clearance,
        capture: facts,
        preflight,
        stages,
        evaluation,
        gaps: Vec::new(),
    };
    Ok(Worked { report, measuring, folders })
}

/// What a student learns from: the answers of a capture after curation, and those that are kept to measure on.
pub(crate) struct Lesson {
    pub(crate) samples: Vec<Sample>,
    held_out: Vec<Sample>,
    pub(crate) set: Set,
    mapping: Mapping,
    curated: Curated,
}

impl Lesson {
    pub(crate) fn of(recipe: &Recipe, codec: &Codec, samples: Vec<Sample>) -> Result<Self, DistillError> {
        let (samples, curated) = curate::curate(samples, &recipe.curate, &recipe.evaluate)?;
        let (samples, held_out) = curate::hold_out(samples, recipe.evaluate.capture_share);
        let long = if recipe.curate.keep_truncated { Long::Cut } else { Long::LeaveOut };
        let (set, mapping) =
            train::answers(&samples, codec, How { long, spans: recipe.train.spans, store: &recipe.store })?;
        need(&set, "the capture holds no answer to train on that fits the student's context")?;
        Ok(Self { samples, held_out, set, mapping, curated })
    }
}

/// A model that is compared with the student: its name, its network and its folder.
type Other = (&'static str, Network, PathBuf);

/// A student on its way through the stages.
struct Course<'a> {
    recipe: &'a Recipe,
    plans: Plans,
    workshop: Workshop<'a>,
    network: Network,
    /// The digest of everything that it has become by.
    origin: Digest,
    stages: Vec<Stage>,
}

impl Course<'_> {
    fn pretrain(self, reader: &mut CorpusReader<'_>) -> Result<Self, DistillError> {
        let Self { recipe, plans, workshop, network, origin, mut stages } = self;
        if plans.pretrain.epochs == 0 {
            return Ok(Self { recipe, plans, workshop, network, origin, stages });
        }
        let tokens = recipe.corpus.as_ref().and_then(|part| part.tokens);
        let set = reader.take(workshop.codec, tokens, Loss::Everywhere, false)?;
        need(&set, "the corpus holds no document with an answer that fits the student's context")?;
        let (network, stage) = workshop.learn(&origin, network, &set, &plans.pretrain, None)?;
        let origin = stage.key;
        stages.push(stage);
        Ok(Self { recipe, plans, workshop, network, origin, stages })
    }

    /// The student before it saw an answer, where that is more than random numbers and wanted.
    fn base(&self) -> Result<Option<Other>, DistillError> {
        let part = &self.recipe.student;
        if !self.recipe.evaluate.base {
            return Ok(None);
        }
        let folder = match (self.stages.last(), &part.init) {
            (Some(stage), _) => self.workshop.store.folder("pretrain", &stage.key),
            (None, Some(_)) if part.layers.is_some() => {
                // What was cut stands nowhere yet.
                let folder = self.workshop.store.folder("cut", &self.origin);
                save(&folder, &self.network, self.workshop.codec)?;
                folder
            }
            (None, Some(init)) => init.clone(),
            (None, None) => return Ok(None),
        };
        Ok(Some(("base", self.network.clone(), folder)))
    }

    /// Students that begin as this one does and learn from something else than `set`.
    fn others(&mut self, corpus: Option<&mut CorpusReader<'_>>, set: &Set) -> Result<Vec<Other>, DistillError> {
        let (recipe, mut others) = (self.recipe, Vec::new());
        if let Some(reader) = corpus.filter(|_| recipe.evaluate.scratch) {
            // The same start, the same steps and as many tokens; only what they say differs.
            let other = reader.take(self.workshop.codec, Some(set.tokens), Loss::OnAnswers, true)?;
            others.push(self.other("scratch", &other, self.plans.train.epochs)?);
        }
        if let Some(path) = &recipe.evaluate.labels {
            let labels = train::documents(path, self.workshop.codec, usize::MAX)?;
            need(&labels, "the labels hold no answer that fits the student's context")?;
            let epochs = recipe.evaluate.label_epochs.unwrap_or(self.plans.train.epochs);
            others.push(self.other("labels", &labels, epochs)?);
        }
        Ok(others)
    }

    fn other(&mut self, name: &'static str, set: &Set, epochs: u32) -> Result<Other, DistillError> {
        let plan = self.plans.other(name, epochs);
        let (learnt, stage) = self.workshop.learn(&self.origin, self.network.clone(), set, &plan, None)?;
        let folder = self.workshop.store.folder(name, &stage.key);
        self.stages.push(stage);
        Ok((name, learnt, folder))
    }

    /// Learns from the answers of `set`.
    fn learn(self, set: &Set, teacher: Option<&Teacher>) -> Result<Self, DistillError> {
        let Self { recipe, plans, workshop, network, origin, mut stages } = self;
        let judge = judge_for(&plans.train, teacher)?;
        let (mut network, stage) = workshop.learn(&origin, network, set, &plans.train, judge.as_ref())?;
        if let (Some(_), Some(base)) = (&plans.train.lora, &recipe.student.init) {
            let kept = workshop.store.folder("train", &stage.key).join(store::ADAPTER);
            let adapter = Adapter::load(&kept, &network.config)?;
            adapter.save(&recipe.out.join(store::ADAPTER), &base.to_string_lossy())?;
        }
        let origin = stage.key;
        stages.push(stage);
        if let Some((plan, own, how)) = &plans.prefer {
            let (learnt, stage) = workshop.prefer(&origin, network, set, plan, own, how)?;
            network = learnt;
            stages.push(stage);
        }
        Ok(Self { recipe, plans, workshop, network, origin, stages })
    }
}

/// What the student took: the teacher's answers by its list, and the training.
fn cost(
    recipe: &Recipe,
    papers: &Papers,
    clearance: &Clearance,
    facts: Option<&Captured>,
    in_batches: Usage,
    stages: &[Stage],
) -> Result<Cost, DistillError> {
    let usage = facts.map(|facts| facts.usage).unwrap_or_default();
    let prices = recipe.teacher.as_ref().and_then(|teacher| teacher.prices);
    let prices = prices.filter(|_| facts.is_some()).map(|list| clearance.prices(papers, list));
    let (extra, saved) = match &recipe.capture {
        Some(part) => ask::beside_rows(&part.source)?,
        None => (Money::ZERO, Money::ZERO),
    };
    Ok(Cost {
        usage,
        price: prices.map(|(class, prices)| {
            let limits = ask::Limits { prices, class, tokens: None, seed: 0 };
            let alone = Usage {
                prompt_tokens: usage.prompt_tokens - in_batches.prompt_tokens,
                completion_tokens: usage.completion_tokens - in_batches.completion_tokens,
                ..Usage::default()
            };
            let rows = prices.cost(alone, limits.class_of(false)) + prices.cost(in_batches, limits.class_of(true));
            rows + extra - saved
        }),
        training_tokens: stages.iter().filter(|stage| report::is_of_student(stage)).map(|stage| stage.tokens).sum(),
        stage_cpu_seconds: stages.iter().filter_map(|stage| stage.cpu_seconds).sum(),
        ..Cost::default()
    })
}

/// The teacher's weights, where they are at hand and have the student's tokens.
pub(crate) fn load_teacher(recipe: &Recipe, codec: &Codec) -> Result<Option<Teacher>, DistillError> {
    let folder = recipe.teacher.as_ref().and_then(|teacher| teacher.folder.as_deref());
    Ok(folder.map(|folder| Teacher::load(folder, codec)).transpose()?.flatten())
}

/// The teacher as one who judges what the student wrote, or is looked at while it reads, where `plan` wants that.
pub(crate) fn judge_for(plan: &Plan, teacher: Option<&Teacher>) -> Result<Option<Judge>, DistillError> {
    (plan.own.is_some() || plan.hidden.is_some()).then(|| judge(teacher)).transpose()
}

/// The teacher as one who judges what the student wrote.
fn judge(teacher: Option<&Teacher>) -> Result<Judge, DistillError> {
    let teacher = teacher.ok_or_else(|| {
        let why =
            "`[train.on_policy]`: the teacher's tokens are not the student's, so it cannot judge them place by place";
        DistillError::Nothing(why.to_owned())
    })?;
    Ok(Judge::new(&teacher.network))
}

/// Which hidden states are matched.
///
/// # Errors
///
/// The recipe wants it, and this teacher's cannot be: its tokens are others, it has no such layers, or is too short.
pub(crate) fn matched(
    recipe: &Recipe,
    student: &Network,
    set: &Set,
    teacher: Option<&Teacher>,
) -> Result<Option<HiddenStates>, DistillError> {
    let Some(part) = &recipe.train.hidden_states else { return Ok(None) };
    let refused = |problem: String, hint: &str| {
        Err(DistillError::Unready { code: "hidden_states_unmatched", problem, hint: hint.to_owned() })
    };
    let Some(teacher) = teacher else {
        return refused(
            "`[train.hidden_states]`: the teacher's tokens are not the student's, so no state of one belongs to one of the other".to_owned(),
            "begin the student with the teacher's tokenizer, or leave `[train.hidden_states]` out",
        );
    };
    let (own, theirs) = (&student.config, &teacher.network.config);
    let layers = part.layers.clone().unwrap_or_else(|| HiddenStates::evenly(own.layers, theirs.layers));
    let how = HiddenStates { weight: part.weight, measure: part.measure, layers };
    if let Err(error) = how.check(own, theirs) {
        return refused(format!("`[train.hidden_states]`: {error}"), "layers are counted from 1, the student's first");
    }
    let longest = set.members().iter().map(|member| member.tokens.len()).max().unwrap_or(0);
    if longest > theirs.max_positions + 1 {
        return refused(
            format!(
                "`[train.hidden_states]`: the longest sample has {longest} tokens, and the teacher reads {} at most",
                theirs.max_positions
            ),
            "lower `context` in `[student]`",
        );
    }
    Ok(Some(how))
}

/// What of it is worth saying.
fn said_of(how: &HiddenStates, student: &Config, teacher: &Config) -> String {
    let pairs: Vec<String> = how.layers.iter().map(|(own, theirs)| format!("{own} with {theirs}")).collect();
    let through = match (student.hidden_size, teacher.hidden_size) {
        (own, theirs) if own == theirs => String::new(),
        (own, theirs) => format!(", through a learned projection from {own} to {theirs}"),
    };
    format!("hidden states: the student's layers are matched with the teacher's, {}{through}", pairs.join(", "))
}

fn need(set: &Set, otherwise: &str) -> Result<(), DistillError> {
    if set.is_empty() { Err(DistillError::Nothing(otherwise.to_owned())) } else { Ok(()) }
}

fn save(folder: &Path, network: &Network, codec: &Codec) -> Result<(), DistillError> {
    network.save(folder, Dtype::F32)?;
    Ok(codec.save(folder)?)
}

pub(crate) fn file_digest(path: &Path) -> Result<Digest, DistillError> {
    use sha2::{Digest as _, Sha256};
    let mut file = fs::File::open(path).map_err(DistillError::read(path))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        let read = std::io::Read::read(&mut file, &mut block).map_err(DistillError::read(path))?;
        if read == 0 {
            return Ok(Digest::from_bytes(hasher.finalize().into()));
        }
        hasher.update(&block[..read]);
    }
}
