//! What a plan is about, as it is found on the disk: models, journal, answers, and the plan itself.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anbiq_domain::{Digest, DigestBuilder};
use anbiq_evidence::signed::Signed;
use anbiq_journal::tree::Tree;
use anbiq_journal::{PublicKey, Reader};
use anbiq_trace::plan::{self, JournalState, Plan, PlannedFile};
use anyhow::{Context, bail};

use crate::site::read_json;

/// Reads a signed plan: what it says, and who says so.
pub(crate) fn read(path: &Path, key: Option<&PublicKey>) -> anyhow::Result<(Plan, Signed)> {
    let signed: Signed = read_json(path)?;
    let plan = signed.open(plan::KIND, key).with_context(|| format!("the plan `{}` is not taken", path.display()))?;
    Ok((plan, signed))
}

/// The files of a model: of its folder, without those of folders in it, or the one file that it is.
pub(super) fn files_of(place: &Path) -> anyhow::Result<Vec<PlannedFile>> {
    let cannot = || format!("cannot read the model `{}`", place.display());
    if place.is_file() {
        return Ok(vec![file(place)?]);
    }
    let mut paths = Vec::new();
    for item in std::fs::read_dir(place).with_context(cannot)? {
        let item = item.with_context(cannot)?;
        if item.path().is_file() {
            paths.push(item.path());
        }
    }
    if paths.is_empty() {
        bail!("`{}` holds no files of a model", place.display());
    }
    paths.sort();
    paths.iter().map(|path| file(path)).collect()
}

/// A file and its digest, under its own name.
fn file(path: &Path) -> anyhow::Result<PlannedFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(PlannedFile { name, sha256: digest(path)? })
}

/// Files of answers, under the names by which they were given.
pub(super) fn answers(files: &[PathBuf]) -> anyhow::Result<Vec<PlannedFile>> {
    let one = |path: &PathBuf| {
        if path.as_os_str() == "-" {
            bail!("answers of a plan are read twice, so they must be in a file and not come by standard input");
        }
        Ok(PlannedFile { name: path.display().to_string(), sha256: digest(path)? })
    };
    files.iter().map(one).collect()
}

fn digest(path: &Path) -> anyhow::Result<Digest> {
    let cannot = || format!("cannot read `{}`", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let (mut digest, mut bytes) = (DigestBuilder::default(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut bytes).with_context(cannot)? {
            0 => return Ok(digest.finish()),
            read => digest.update(&bytes[..read]),
        }
    }
}

/// The journal at `place` as it was when it had `size` entries; all of them, where it has fewer.
pub(super) fn journal(place: &Path, size: u64) -> anyhow::Result<JournalState> {
    let reader = Reader::open(place).with_context(|| format!("cannot open the journal `{}`", place.display()))?;
    let records = reader.entries()?;
    let mut tree: Tree = records.before().clone();
    let first = tree.size();
    for record in records.take(usize::try_from(size.saturating_sub(first)).unwrap_or(usize::MAX)) {
        let record = record.with_context(|| format!("cannot read the journal `{}`", place.display()))?;
        tree.push(record.leaf);
    }
    Ok(JournalState {
        place: place.display().to_string(),
        id: reader.id().to_string(),
        key: reader.public_key().to_string(),
        first,
        size: tree.size(),
        root: tree.root(),
    })
}
