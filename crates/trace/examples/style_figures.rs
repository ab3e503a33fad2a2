//! How well the style score tells documented students from documented non-students: `cargo xtask bench trace [DIR]`.
//!
//! Reads `trace/labels.tsv` and `trace/alpaca_eval_dev.jsonl.xz`, or the plain `.jsonl`, below DIR, `$ANBIQ_DATA` or `../shared/data`, and says that
//! it is skipped without them. A suspect's score never saw a model of its family. Intervals are bootstrapped over models as if
//! they were independent; models of one family are not, so the true ones are wider.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anbiq_domain::Seeded;
use anbiq_trace::Strength;
use anbiq_trace::controls::{Part, Role};
use anbiq_trace::style::{self, Answers, Finding};
use serde::Deserialize;

type Failure = Box<dyn Error>;
type Subset = fn(&Labelled) -> bool;

/// The family that the students were taught by.
const ACCUSED: &str = "OpenAI";
const BOOTSTRAPS: usize = 2_000;

fn main() -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let folder = std::env::args_os().nth(1).or_else(|| std::env::var_os("ANBIQ_DATA"));
    let folder = folder.map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from).join("trace");
    if !folder.join("labels.tsv").is_file() {
        writeln!(out, "skipped: `{}` holds no `labels.tsv`; set ANBIQ_DATA", folder.display())?;
        return Ok(());
    }
    let start = Instant::now();
    let answers = read(&folder)?;
    let read = start.elapsed();
    let models = labels(&folder, &answers)?;
    let start = Instant::now();
    let findings = findings(&answers, &models)?;
    let scored = start.elapsed();
    writeln!(out, "{} models with labels", models.len())?;
    writeln!(
        out,
        "read in {:.1} s, all suspects compared in {:.1} s, on one core",
        read.as_secs_f64(),
        scored.as_secs_f64()
    )?;
    figures(&mut out, &answers, &models, &findings)?;
    verdicts(&mut out, &models, &findings)?;
    Ok(())
}

/// A model and what is documented of it.
struct Labelled {
    name: String,
    base: String,
    family: String,
    /// As the labels say: O, S, H, T, ?...
    teacher: char,
    one_teacher: bool,
}

impl Labelled {
    fn student(&self) -> bool {
        self.teacher == 'O'
    }

    fn innocent(&self) -> bool {
        matches!(self.teacher, 'S' | 'H')
    }

    fn part(&self, role: Role) -> Part {
        let base = (self.base != "-" && self.base != "?").then(|| self.base.clone());
        Part { model: self.name.clone(), role, family: self.family.clone(), base }
    }
}

#[derive(Deserialize)]
struct Line {
    model: String,
    outputs: Vec<Option<String>>,
}

fn read(folder: &Path) -> Result<Answers, Failure> {
    let mut answers = Answers::default();
    let plain = folder.join("alpaca_eval_dev.jsonl");
    let (mut child, lines): (_, Box<dyn BufRead>) = if plain.is_file() {
        (None, Box::new(BufReader::new(File::open(plain)?)))
    } else {
        let mut command = Command::new("xz");
        command.arg("-dc").arg(folder.join("alpaca_eval_dev.jsonl.xz")).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot run `xz`: {error}"))?;
        let pipe = child.stdout.take().ok_or("no pipe")?;
        (Some(child), Box::new(BufReader::new(pipe)))
    };
    for line in lines.lines() {
        let line: Line = serde_json::from_str(&line?)?;
        for (prompt, output) in line.outputs.iter().enumerate() {
            answers.add(&line.model, &prompt.to_string(), output.as_deref().unwrap_or_default())?;
        }
    }
    match child.as_mut().map(std::process::Child::wait).transpose()? {
        Some(status) if !status.success() => Err("`xz` failed".into()),
        _ => Ok(answers),
    }
}

fn labels(folder: &Path, answers: &Answers) -> Result<Vec<Labelled>, Failure> {
    let text = std::fs::read_to_string(folder.join("labels.tsv"))?;
    let labelled = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, base, teacher, detail, _, strength, ..] = fields[..] else { return None };
        let family = family(base, teacher, detail);
        let (name, base) = (name.to_owned(), base.to_owned());
        Some(Labelled { name, base, family, teacher: teacher.chars().next()?, one_teacher: strength == "A" })
    };
    let all = text.lines().skip(1).filter_map(labelled);
    Ok(all.filter(|model| answers.models().contains(&model.name)).collect())
}

