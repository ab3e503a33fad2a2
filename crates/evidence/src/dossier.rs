//! The dossier's folder: writing it, and the verifier that needs nothing but it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use anbiq_domain::{AccountId, CanariesDrawn, CoinKey, Digest, ExchangeId, JournalId, Texts};
use anbiq_journal::{Checkpoint, PublicKey, SigningKey, checkpoint, tree};

use crate::canonical::{self, CanonicalError};
use crate::records::{OpenedRow, Records, Row};
use crate::statement::{Envelope, Predicate, Statement};

const PAGE: &str = "dossier.html";
const JSON: &str = "dossier.json";
const CHECKPOINT: &str = "checkpoint.txt";
const PUBLIC_KEY: &str = "public-key.txt";
const RECORDS: &str = "records.jsonl";
const COINS: &str = "coins.json";
const TEXTS: &str = "texts.jsonl";
const MANIFEST: &str = "manifest.json";
const STATEMENT: &str = "statement.dsse.json";

/// What goes into a dossier's folder.
#[derive(Debug, Clone)]
pub struct Contents {
    /// `dossier.html`: what people read.
    pub html: String,
    /// `dossier.json`: the same for programs.
    pub json: String,
    /// `checkpoint.txt`: the journal's signed root. Every disclosed record must be proved under it.
    pub checkpoint: Checkpoint,
    /// `records.jsonl`: the records that the dossier rests on, in the journal's order.
    pub records: Vec<Disclosed>,
    /// `coins.json`: the keys of the coins of disclosed twins, with their epochs.
    pub coins: Vec<(u32, CoinKey)>,
    /// `texts.jsonl`: the texts of disclosed exchanges that the journal holds under seal, by the place of their record; no file
    /// where there are none.
    pub texts: Vec<(u64, Texts)>,
    /// Further files, such as `watch.json` or `trace-suspect.json`: name and bytes.
    pub attachments: Vec<(String, Vec<u8>)>,
}

/// One record of the journal, opened to whoever reads the dossier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disclosed {
    /// Its number in the journal.
    pub index: u64,
    /// Its exact bytes.
    pub payload: Vec<u8>,
    /// Its inclusion proof, see [`anbiq_journal::tree::Levels::inclusion_proof`].
    pub proof: Vec<Digest>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// How many files.
    pub files: usize,
    /// How many bytes.
    pub bytes: u64,
    /// Digest of `manifest.json`, which names all others.
    pub manifest: Digest,
}

/// What a dossier was found to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verified {
    /// Which journal it rests on.
    pub journal: JournalId,
    /// The journal's root.
    pub root: Digest,
    /// How many records the root covers.
    pub size: u64,
    /// Who signed the root and the dossier.
    pub signer: PublicKey,
    /// How many files were checked.
    pub files: usize,
    /// How many disclosed records were proved.
    pub records: usize,
    /// For how many exchanges the coin's choice and the commitments were recomputed.
    pub twins_checked: usize,
    /// For how many of those the texts stand in the record and were compared with their commitments.
    pub texts_checked: usize,
    /// For how many exchanges the texts were under seal and were opened, and compared with their commitments.
    pub texts_opened: usize,
    /// What the coins chose, for comparison with what a trace says.
    pub twins: Vec<Twin>,
    /// The draws of canaries that were committed to, by the place of the record.
    pub canaries: BTreeMap<u64, CanariesDrawn>,
}

/// A twinned exchange whose coin was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Twin {
    /// Its number in the journal.
    pub index: u64,
    /// Which exchange.
    pub exchange: ExchangeId,
    /// Who asked.
    pub account: AccountId,
    /// The draw that was served.
    pub served: u8,
}

/// A dossier that is not as it was signed, or that does not hold together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
pub struct Broken {
    /// Which file.
    pub file: String,
    /// Which row of it, counted from 1, where one can be named.
    pub row: Option<usize>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "`{}`, row {row}: {}", self.file, self.what),
            None => write!(f, "`{}`: {}", self.file, self.what),
        }
    }
}

impl Broken {
    fn new(file: &str, row: Option<usize>, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), row, what: what.into() }
    }
}

