//! `anbiq import`: other systems' logs, for `anbiq watch`.

use std::fmt::Write as _;

use anbiq_import::{Manifest, Mapping, Options, Target};
use anyhow::Context;

use super::Outcome;
use crate::args::Import;
use crate::site::secret_file;
use crate::talk::{self, Talk};

pub(crate) fn run(args: &Import, talk: Talk) -> anyhow::Result<Outcome> {
    let mapping = args.mapping.as_deref().map(|path| {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok::<Mapping, anyhow::Error>(Mapping::parse(&text)?)
    });
    let options = Options {
        format: args.format,
        mapping: mapping.transpose()?,
        account: args.account.clone(),
        max_row: (args.max_row as usize) << 20,
        partial: args.partial,
        ..Options::default()
    };
    let files = anbiq_import::files(&args.files)?;
    if args.check {
        let check = anbiq_import::check(&files, &options, args.look_at)?;
        talk::report(&check, args.json, None, anbiq_import::render_check)?;
        return Ok(Outcome::Fine);
    }
    let key = args.key.clone().unwrap_or_else(|| args.out.with_file_name("import.key"));
    let target = Target { out: args.out.clone(), key: secret_file(&key)?, names: args.names.clone() };
    let mut step = talk.step("requests", 0);
    let manifest = anbiq_import::import(&files, &options, &target, &mut |requests| step.reach_of(requests, 0))?;
    step.finish(&format!("{} rows written to `{}`", manifest.rows.rows, args.out.display()));
    talk::report(&manifest, args.json, None, render)?;
    talk.say(&format!("hint: anbiq watch --imported {}", args.out.display()));
    Ok(Outcome::Fine)
}

fn render(manifest: &Manifest) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_manifest(&mut text, manifest);
    text
}

fn write_manifest(text: &mut String, manifest: &Manifest) -> std::fmt::Result {
    for source in &manifest.sources {
        writeln!(text, "{}", source.in_words())?;
        for (fault, count) in &source.bad {
            writeln!(text, "  {count:>6} {}", fault.in_words())?;
        }
        if let Some(damaged) = &source.damaged {
            writeln!(text, "  not read to its end: {damaged}")?;
        }
    }
    writeln!(
        text,
        "{} accounts, {} exchanges of which {} have sketches, {} refused requests, {} to {}",
        manifest.accounts, manifest.exchanges, manifest.sketched, manifest.refused, manifest.first, manifest.last
    )?;
    if manifest.renamed > 0 {
        writeln!(text, "{} accounts have names that cannot be ids: a keyed hash stands for each", manifest.renamed)?;
    }
    Ok(())
}