/// Models that are not independent: of one vendor, or taught by one set. It is made of the labels' other columns.
fn family(base: &str, teacher: &str, detail: &str) -> String {
    let first = detail.split([' ', ':', ',']).next().unwrap_or_default();
    match teacher {
        "T" => ACCUSED.to_owned(),
        // A vendor's chat model and what is made from it.
        "S" if base != "-" => base.trim_end_matches("-chat").to_owned(),
        _ => first.to_owned(),
    }
}

/// What is found of each model that is not a teacher, by its name. Documented innocents are the controls of all others.
fn findings(answers: &Answers, models: &[Labelled]) -> Result<HashMap<String, Finding>, Failure> {
    let role = |model: &Labelled, suspect: &Labelled| match model {
        model if model.name == suspect.name => Some(Role::Suspect),
        model if model.teacher == 'T' => Some(Role::Teacher),
        model if model.innocent() => Some(Role::Control),
        _ => None,
    };
    let mut findings = HashMap::new();
    for suspect in models.iter().filter(|model| model.teacher != 'T') {
        let parts: Vec<Part> = models.iter().filter_map(|model| Some(model.part(role(model, suspect)?))).collect();
        let report = style::compare(answers, &parts, ACCUSED)?;
        findings.extend(report.findings.into_iter().map(|finding| (finding.suspect.clone(), finding)));
    }
    Ok(findings)
}

fn figures(
    out: &mut impl std::io::Write,
    answers: &Answers,
    models: &[Labelled],
    findings: &HashMap<String, Finding>,
) -> Result<(), Failure> {
    let ours = |model: &Labelled| findings.get(&model.name).map_or(f64::NAN, |finding| finding.among.score);
    let paired = |model: &Labelled| paired(answers, models, model);
    let pooled = pooled(answers, models);
    let scores: [(&str, Vec<f64>); 3] = [
        ("style score, nearest teacher", models.iter().map(ours).collect()),
        ("baseline: prompt-paired likeness of words", models.iter().map(paired).collect()),
        ("baseline: pooled profile, class means", pooled),
    ];
    let subsets: [(&str, Subset); 4] = [
        ("all", |_| true),
        ("students of one documented teacher", |model| model.innocent() || model.one_teacher),
        ("base LLaMA-1", |model| model.base == "LLaMA-1"),
        ("bases LLaMA-1 and Llama-2", |model| model.base.to_lowercase().starts_with("llama")),
    ];
    writeln!(
        out,
        "\nAUC of students against non-students, no model of the suspect's family used, 95 % interval over models"
    )?;
    for (name, among) in subsets {
        writeln!(out, "{name}:")?;
        for (what, scores) in &scores {
            let of = |wanted: Subset| {
                let chosen = models.iter().zip(scores).filter(|(model, _)| among(model) && wanted(model));
                chosen.map(|(_, score)| *score).collect::<Vec<f64>>()
            };
            let (students, others) = (of(Labelled::student), of(Labelled::innocent));
            let (low, high) = interval(&students, &others);
            let auc = auc(&students, &others);
            writeln!(
                out,
                "  {what:<42} {auc:.3} ({low:.3} to {high:.3}), {} against {}",
                students.len(),
                others.len()
            )?;
        }
    }
    Ok(())
}

/// Prompt-paired likeness with the nearest teacher, less the mean with non-students of other families.
fn paired(answers: &Answers, models: &[Labelled], one: &Labelled) -> f64 {
    let likeness = |other: &Labelled| answers.paired_likeness(&one.name, &other.name).unwrap_or(f64::NAN);
    let apart = |other: &&Labelled| other.family != one.family;
    let teachers = models.iter().filter(|other| other.teacher == 'T').filter(apart).map(likeness);
    let controls: Vec<f64> = models.iter().filter(|other| other.innocent()).filter(apart).map(likeness).collect();
    teachers.fold(0.0, f64::max) - controls.iter().sum::<f64>() / controls.len().max(1) as f64
}