/// A dossier that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The operating system refused.
    #[error("cannot write `{}`: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: std::io::Error,
    },
    /// There is something already.
    #[error("`{}` exists already\nhint: choose another folder, or move it away first", .0.display())]
    Exists(PathBuf),
    /// A name that cannot be an attachment's.
    #[error("`{0}` cannot be the name of an attachment: use letters, digits, `.`, `_` and `-`, and no name twice")]
    BadName(String),
    /// A record that is not text.
    #[error("record {0} of the journal is not text")]
    NotText(u64),
    /// Something has no canonical JSON form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// The contents do not hold together: the dossier would not verify.
    #[error("the dossier would not verify: {0}")]
    Inconsistent(#[from] Broken),
}

impl EvidenceError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "dossier_io",
            Self::Exists(_) => "dossier_exists",
            Self::BadName(_) => "dossier_bad_name",
            Self::NotText(_) => "dossier_not_text",
            Self::Canonical(_) => "dossier_not_canonical",
            Self::Inconsistent(_) => "dossier_inconsistent",
        }
    }
}

/// The name of an attachment about `subject`: `trace-<subject>.json` with everything but letters, digits, `.`, `_`
/// and `-` replaced.
pub fn attachment_name(kind: &str, subject: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let plain: String = subject.chars().map(|letter| if allowed(letter) { letter } else { '_' }).take(64).collect();
    format!("{kind}-{plain}.json")
}

