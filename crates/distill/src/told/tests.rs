use std::fs;
use std::path::{Path, PathBuf};

use anbiq_domain::{Answer, Finish, Seeded, Usage};
use proptest::prelude::*;

use super::file::{Shelf, Writer, path};
use super::shard::{Builder, Shard};
use super::{bytes, code, shelve};
use crate::capture::{Bytes, Row, Token};
use crate::data::{Asked, Lines};

/// A token as it comes back.
fn rounded(token: &Token) -> Token {
    let round = |logprob: f32| code::decode(code::encode(logprob));
    let top = token.top.iter().filter(|(_, logprob)| *logprob <= 1e-3);
    Token {
        bytes: token.bytes.clone(),
        logprob: round(token.logprob),
        top: top.map(|(bytes, logprob)| (bytes.clone(), round(*logprob))).collect(),
    }
}

fn is_same(one: &[Token<&[u8]>], other: &[Token]) -> bool {
    let named = |one: &(&[u8], f32), other: &(Bytes, f32)| one.0 == other.0.as_slice() && one.1 == other.1;
    let same = |one: &Token<&[u8]>, other: &Token| {
        named(&(one.bytes, one.logprob), &(other.bytes.clone(), other.logprob))
            && one.top.len() == other.top.len()
            && one.top.iter().zip(&other.top).all(|(one, other)| named(one, other))
    };
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

fn logprob() -> impl Strategy<Value = f32> {
    prop_oneof![Just(0.0_f32), -30.0..0.0_f32, -200.0..0.1_f32]
}

fn word() -> impl Strategy<Value = Bytes> {
    let long = (any::<u8>(), 10..400_usize).prop_map(|(byte, length)| vec![byte; length]);
    prop_oneof![prop::collection::vec(b'a'..b'e', 0..4), prop::collection::vec(any::<u8>(), 0..6), long,]
        .prop_map(Bytes::from)
}

fn token() -> impl Strategy<Value = Token> {
    (word(), logprob(), prop::collection::vec((word(), logprob()), 0..7), any::<prop::sample::Index>(), any::<bool>())
        .prop_map(|(bytes, logprob, top, which, is_named)| match top.get(which.index(top.len().max(1))) {
            // Most often a token that was chosen is among the likeliest.
            Some((bytes, logprob)) if is_named => Token { bytes: bytes.clone(), logprob: *logprob, top },
            _ => Token { bytes, logprob, top },
        })
}

fn answers() -> impl Strategy<Value = Vec<Vec<Token>>> {
    prop::collection::vec(prop::collection::vec(token(), 0..6), 1..6)
}

fn shard_of(answers: &[Vec<Token>]) -> Vec<u8> {
    let mut builder = Builder::default();
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(builder.add(answer), (number as u32, answer.len() as u32));
    }
    builder.seal()
}