/// A classifier of students and non-students by their pooled profile: the difference of the class means, every family weighing
/// the same, fitted without the model's own family.
fn pooled(answers: &Answers, models: &[Labelled]) -> Vec<f64> {
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    let profiles = answers.profiles(&names);
    let of_class = |one: &Labelled, student: bool| {
        let mut families = BTreeMap::<&str, Vec<usize>>::new();
        for (place, model) in models.iter().enumerate() {
            let wanted = if student { model.student() } else { model.innocent() };
            if wanted && model.family != one.family {
                families.entry(&model.family).or_default().push(place);
            }
        }
        let mut mean = vec![0.0; profiles[0].len()];
        for places in families.values() {
            for place in places {
                let weight = 1.0 / (places.len() * families.len()) as f64;
                mean.iter_mut().zip(&profiles[*place]).for_each(|(sum, value)| *sum += weight * value);
            }
        }
        mean
    };
    let score = |(place, one): (usize, &Labelled)| {
        let (students, others) = (of_class(one, true), of_class(one, false));
        let side = |i: usize| (profiles[place][i] - f64::midpoint(students[i], others[i])) * (students[i] - others[i]);
        (0..students.len()).map(side).sum()
    };
    models.iter().enumerate().map(score).collect()
}

/// The share of pairs in which the student's score is the higher one; ties count half.
fn auc(students: &[f64], others: &[f64]) -> f64 {
    let win = |student: f64, other: f64| {
        if student > other {
            1.0
        } else if student < other {
            0.0
        } else {
            0.5
        }
    };
    let wins: f64 = students.iter().flat_map(|student| others.iter().map(move |other| win(*student, *other))).sum();
    wins / (students.len() * others.len()) as f64
}

fn interval(students: &[f64], others: &[f64]) -> (f64, f64) {
    let mut random = Seeded::new(1);
    let mut again =
        |scores: &[f64]| -> Vec<f64> { scores.iter().map(|_| scores[random.below(scores.len())]).collect() };
    let mut values: Vec<f64> = (0..BOOTSTRAPS).map(|_| auc(&again(students), &again(others))).collect();
    values.sort_by(f64::total_cmp);
    (values[BOOTSTRAPS / 40], values[BOOTSTRAPS - 1 - BOOTSTRAPS / 40])
}

fn verdicts(
    out: &mut impl std::io::Write,
    models: &[Labelled],
    findings: &HashMap<String, Finding>,
) -> Result<(), Failure> {
    let moderate = |finding: &Finding| finding.verdict.strength >= Strength::Moderate;
    // What would be said if models of one family were taken as independent.
    let by_models = |finding: &Finding| finding.among.p_models <= 0.05 && nearest(finding) == ACCUSED;
    let above_all = |finding: &Finding| finding.among.p_models <= finding.among.floor_models;
    let kinds: [(&str, Subset); 3] = [
        ("students", Labelled::student),
        ("non-students", Labelled::innocent),
        ("undocumented", |model| model.teacher == '?'),
    ];
    writeln!(
        out,
        "\n{:<14} {:>6} {:>9} {:>26} {:>19} {:>15}",
        "", "models", "moderate", "moderate by models alone", "above all controls", "nearest accused"
    )?;
    for (name, kind) in kinds {
        let of: Vec<&Finding> =
            models.iter().filter(|model| kind(model)).filter_map(|model| findings.get(&model.name)).collect();
        let count = |is: &dyn Fn(&Finding) -> bool| of.iter().filter(|finding| is(finding)).count();
        let near = count(&|finding: &Finding| nearest(finding) == ACCUSED);
        writeln!(
            out,
            "{name:<14} {:>6} {:>9} {:>26} {:>19} {near:>15}",
            of.len(),
            count(&moderate),
            count(&by_models),
            count(&above_all)
        )?;
    }
    let one: Vec<&Finding> = models
        .iter()
        .filter(|model| model.student() && model.one_teacher)
        .filter_map(|model| findings.get(&model.name))
        .collect();
    let right = one.iter().filter(|finding| nearest(finding) == ACCUSED).count();
    writeln!(out, "nearest family of students of one documented teacher: {right} of {} right", one.len())?;
    for model in models.iter().filter(|model| model.innocent()) {
        if let Some(finding) = findings.get(&model.name).filter(|finding| above_all(finding)) {
            writeln!(
                out,
                "above all its controls though no student: {} (p {:.3} over {} controls)",
                model.name,
                finding.among.p_models,
                finding.among.controls.len()
            )?;
        }
    }
    Ok(())
}

fn nearest(finding: &Finding) -> &str {
    finding.closeness.first().map_or("", |closeness| &closeness.family)
}
