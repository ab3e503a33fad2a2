//! What is said: real prompts where they are at hand, generated ones otherwise.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anbiq_domain::Seeded;
use serde::Deserialize;

use super::grammar;
use crate::ArenaError;

/// Longest text that is used, in characters: sketches of longer ones cost more and say no more.
const LONGEST: usize = 4_000;
/// Fewest items of a template or benchmark that an application or a harness can live on.
const ITEMS: usize = 20;

/// Families of prompts that a harvest is made of.
pub(crate) const FAMILIES: usize = 3;

/// All there is to say.
#[derive(Debug, Default)]
pub(crate) struct Phrases {
    /// What people say, session by session.
    pub(crate) sessions: Vec<Vec<String>>,
    /// Filled templates of applications, template by template.
    pub(crate) templates: Vec<Vec<String>>,
    /// Items of benchmarks, benchmark by benchmark.
    pub(crate) benchmarks: Vec<Vec<String>>,
    /// What programmers ask for.
    pub(crate) code: Vec<String>,
    /// What harvests are grown from, family by family.
    pub(crate) seeds: [Vec<String>; FAMILIES],
    /// Are they real?
    pub(crate) real: bool,
}

/// A line of the file of real prompts.
#[derive(Deserialize)]
struct Line {
    kind: String,
    source: String,
    text: String,
    template: Option<String>,
    session: Option<u64>,
}

impl Phrases {
    /// Real prompts below `folder`, or generated ones where there are none.
    pub(crate) fn open(folder: Option<&Path>, seed: u64) -> Result<Self, ArenaError> {
        let generated = || grammar::phrases(&mut Seeded::new(seed).fork("phrases"));
        let Some((path, lines)) = folder.and_then(find) else { return Ok(generated()) };
        Self::read(&path, lines?, generated)
    }

