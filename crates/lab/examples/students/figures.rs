//! What was found, kept line by line, and the tables made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anbiq_statistics::proportion::clopper_pearson;
use anbiq_trace::{Strength, power};
use serde::{Deserialize, Serialize};

use super::Failure;

/// An innocent student under the twin test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Innocent {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) epochs: u32,
    pub(super) p: f64,
    pub(super) strength: Strength,
}

/// A student of served answers under the twin test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Suspect {
    pub(super) id: String,
    pub(super) share: f64,
    pub(super) epochs: u32,
    pub(super) by_logprobs: bool,
    /// Is this the test by which it comes near to the teacher's distributions? Otherwise by log-probabilities.
    #[serde(default)]
    pub(super) nearness: bool,
    /// Is it the test by how it goes on?
    #[serde(default)]
    pub(super) probe: bool,
    pub(super) pairs: usize,
    pub(super) win_rate: f64,
    pub(super) p: f64,
    pub(super) strength: Strength,
    pub(super) needed_50: Option<usize>,
    pub(super) needed_90: Option<usize>,
}

/// A student of marked text, or of none, under a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Marked {
    pub(super) id: String,
    pub(super) scheme: String,
    pub(super) share: f64,
    pub(super) epochs: u32,
    /// Tokens of the marked answers that it learnt from.
    #[serde(default)]
    pub(super) tokens: u64,
    /// Decimal logarithms of p: what it says, what it finds likeliest, how it leans.
    pub(super) closed: f64,
    pub(super) likeliest: f64,
    pub(super) lean: f64,
}

/// Students without marked text under many keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) scheme: String,
    /// Is every p an upper bound, so that small ones may be rarer than by chance?
    #[serde(default)]
    pub(super) bound: bool,
    pub(super) p: Vec<f64>,
}

/// A student whom the pairs may acquit of training like that of calibration students.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Acquitted {
    pub(super) id: String,
    /// What it learnt from.
    pub(super) group: String,
    /// The weakest preference of a calibration student.
    pub(super) weakest: f64,
    /// Upper bound of its own over all traffic, 99.9 %.
    pub(super) upper: f64,
    pub(super) p_pairs: f64,
    pub(super) strength: Strength,
}

/// Weights of two networks beside each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Weighed {
    pub(super) id: String,
    pub(super) group: String,
    /// Decimal logarithms of the adjusted p-values' bounds, of one comparison each.
    pub(super) log10_p: Vec<f64>,
    /// Units that gate and up projections name alike, and how many were looked at.
    pub(super) agree: u64,
    pub(super) of: u64,
}

/// What a mark costs the teacher.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cost {
    pub(super) id: String,
    pub(super) scheme: String,
    pub(super) nats_a_token: f64,
    pub(super) right: f64,
    pub(super) log10_p: f64,
    pub(super) tokens: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Innocent(Innocent),
    Suspect(Suspect),
    Marked(Marked),
    Keys(Keys),
    Cost(Cost),
    Acquitted(Acquitted),
    Weighed(Weighed),
}

macro_rules! lines {
    ($($kind:ident),*) => { $(impl From<$kind> for Line { fn from(of: $kind) -> Self { Self::$kind(of) } })* };
}
lines!(Innocent, Suspect, Marked, Keys, Cost, Acquitted, Weighed);

impl Line {
    fn id(&self) -> &str {
        match self {
            Self::Innocent(of) => &of.id,
            Self::Suspect(of) => &of.id,
            Self::Marked(of) => &of.id,
            Self::Keys(of) => &of.id,
            Self::Cost(of) => &of.id,
            Self::Acquitted(of) => &of.id,
            Self::Weighed(of) => &of.id,
        }
    }
}

#[derive(Debug)]
pub(super) struct Results {
    file: File,
    known: BTreeSet<String>,
    lines: Vec<Line>,
}

impl Results {
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("results.jsonl");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // A line that was cut off is made again.
        let lines: Vec<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let known = lines.iter().map(|line| line.id().to_owned()).collect();
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            writeln!(file)?;
        }
        Ok(Self { file, known, lines })
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.known.contains(id)
    }

    pub(super) fn add(&mut self, line: impl Into<Line>) -> Result<(), Failure> {
        let line = line.into();
        writeln!(self.file, "{}", serde_json::to_string(&line)?)?;
        self.known.insert(line.id().to_owned());
        self.lines.push(line);
        Ok(())
    }
}