proptest! {
    /// Whatever was told comes back, but for the rounding; and written again it is the same bytes.
    #[test]
    fn what_is_told_is_read(answers in answers(), after in prop::collection::vec(any::<u8>(), 0..9)) {
        let sealed = shard_of(&answers);
        let bytes = [sealed.clone(), after].concat();
        let shard = Shard::open(&bytes).unwrap();
        let mut again = Builder::default();
        for (number, answer) in answers.iter().enumerate() {
            let told = shard.answer(&bytes, number as u32).unwrap();
            let expected: Vec<Token> = answer.iter().map(rounded).collect();
            prop_assert!(is_same(&told, &expected), "{told:?} {expected:?}");
            again.add(&told);
        }
        prop_assert!(shard.answer(&bytes, answers.len() as u32).is_none());
        prop_assert!(again.seal() == sealed);
    }

    /// Damage is seen, whatever it is.
    #[test]
    fn a_damaged_shard_is_none(answers in answers(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let sealed = shard_of(&answers);
        let at = at.index(sealed.len());
        prop_assert!(Shard::open(&sealed[..at]).is_none());
        let mut other = sealed;
        other[at] ^= flip;
        prop_assert!(Shard::open(&other).is_none());
    }

    /// Whoever makes the checksum fit can say what is not so, and nothing worse: no read beyond the bytes, no memory that they do not
    /// account for, no end of the program.
    #[test]
    fn a_forged_shard_does_no_harm(
        answers in answers(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        in_head in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut forged = shard_of(&answers);
        let reach = if in_head { 48 } else { forged.len() };
        for (at, byte) in changes {
            forged[at.index(reach)] = byte;
        }
        for length in [forged.len(), cut.index(forged.len())] {
            if let Some(shard) = Shard::unpack(&forged[..length]) {
                for number in 0..answers.len() as u32 + 1 {
                    let _ = shard.answer(&forged[..length], number);
                }
            }
        }
    }
}

/// Tokens of a vocabulary as large as today's: a few that come often and many that hardly do, drawn anew at each place; 20 of them are named with probabilities
/// that fall as a power of their rank.
struct Speech {
    random: Seeded,
    vocabulary: Vec<Bytes>,
    /// The word at a rank draws as `rank^-1`.
    steps: Vec<f64>,
}

impl Speech {
    fn new(seed: u64, size: usize) -> Self {
        let mut random = Seeded::new(seed);
        let syllables: Vec<String> = (0..400)
            .map(|_| (0..2 + random.below(2)).map(|_| (b'a' + random.below(26) as u8) as char).collect())
            .collect();
        let mut words = std::collections::BTreeSet::new();
        while words.len() < size {
            let mut word = if random.below(2) == 0 { " ".to_owned() } else { String::new() };
            for _ in 0..1 + random.below(4) {
                word.push_str(&syllables[random.below(400)]);
            }
            words.insert(word);
        }
        let mut vocabulary: Vec<Bytes> = words.into_iter().map(Bytes::Text).collect();
        random.shuffle(&mut vocabulary);
        let mut sum = 0.0;
        let steps = (1..=size)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { random, vocabulary, steps }
    }

    fn word(&mut self) -> Bytes {
        let at = self.random.unit() * self.steps.last().unwrap();
        self.vocabulary[self.steps.partition_point(|step| *step < at)].clone()
    }

    fn answer(&mut self, places: usize) -> Vec<Token> {
        (0..places).map(|_| self.place()).collect()
    }

    fn place(&mut self) -> Token {
        let sharp = 0.7 + 2.0 * self.random.unit();
        let weights: Vec<f64> = (1..=60).map(|rank| f64::from(rank).powf(-sharp)).collect();
        let sum: f64 = weights.iter().sum();
        let mut top: Vec<(Bytes, f32)> = Vec::new();
        while top.len() < 20 {
            let word = self.word();
            if top.iter().all(|(other, _)| *other != word) {
                top.push((word, (weights[top.len()] / sum).ln() as f32));
            }
        }
        // One in twenty is none of the likeliest.
        match self.random.below(20) {
            0 => Token { bytes: self.word(), logprob: -9.5, top },
            _ => Token { bytes: top[0].0.clone(), logprob: top[0].1, top },
        }
    }
}

#[test]
fn a_token_takes_less_than_a_hundred_bytes() {
    // Words come as often as one over their rank says, and so does every alternative, whatever came before: no text names so many different tokens.
    // The worst are captures of some ten thousand tokens, most of whose dictionary is of words that come once.
    for (places, size) in [(20_000, 150_000), (140_000, 150_000)] {
        let mut speech = Speech::new(places, size);
        let mut writer = Writer::new(Vec::new());
        for _ in 0..places / 200 {
            writer.add(&speech.answer(200)).unwrap();
        }
        let (file, _) = writer.end().unwrap();
        let each = file.len() as f64 / places as f64;
        assert!(each <= 100.0, "{each} bytes a token of {places}");
    }
}

/// Rows with one or two answers, some with nothing told, some from elsewhere.
fn rows(answers: &[Vec<Token>]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, told) in answers.chunks(2).enumerate() {
        rows.push(Row {
            id: (number % 3 > 0).then(|| anbiq_domain::Digest::of(&[number as u8])),
            exchange: None,
            prompt: Asked::Words(format!("question {number}")),
            answers: told.iter().map(|_| Answer::new("answer", Finish::Stop)).collect(),
            logprobs: told.to_vec(),
            told: None,
            usage: Usage::default(),
            batch: false,
        });
        if number % 2 == 0 {
            rows.push(Row { logprobs: Vec::new(), ..rows[rows.len() - 1].clone() });
        }
    }
    rows
}

fn write(path: &Path, rows: &[Row]) {
    let lines: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
    fs::write(path, lines).unwrap();
}

fn read(path: &Path) -> Vec<Row> {
    let mut shelf = Shelf::of(path);
    let filled = |row: Result<Row, _>| {
        let mut row = row.unwrap();
        shelf.fill(&mut row).unwrap();
        row
    };
    Lines::<Row>::open(path).unwrap().map(filled).collect()
}

/// The files of a folder by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// However often a capture was shelved on the way, in whatever order its rows came, and wherever a kill left it: in the end its files are the same.
    #[test]
    fn shelving_forgets_how_it_came_about(answers in prop::collection::vec(prop::collection::vec(token(), 0..4), 1..9), parts in prop::collection::vec(any::<prop::sample::Index>(), 0..3), kills in any::<[bool; 3]>()) {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = |dir: &tempfile::TempDir| -> PathBuf { dir.path().join("answers.jsonl") };
        let all = rows(&answers);
        write(&place(&one), &all);
        shelve(&place(&one)).unwrap();

        // The rows of a part are asked for and come in another order; they are shelved, and put in order afterwards.
        let path = place(&other);
        fs::write(&path, "").unwrap();
        let mut there = 0;
        let mut ends: Vec<usize> = parts.iter().map(|part| part.index(all.len() + 1)).collect();
        ends.sort_unstable();
        for (end, kill) in ends.into_iter().chain([all.len()]).zip(kills) {
            let more = all[there..end].iter().map(|row| serde_json::to_string(row).unwrap());
            let lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).chain(more).collect();
            let text = |lines: &mut dyn Iterator<Item = &String>| lines.map(|line| format!("{line}\n")).collect::<String>();
            fs::write(&path, text(&mut lines.iter().rev())).unwrap();
            shelve(&path).unwrap();
            let lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
            fs::write(&path, text(&mut lines.iter().rev())).unwrap();
            if kill {
                // New shards were written, and no row names them yet.
                fs::write(super::file::path(&path, &"0f".repeat(16)), "shards").unwrap();
                fs::write(path.with_added_extension("told.new"), "torn").unwrap();
            }
            there = end;
        }
        shelve(&path).unwrap();
        prop_assert_eq!(files(one.path()), files(other.path()));
        let expected: Vec<Row> = all
            .into_iter()
            .map(|row| {
                let logprobs: Vec<Vec<Token>> = row.logprobs.iter().map(|tokens| tokens.iter().map(rounded).collect()).collect();
                let told = logprobs.iter().any(|tokens| !tokens.is_empty());
                Row { logprobs: if told { logprobs } else { row.logprobs.clone() }, ..row }
            })
            .collect();
        prop_assert_eq!(read(&path), expected);
        // Once more changes nothing.
        shelve(&path).unwrap();
        prop_assert_eq!(files(one.path()), files(other.path()));
    }
}