    fn read(path: &Path, lines: Box<dyn BufRead>, generated: impl Fn() -> Self) -> Result<Self, ArenaError> {
        let mut this = Self { real: true, ..Self::default() };
        let (mut sessions, mut templates, mut benchmarks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (number, line) in (1..).zip(lines.lines()) {
            let line = line.map_err(|source| ArenaError::Read { path: path.to_owned(), source })?;
            let line: Line = serde_json::from_str(&line).map_err(|source| ArenaError::Prompt {
                path: path.to_owned(),
                line: number,
                source,
            })?;
            let text: String = line.text.chars().take(LONGEST).collect();
            let group = line.template.unwrap_or_else(|| line.source.clone());
            match (line.kind.as_str(), line.session) {
                ("benign_chat", Some(session)) => {
                    sessions.entry((line.source, session)).or_insert_with(Vec::new).push(text);
                }
                ("benign_chat", None) => this.sessions.push(vec![text]),
                ("benign_template", _) => templates.entry(group).or_insert_with(Vec::new).push(text),
                ("eval_harness", _) => {
                    if line.source == "gsm8k_train" {
                        this.seeds[1].push(text.clone());
                    }
                    benchmarks.entry(group).or_insert_with(Vec::new).push(text);
                }
                ("distill", _) if line.source == "code_alpaca_2k" => this.code.push(text),
                ("distill", _) => this.seeds[0].push(text),
                _ => {}
            }
        }
        this.sessions.extend(sessions.into_values());
        let enough = |group: BTreeMap<String, Vec<String>>| group.into_values().filter(|items| items.len() >= ITEMS);
        this.templates.extend(enough(templates));
        this.benchmarks.extend(enough(benchmarks));
        // No set of general instructions is at hand; that family is generated.
        let generated = generated();
        this.seeds[2] = generated.seeds[2].clone();
        let whole = this.sessions.len() >= ITEMS && this.templates.len() >= 2 && this.benchmarks.len() >= 2;
        let whole = whole && this.code.len() >= ITEMS && this.seeds.iter().all(|seeds| seeds.len() >= ITEMS);
        Ok(if whole { this } else { generated })
    }

    /// Something that a person says, and what follows it up.
    pub(crate) fn session(&self, random: &mut Seeded) -> Vec<String> {
        let one = random.pick(&self.sessions).cloned().unwrap_or_default();
        // The sets are small against the traffic, and people hardly repeat each other: most of what is said first is new.
        let mut turns = one;
        if random.chance(0.8)
            && let (Some(first), Some(other)) = (turns.first_mut(), random.pick(&self.sessions))
        {
            *first = spliced(first, other.first().map_or("", String::as_str), random);
        }
        turns
    }

    /// A new input of an application, in the form of `template`.
    pub(crate) fn fill(&self, template: usize, random: &mut Seeded) -> String {
        let Some(items) = self.templates.get(template % self.templates.len().max(1)) else { return String::new() };
        let (one, other) = (random.pick(items), random.pick(items));
        spliced(one.map_or("", String::as_str), other.map_or("", String::as_str), random)
    }

    /// Something that a programmer asks for.
    pub(crate) fn programming(&self, random: &mut Seeded) -> String {
        let (one, other) = (random.pick(&self.code), random.pick(&self.code));
        match (one, other) {
            (Some(one), Some(other)) if random.chance(0.5) => spliced(one, other, random),
            (one, _) => one.cloned().unwrap_or_default(),
        }
    }

    /// The list that a harvest of `family` works through: `count` prompts, no two of them equal. What goes beyond the seeds is grown
    /// from them, as evolved instructions are (Xu et al. 2023).
    pub(crate) fn harvest(&self, family: usize, count: usize, random: &mut Seeded) -> Vec<String> {
        let seeds = &self.seeds[family % FAMILIES];
        let mut list: Vec<String> = seeds.clone();
        random.shuffle(&mut list);
        list.truncate(count);
        while list.len() < count {
            let seed = random.pick(seeds).map_or("", String::as_str);
            list.push(grammar::evolved(seed, random));
        }
        random.shuffle(&mut list);
        list
    }
}

/// The beginning of `one` with the end of `other`: a new text in the form of both.
fn spliced(one: &str, other: &str, random: &mut Seeded) -> String {
    let cut = 0.35 + 0.4 * random.unit();
    let words = |text: &str| 1 + text.bytes().filter(|byte| *byte == b' ').count();
    let (mine, theirs) = (words(one), words(other));
    let keep = ((mine as f64 * cut).ceil() as usize).max(3).min(mine);
    let from = (theirs as f64 * cut) as usize;
    // Where a word begins; one place beyond the end where there are no more.
    let begins = |text: &str, word: usize| match word {
        0 => 0,
        _ => {
            let mut spaces = text.bytes().enumerate().filter(|byte| byte.1 == b' ');
            spaces.nth(word - 1).map_or(text.len(), |byte| byte.0) + 1
        }
    };
    let (head, tail) = (&one[..begins(one, keep) - 1], &other[begins(other, from)..]);
    let mut text = String::with_capacity(head.len() + 1 + tail.len());
    text.push_str(head);
    text.push(' ');
    text.push_str(tail);
    text
}

type Lines = Result<Box<dyn BufRead>, ArenaError>;

/// The file of real prompts below `folder`, plain or compressed.
fn find(folder: &Path) -> Option<(PathBuf, Lines)> {
    let plain = folder.join("watch/prompts_dev.jsonl");
    if plain.is_file() {
        let lines = File::open(&plain).map(|file| Box::new(BufReader::new(file)) as Box<dyn BufRead>);
        let lines = lines.map_err(|source| ArenaError::Read { path: plain.clone(), source });
        return Some((plain, lines));
    }
    let packed = folder.join("watch/prompts_dev.jsonl.xz");
    packed.is_file().then(|| {
        let lines = unpacked(&packed).map_err(|source| ArenaError::Read { path: packed.clone(), source });
        (packed, lines)
    })
}

/// What `xz` makes of a file.
fn unpacked(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let mut child = Command::new("xz").arg("-dc").arg(path).stdout(Stdio::piped()).spawn()?;
    let mut text = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_end(&mut text)?;
    }
    if !child.wait()?.success() {
        return Err(std::io::Error::other("`xz` could not unpack it"));
    }
    Ok(Box::new(std::io::Cursor::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_splice_is_the_words_of_one_and_then_of_the_other() {
        let mut random = Seeded::new(1);
        let texts = ["", "a", " a  b ", "one two three four five six seven", "\u{e9}t\u{e9} \u{4e00}\n b c d"];
        for (one, other) in texts.iter().flat_map(|one| texts.iter().map(move |other| (*one, *other))) {
            for _ in 0..20 {
                let spliced = spliced(one, other, &mut random.clone());
                let cut = 0.35 + 0.4 * random.unit();
                let words: Vec<&str> = one.split(' ').collect();
                let more: Vec<&str> = other.split(' ').collect();
                let keep = ((words.len() as f64 * cut).ceil() as usize).max(3).min(words.len());
                let from = (more.len() as f64 * cut) as usize;
                assert_eq!(spliced, [&words[..keep], &more[from..]].concat().join(" "));
            }
        }
    }
}