pub(super) fn print(results: &Results, pairs: usize) {
    let lines = || results.lines.iter();
    innocent(
        &lines().filter_map(|line| if let Line::Innocent(of) = line { Some(of) } else { None }).collect::<Vec<_>>(),
    );
    suspects(
        &lines().filter_map(|line| if let Line::Suspect(of) = line { Some(of) } else { None }).collect::<Vec<_>>(),
        pairs,
    );
    acquitted(
        &lines().filter_map(|line| if let Line::Acquitted(of) = line { Some(of) } else { None }).collect::<Vec<_>>(),
    );
    for of in lines().filter_map(|line| if let Line::Weighed(of) = line { Some(of) } else { None }) {
        let share =
            |level: f64| of.log10_p.iter().filter(|p| **p <= level.log10()).count() as f64 / of.log10_p.len() as f64;
        println!(
            "weights, {}: {} comparisons, least log10 p {:.1}, largest {:.1}, p <= 0.05 in {:.3}, <= 0.01 in {:.3}; gate and up agree in {} of {}",
            of.group,
            of.log10_p.len(),
            of.log10_p.iter().copied().fold(0.0, f64::min),
            of.log10_p.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            share(0.05),
            share(0.01),
            of.agree,
            of.of,
        );
    }
    for keys in lines().filter_map(|line| if let Line::Keys(of) = line { Some(of) } else { None }) {
        if keys.bound {
            let share = |level: f64| keys.p.iter().filter(|p| **p <= level).count() as f64 / keys.p.len() as f64;
            let shares: Vec<String> =
                [0.01, 0.05, 0.2, 0.5].iter().map(|level| format!("{:.3} at most {level}", share(*level))).collect();
            println!("{}, {}: {} keys, shares of bounds: {}", keys.id, keys.scheme, keys.p.len(), shares.join(", "));
            continue;
        }
        let (distance, p) = kolmogorov(&keys.p);
        println!("{}, {}: {} keys, Kolmogorov's distance {distance:.3}, p {p:.3}", keys.id, keys.scheme, keys.p.len());
    }
    costs(&lines().filter_map(|line| if let Line::Cost(of) = line { Some(of) } else { None }).collect::<Vec<_>>());
    marked(&lines().filter_map(|line| if let Line::Marked(of) = line { Some(of) } else { None }).collect::<Vec<_>>());
}

fn innocent(all: &[&Innocent]) {
    if all.is_empty() {
        return;
    }
    let p_values: Vec<f64> = all.iter().map(|of| of.p).collect();
    let (distance, p) = kolmogorov(&p_values);
    println!("\n{} innocent students: Kolmogorov's distance from uniform {distance:.3}, p {p:.3}", all.len());
    for strength in [Strength::Moderate, Strength::Strong, Strength::Established] {
        let count = all.iter().filter(|of| of.strength >= strength).count() as u64;
        let interval = clopper_pearson(count, all.len() as u64, 0.95);
        println!(
            "  {:<12} or more: {count} ({:.1} to {:.1} %)",
            strength.in_words(),
            100.0 * interval.low,
            100.0 * interval.high
        );
    }
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    all.iter().for_each(|of| kinds.entry(&of.kind).or_default().push(of.p));
    for (kind, p_values) in kinds {
        let (distance, p) = kolmogorov(&p_values);
        println!("  learnt from {kind}: {}, distance {distance:.3}, p {p:.3}", p_values.len());
    }
}