/// Writes a dossier into the new folder `dir` and signs it with `signer`, which must be the journal's key.
///
/// The folder appears as a whole or not at all, and only after [`verify`] took it.
pub fn write(dir: &Path, contents: &Contents, signer: &SigningKey) -> Result<Written, EvidenceError> {
    if dir.exists() {
        return Err(EvidenceError::Exists(dir.to_owned()));
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = parent.join(format!(".{name}.{}.new", std::process::id()));
    let written = fill(&temporary, contents, signer).and_then(|written| {
        verify(&temporary, Some(&signer.public()))?;
        std::fs::rename(&temporary, dir).map_err(|source| EvidenceError::Io { path: dir.to_owned(), source })?;
        Ok(written)
    });
    if written.is_err() {
        // What is left of it is of no use to anybody; that it stays is no reason for another error.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    written
}

fn fill(dir: &Path, contents: &Contents, signer: &SigningKey) -> Result<Written, EvidenceError> {
    let files = files(contents, signer)?;
    std::fs::create_dir_all(dir).map_err(|source| EvidenceError::Io { path: dir.to_owned(), source })?;
    let mut manifest = Manifest::default();
    let mut bytes = 0;
    for (name, content) in &files {
        manifest.files.push(Listed::of(name, content));
        bytes += put(dir, name, content)?;
    }
    let manifest = canonical::to_string(&manifest)? + "\n";
    let checkpoint = &contents.checkpoint;
    let predicate = Predicate {
        journal: checkpoint.origin.clone(),
        size: checkpoint.size,
        disclosed: contents.records.len() as u64,
        software: concat!("anbiq ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let digest = Digest::of(manifest.as_bytes());
    let statement = Envelope::sign(&Statement::new(digest, checkpoint.root, predicate), signer)?;
    bytes += put(dir, MANIFEST, manifest.as_bytes())?;
    bytes += put(dir, STATEMENT, statement.to_text().as_bytes())?;
    Ok(Written { files: files.len() + 2, bytes, manifest: digest })
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<u64, EvidenceError> {
    let path = dir.join(name);
    let written = std::fs::File::create_new(&path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| EvidenceError::Io { path, source })?;
    Ok(bytes.len() as u64)
}

/// Every file but the manifest and the statement.
fn files(contents: &Contents, signer: &SigningKey) -> Result<Vec<(String, Vec<u8>)>, EvidenceError> {
    let mut records = String::new();
    for record in &contents.records {
        let payload = std::str::from_utf8(&record.payload).map_err(|_| EvidenceError::NotText(record.index))?;
        let leaf = tree::leaf_hash(&record.payload);
        let row = Row { index: record.index, leaf, proof: record.proof.clone(), payload: payload.to_owned() };
        records += &canonical::to_string(&row)?;
        records.push('\n');
    }
    let coin = |(epoch, key): &(u32, CoinKey)| RevealedCoin { epoch: *epoch, key: hex::encode(key.reveal()) };
    let coins = canonical::to_string(&contents.coins.iter().map(coin).collect::<Vec<_>>())? + "\n";
    let mut files = vec![
        (PAGE.to_owned(), contents.html.clone().into_bytes()),
        (JSON.to_owned(), contents.json.clone().into_bytes()),
        (CHECKPOINT.to_owned(), contents.checkpoint.to_note().into_bytes()),
        (PUBLIC_KEY.to_owned(), format!("{}\n", signer.public()).into_bytes()),
        (RECORDS.to_owned(), records.into_bytes()),
        (COINS.to_owned(), coins.into_bytes()),
    ];
    if !contents.texts.is_empty() {
        let row = |(index, texts): &(u64, Texts)| {
            canonical::to_string(&OpenedRow { index: *index, texts: texts.clone() }).map(|row| row + "\n")
        };
        let rows = contents.texts.iter().map(row).collect::<Result<String, _>>()?;
        files.push((TEXTS.to_owned(), rows.into_bytes()));
    }
    for (name, bytes) in &contents.attachments {
        let taken =
            [MANIFEST, STATEMENT, TEXTS].contains(&name.as_str()) || files.iter().any(|(other, _)| other == name);
        if taken || !is_plain(name) {
            return Err(EvidenceError::BadName(name.clone()));
        }
        files.push((name.clone(), bytes.clone()));
    }
    Ok(files)
}

fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevealedCoin {
    epoch: u32,
    key: String,
}

/// `manifest.json`: every other file but the statement, with a digest of each row, so that a change can be placed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    files: Vec<Listed>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    bytes: u64,
    sha256: Digest,
    /// First 8 bytes of the SHA-256 of each line, with its line feed.
    rows: Vec<String>,
}

impl Listed {
    fn of(name: &str, content: &[u8]) -> Self {
        let rows = content.split_inclusive(|byte| *byte == b'\n').map(row_digest).collect();
        Self { name: name.to_owned(), bytes: content.len() as u64, sha256: Digest::of(content), rows }
    }
}

fn row_digest(row: &[u8]) -> String {
    hex::encode(&Digest::of(row).as_bytes()[..8])
}

/// Checks the dossier in `dir` from its folder alone: the signature, the manifest, every file and row, the journal's
/// checkpoint, every inclusion proof, every coin and every commitment to a text.
///
/// `expected` is the key that must have signed it, got from the signer by another way. Without one, the dossier's own
/// word is taken for whose it is.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn verify(dir: &Path, expected: Option<&PublicKey>) -> Result<Verified, Broken> {
    let (key, statement) = signed_statement(dir)?;
    if let Some(expected) = expected.filter(|expected| **expected != key) {
        return Err(Broken::new(PUBLIC_KEY, Some(1), format!("it was signed by {key}, not by {expected}")));
    }
    let (manifest_digest, root) =
        statement.subjects().ok_or_else(|| Broken::new(STATEMENT, None, "it is not about a dossier"))?;
    let manifest = manifest(dir, manifest_digest)?;
    check_files(dir, &manifest)?;

    let note = read(dir, CHECKPOINT)?;
    let checkpoint =
        checkpoint::parse_and_verify(&note, &key).map_err(|error| Broken::new(CHECKPOINT, None, error.to_string()))?;
    let predicate = &statement.predicate;
    if (checkpoint.root, checkpoint.size, &checkpoint.origin) != (root, predicate.size, &predicate.journal) {
        return Err(Broken::new(CHECKPOINT, None, "it is not the root that the statement speaks of"));
    }
    let coins = coins(dir)?;
    let listed = manifest.files.iter().any(|file| file.name == TEXTS);
    let opened = if listed { opened(dir)? } else { BTreeMap::new() };
    let mut records = Records::new(&checkpoint, &coins, opened);
    let mut count = 0;
    for (row, line) in (1..).zip(lines(dir, RECORDS)?) {
        let broken = |what: String| Broken::new(RECORDS, Some(row), what);
        let line = line.map_err(|error| broken(error.to_string()))?;
        records.take(&line).map_err(broken)?;
        count = row;
    }
    if count as u64 != predicate.disclosed {
        let what = format!("it has {count} records, but {} were signed for", predicate.disclosed);
        return Err(Broken::new(RECORDS, None, what));
    }
    records.all_texts_were_met().map_err(|what| Broken::new(TEXTS, None, what))?;
    records.all_coins_were_committed().map_err(|what| Broken::new(COINS, Some(1), what))?;
    Ok(Verified {
        journal: checkpoint.origin.clone(),
        root,
        size: checkpoint.size,
        signer: key,
        files: manifest.files.len() + 2,
        records: count,
        twins_checked: records.twins.len(),
        texts_checked: records.texts_checked,
        texts_opened: records.texts_opened,
        twins: records.twins,
        canaries: records.canaries,
    })
}

fn read(dir: &Path, name: &str) -> Result<String, Broken> {
    std::fs::read_to_string(dir.join(name)).map_err(|error| Broken::new(name, None, error.to_string()))
}

fn lines(dir: &Path, name: &str) -> Result<std::io::Lines<BufReader<std::fs::File>>, Broken> {
    let file = std::fs::File::open(dir.join(name)).map_err(|error| Broken::new(name, None, error.to_string()))?;
    Ok(BufReader::new(file).lines())
}

/// The key and what it signed; where they do not fit together, which of the two is to blame.
fn signed_statement(dir: &Path) -> Result<(PublicKey, Statement), Broken> {
    let text = read(dir, STATEMENT)?;
    let envelope = Envelope::parse(&text).map_err(|error| Broken::new(STATEMENT, None, error.to_string()))?;
    let key_text = read(dir, PUBLIC_KEY);
    let key = key_text.as_ref().ok().and_then(|text| text.trim_end().parse::<PublicKey>().ok());
    match key.ok_or(()).and_then(|key| Ok((key, envelope.verify(&key).map_err(|_| ())?))) {
        Ok(signed) => Ok(signed),
        Err(()) => Err(who_is_to_blame(dir, &envelope, key_text.as_deref().ok())),
    }
}

/// The signature does not fit the key. If the manifest that the envelope speaks of knows another key file, that file was
/// changed; otherwise the envelope was.
fn who_is_to_blame(dir: &Path, envelope: &Envelope, key_text: Option<&str>) -> Broken {
    let manifest = std::fs::read(dir.join(MANIFEST)).unwrap_or_default();
    let claimed = envelope.claimed().ok().and_then(|statement| statement.subjects());
    let intact = claimed.is_some_and(|(digest, _)| digest == Digest::of(&manifest));
    let known = serde_json::from_slice::<Manifest>(&manifest).ok().filter(|_| intact);
    let known = known.and_then(|manifest| manifest.files.into_iter().find(|file| file.name == PUBLIC_KEY));
    match (known, key_text) {
        (Some(known), Some(text)) if known.sha256 == Digest::of(text.as_bytes()) => {
            Broken::new(STATEMENT, None, "its signature is not by the dossier's key over these bytes")
        }
        (Some(_), Some(_)) => Broken::new(PUBLIC_KEY, Some(1), "it is not the key that the dossier was signed with"),
        (_, None) => Broken::new(PUBLIC_KEY, None, "it cannot be read"),
        (None, _) => Broken::new(STATEMENT, None, "its signature is not by the dossier's key over these bytes"),
    }
}

fn manifest(dir: &Path, expected: Digest) -> Result<Manifest, Broken> {
    let text = read(dir, MANIFEST)?;
    let broken = |what: &str| Broken::new(MANIFEST, None, what);
    if Digest::of(text.as_bytes()) != expected {
        return Err(broken("it is not the manifest that was signed"));
    }
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| broken(&error.to_string()))?;
    let listed = |name: &str| manifest.files.iter().any(|file| file.name == name);
    match [PAGE, JSON, CHECKPOINT, PUBLIC_KEY, RECORDS, COINS].into_iter().find(|name| !listed(name)) {
        Some(missing) => Err(broken(&format!("it does not list `{missing}`"))),
        None => Ok(manifest),
    }
}

/// Every listed file is as it was, and there is no other.
fn check_files(dir: &Path, manifest: &Manifest) -> Result<(), Broken> {
    for file in &manifest.files {
        if !is_plain(&file.name) {
            return Err(Broken::new(MANIFEST, None, "it lists a file outside the folder"));
        }
        check_file(dir, file)?;
    }
    let entries = std::fs::read_dir(dir).map_err(|error| Broken::new(".", None, error.to_string()))?;
    for entry in entries {
        let name = entry.map_err(|error| Broken::new(".", None, error.to_string()))?.file_name();
        let known = |known: &str| name.as_os_str() == known;
        if !known(MANIFEST) && !known(STATEMENT) && !manifest.files.iter().any(|file| known(&file.name)) {
            return Err(Broken::new(&name.to_string_lossy(), None, "it is not part of the dossier"));
        }
    }
    Ok(())
}

fn check_file(dir: &Path, listed: &Listed) -> Result<(), Broken> {
    let broken = |row: Option<usize>, what: String| Broken::new(&listed.name, row, what);
    let unreadable = |error: std::io::Error| broken(None, error.to_string());
    let path = dir.join(&listed.name);
    if !path.symlink_metadata().map_err(unreadable)?.is_file() {
        return Err(broken(None, "it is not a plain file".to_owned()));
    }
    let mut reader = BufReader::with_capacity(1 << 16, std::fs::File::open(&path).map_err(unreadable)?);
    let (mut whole, mut bytes) = (sha2::Sha256::new(), 0);
    let mut changed_row = None;
    for row in 1.. {
        let Some((digest, length)) = next_row(&mut reader, &mut whole).map_err(unreadable)? else {
            if row <= listed.rows.len() {
                changed_row = changed_row.or(Some(row));
            }
            break;
        };
        bytes += length;
        if changed_row.is_none() && listed.rows.get(row - 1) != Some(&digest) {
            changed_row = Some(row);
        }
    }
    let whole = Digest::from_bytes(whole.finalize().into());
    if whole == listed.sha256 && bytes == listed.bytes {
        return Ok(());
    }
    Err(broken(changed_row, "it is not as it was signed".to_owned()))
}

/// Digest and length of the next line, which may be too long for memory; also fed to `whole`.
fn next_row(reader: &mut BufReader<std::fs::File>, whole: &mut sha2::Sha256) -> std::io::Result<Option<(String, u64)>> {
    let (mut hasher, mut length, mut chunk) = (sha2::Sha256::new(), 0, Vec::new());
    loop {
        chunk.clear();
        let read = reader.by_ref().take(1 << 20).read_until(b'\n', &mut chunk)?;
        hasher.update(&chunk);
        whole.update(&chunk);
        length += read as u64;
        if read == 0 || chunk.last() == Some(&b'\n') {
            break;
        }
    }
    Ok((length > 0).then(|| (hex::encode(&hasher.finalize()[..8]), length)))
}

/// The texts that were under seal.
fn opened(dir: &Path) -> Result<BTreeMap<u64, Texts>, Broken> {
    let mut opened = BTreeMap::new();
    for (row, line) in (1..).zip(lines(dir, TEXTS)?) {
        let broken = |what: String| Broken::new(TEXTS, Some(row), what);
        let line = line.map_err(|error| broken(error.to_string()))?;
        let OpenedRow { index, texts } = serde_json::from_str(&line).map_err(|error| broken(error.to_string()))?;
        if opened.insert(index, texts).is_some() {
            return Err(broken(format!("the texts of record {index} are there twice")));
        }
    }
    Ok(opened)
}

fn coins(dir: &Path) -> Result<BTreeMap<u32, CoinKey>, Broken> {
    let broken = |what: String| Broken::new(COINS, Some(1), what);
    let revealed: Vec<RevealedCoin> =
        serde_json::from_str(&read(dir, COINS)?).map_err(|error| broken(error.to_string()))?;
    let mut coins = BTreeMap::new();
    for coin in revealed {
        let mut key = [0; 32];
        hex::decode_to_slice(&coin.key, &mut key)
            .map_err(|_| broken(format!("the key of epoch {} is not 64 hexadecimal digits", coin.epoch)))?;
        if coins.insert(coin.epoch, CoinKey::from_bytes(key)).is_some() {
            return Err(broken(format!("epoch {} has two keys", coin.epoch)));
        }
    }
    Ok(coins)
}

#[cfg(test)]
#[path = "dossier_tests.rs"]
mod tests;
