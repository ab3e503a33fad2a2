//! What the program says while it works: on standard error, and only as much as was asked for.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a step that is not shown on a terminal says how far it has come.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How much the program says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    quiet: bool,
    /// As JSON, as the log is then: one object a line.
    json: bool,
}

impl Talk {
    pub(crate) const fn new(quiet: bool, json: bool) -> Self {
        Self { quiet, json }
    }

    /// One line for the person at the terminal.
    pub(crate) fn say(self, line: &str) {
        if !self.quiet {
            // A closed standard error is no reason to stop working.
            let _ = if self.json {
                let message = serde_json::json!({"level": "TALK", "fields": {"message": line}});
                writeln!(std::io::stderr(), "{message}")
            } else {
                writeln!(std::io::stderr(), "{line}")
            };
        }
    }

    /// A step of `total` units; `total` of 0 where the length is not known.
    pub(crate) fn step(self, name: &str, total: u64) -> Step {
        Step::new(self, name, total)
    }
}

/// A step under way: a bar on a terminal, a line now and then elsewhere.
#[derive(Debug)]
pub(crate) struct Step {
    talk: Talk,
    name: String,
    total: u64,
    done: u64,
    bar: ProgressBar,
    started: Instant,
    spoken: Instant,
    /// Bars are only drawn on a terminal; elsewhere lines are printed.
    lines: bool,
    learning: Option<Learning>,
}

/// What is worth knowing of training under way.
#[derive(Debug, Clone, Copy)]
struct Learning {
    /// Units that were done before this program began with it.
    before: u64,
    /// The loss of the last steps.
    loss: f64,
}

impl Step {
    fn new(talk: Talk, name: &str, total: u64) -> Self {
        let lines = !std::io::stderr().is_terminal();
        let target =
            if talk.quiet || lines { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) };
        let bar = ProgressBar::with_draw_target(Some(total.max(1)), target);
        if let Ok(style) = ProgressStyle::with_template("  {msg:<38} {bar:30} {percent:>3} %  {elapsed}, {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        let now = Instant::now();
        Self { talk, name: name.to_owned(), total, done: 0, bar, started: now, spoken: now, lines, learning: None }
    }

    /// `done` units are done, all in all.
    pub(crate) fn reach(&mut self, done: u64) {
        self.done = done;
        self.bar.set_position(done);
        if self.lines && self.spoken.elapsed() >= HEARTBEAT {
            self.spoken = Instant::now();
            let of = if self.total > 0 { format!(" of {}", self.total) } else { String::new() };
            let learning = self.learning.map_or_else(String::new, |learning| {
                let rate = self.rate(learning);
                let left = (self.total.saturating_sub(self.done) as f64 / rate.max(f64::MIN_POSITIVE)).min(1e9) as u64;
                format!(" tokens, {}, {}:{:02} left", self.told(learning), left / 60, left % 60)
            });
            self.talk.say(&format!("  {}: {}{of}{learning}", self.name, self.done));
        }
    }

    /// A step of training read `tokens` more, and its loss was `loss`.
    pub(crate) fn learn(&mut self, tokens: u64, loss: f64) {
        // The mean of about the last twenty.
        let learning = match self.learning {
            Some(Learning { before, loss: past }) => Learning { before, loss: 0.95 * past + 0.05 * loss },
            None => Learning { before: self.done, loss },
        };
        self.learning = Some(learning);
        self.bar.set_message(format!("{}: {}", self.name, self.told(learning)));
        self.advance(tokens);
    }

    /// Tokens a second since this program began with it.
    fn rate(&self, learning: Learning) -> f64 {
        (self.done - learning.before.min(self.done)) as f64 / self.started.elapsed().as_secs_f64().max(1e-3)
    }

    fn told(&self, learning: Learning) -> String {
        format!("loss {:.3}, {:.0} tokens/s", learning.loss, self.rate(learning))
    }

    /// `done` of `total` units are done; for steps whose length shows only later.
    pub(crate) fn reach_of(&mut self, done: u64, total: u64) {
        if self.total != total {
            self.total = total;
            self.bar.set_length(total.max(1));
        }
        self.reach(done);
    }

    /// `more` units were done.
    pub(crate) fn advance(&mut self, more: u64) {
        self.reach(self.done + more);
    }

    /// The step is done; says how long it took and `outcome`.
    pub(crate) fn finish(self, outcome: &str) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        self.talk.say(&format!("  {:<34} {seconds:6.1} s  {outcome}", self.name));
    }
}

/// Data for standard output, with a line end.
///
/// # Errors
///
/// Standard output is closed: whoever read it has what they wanted.
pub(crate) fn data(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.trim_end_matches('\n').as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// `value` as JSON on standard output.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    data(&serde_json::to_string_pretty(value)?)
}

/// A report on standard output, as JSON or in words, and its JSON in the file `out` where one is wanted.
pub(crate) fn report<R: serde::Serialize>(
    report: &R,
    as_json: bool,
    out: Option<&Path>,
    in_words: fn(&R) -> String,
) -> anyhow::Result<()> {
    if let Some(path) = out {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if as_json { json(report) } else { data(&in_words(report)) }
}