#[test]
fn a_capture_without_its_shards_is_named_and_one_that_was_renamed_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("answers.jsonl");
    let mut speech = Speech::new(7, 300);
    let all = rows(&[speech.answer(5), Vec::new(), speech.answer(9)]);
    write(&source, &all);
    shelve(&source).unwrap();
    let whole = read(&source);
    let told = whole.iter().map(|row| row.logprobs.len()).sum::<usize>();
    assert_eq!(told, 3);
    let named = Lines::<Row>::open(&source).unwrap().find_map(|row| row.unwrap().told).unwrap().file;
    assert_eq!(bytes(&source).unwrap(), fs::metadata(path(&source, &named)).unwrap().len());

    let renamed = dir.path().join("other.jsonl");
    fs::rename(&source, &renamed).unwrap();
    assert_eq!(read(&renamed), whole);
    // Shelved again it has a file of its own.
    shelve(&renamed).unwrap();
    assert!(path(&renamed, &named).exists());
    fs::remove_file(path(&source, &named)).unwrap();
    assert_eq!(read(&renamed), whole);

    let mut row = Lines::<Row>::open(&renamed).unwrap().next().unwrap().unwrap();
    let spots = row.told.clone();
    let file = path(&renamed, &named);
    let mut bytes = fs::read(&file).unwrap();
    bytes[60] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = Shelf::of(&renamed).fill(&mut row).unwrap_err();
    assert_eq!(error.code(), "told_damaged");
    fs::remove_file(&file).unwrap();
    row.told = spots.clone();
    let error = Shelf::of(&renamed).fill(&mut row).unwrap_err();
    assert_eq!(error.code(), "told_missing");
    assert!(error.to_string().contains("hint: the log-probabilities of a capture are in a file beside it: copy both"));
    // A name is no path.
    row.told = spots.map(|told| super::Told { file: "../../etc/passwd".to_owned(), ..told });
    assert_eq!(Shelf::of(&renamed).fill(&mut row).unwrap_err().code(), "told_missing");
}