fn suspects(all: &[&Suspect], pairs: usize) {
    if all.is_empty() {
        return;
    }
    println!(
        "\nstudents of served answers, {pairs} pairs; pairs needed for p < 1e-6 (`n` by the win rate where there are too few)"
    );
    println!(
        "{:<8} {:>6} {:<8} {:<10} {:>8} {:>9} {:>9} {:>8} {:>8}  shown",
        "served", "epochs", "learns", "by", "students", "win rate", "log10 p", "50 %", "90 %"
    );
    let mut groups: BTreeMap<(bool, i64, u32, &str), Vec<&Suspect>> = BTreeMap::new();
    for of in all {
        groups.entry((of.by_logprobs, -(of.share * 1000.0) as i64, of.epochs, way(of))).or_default().push(of);
    }
    for of in groups.values() {
        let first = of[0];
        let rates: f64 = of.iter().map(|of| of.win_rate).sum::<f64>() / of.len() as f64;
        let log10_p = median(of.iter().map(|of| of.p.log10()).collect());
        let needed = |found: fn(&Suspect) -> Option<usize>, power: f64| {
            let mut numbers: Vec<usize> = of.iter().map(|of| found(of).unwrap_or(usize::MAX)).collect();
            numbers.sort_unstable();
            match numbers[numbers.len() / 2] {
                usize::MAX if rates > 0.5 => format!("n{}", power::pairs_needed(rates, 1e-6, power)),
                usize::MAX => "-".to_owned(),
                number => number.to_string(),
            }
        };
        let shown = of.iter().filter(|of| of.strength == Strength::Established).count();
        println!(
            "{:<8} {:>6} {:<8} {:<10} {:>8} {rates:>9.3} {log10_p:>9.1} {:>8} {:>8}  {shown} of {} established",
            format!("{} %", 100.0 * first.share),
            first.epochs,
            if first.by_logprobs { "logprobs" } else { "texts" },
            way(first),
            of.len(),
            needed(|of| of.needed_50, 0.5),
            needed(|of| of.needed_90, 0.9),
            of.len(),
        );
    }
}

/// By what a suspect was tested.
const fn way(of: &Suspect) -> &'static str {
    match (of.nearness, of.probe) {
        (true, _) => "nearness",
        (_, true) => "probe",
        _ => "likelihood",
    }
}

fn acquitted(all: &[&Acquitted]) {
    let Some(first) = all.first() else { return };
    println!(
        "\nacquitted of training like that of calibration students, who prefer the served in {:.3} or more",
        first.weakest
    );
    let mut groups: BTreeMap<&str, Vec<&Acquitted>> = BTreeMap::new();
    all.iter().for_each(|of| groups.entry(&of.group).or_default().push(of));
    for (group, of) in groups {
        let count = |strength| of.iter().filter(|of| of.strength == strength).count();
        println!(
            "  {group:<26} {} students: {} contradicted, {} not shown, {} established; upper bound {:.3} (median)",
            of.len(),
            count(Strength::Contradicted),
            count(Strength::NotShown),
            count(Strength::Established),
            median(of.iter().map(|of| of.upper).collect()),
        );
    }
}

fn costs(all: &[&Cost]) {
    if all.is_empty() {
        return;
    }
    println!("\nwhat a mark costs the teacher");
    println!("{:<26} {:>12} {:>11} {:>9} {:>9}", "mark", "nats a token", "tasks right", "tokens", "log10 p");
    for Cost { scheme, nats_a_token, right, log10_p, tokens, .. } in all {
        println!("{scheme:<26} {nats_a_token:>12.3} {:>9.1} % {tokens:>9} {log10_p:>9.1}", 100.0 * right);
    }
}

fn marked(all: &[&Marked]) {
    if all.is_empty() {
        return;
    }
    println!("\nstudents of marked text: decimal logarithm of p");
    println!(
        "{:<26} {:>7} {:>7} {:>6} {:>9} {:>10} {:>9}",
        "mark", "tokens", "marked", "epochs", "it writes", "likeliest", "leans"
    );
    for of in all {
        let share = format!("{} %", 100.0 * of.share);
        println!(
            "{:<26} {:>7} {share:>7} {:>6} {:>9.1} {:>10.1} {:>9.1}",
            of.scheme, of.tokens, of.epochs, of.closed, of.likeliest, of.lean
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Kolmogorov's distance from the uniform distribution and its p-value (asymptotic, corrected after Stephens 1970).
fn kolmogorov(p_values: &[f64]) -> (f64, f64) {
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let off = |(place, p): (usize, &f64)| (p - place as f64 / n).max((place + 1) as f64 / n - p);
    let distance = sorted.iter().enumerate().map(off).fold(0.0, f64::max);
    let x = distance * (n.sqrt() + 0.12 + 0.11 / n.sqrt());
    let terms = (1..100).map(|k| {
        let k = f64::from(k);
        let sign = if k % 2.0 == 1.0 { 2.0 } else { -2.0 };
        sign * (-2.0 * k * k * x * x).exp()
    });
    (distance, if x < 0.2 { 1.0 } else { terms.sum::<f64>().clamp(0.0, 1.0) })
}
