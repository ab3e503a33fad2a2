//! What can be found with the fields that logs have, and what cannot.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ImportError;
use crate::found::Found;
use crate::read::{BadRow, Options, SourceReport, Sums, read};

/// Share of the requests from which a field counts as there.
const MOSTLY: f64 = 0.95;

/// What a look at logs has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Version of this shape.
    pub format: u32,
    /// The logs.
    pub sources: Vec<SourceReport>,
    /// The first rows that could not be used.
    pub bad: Vec<BadRow>,
    /// Requests that were looked at.
    pub requests: u64,
    /// Were there more, which were not looked at?
    pub more: bool,
    /// What sums over time add up to, where the logs hold such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<Sums>,
    /// The kinds of evidence that two accounts are of one operator.
    pub channels: Vec<Signal>,
    /// What is measured of an operator's stream.
    pub traits: Vec<Signal>,
    /// What follows, in words.
    pub conclusions: Vec<String>,
}

/// A signal of `watch` and whether it works with these logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its name, as `watch` reports it.
    pub name: String,
    /// Does it?
    pub works: Works,
    /// Share of the requests that have what it needs.
    pub share: f64,
    /// What it needs.
    pub needs: String,
}

/// Whether a signal works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Works {
    /// Nearly all requests have what it needs.
    Yes,
    /// Some have.
    Partly,
    /// None has.
    No,
}

/// Requests that have what signals need.
#[derive(Debug, Default)]
struct Have {
    requests: u64,
    prompt: u64,
    usage: u64,
    address: u64,
    client: u64,
    payment: u64,
    opened: u64,
}

impl Have {
    fn count(&mut self, found: &Found) {
        self.requests += 1;
        self.prompt += u64::from(found.prompt.is_some());
        self.usage += u64::from(found.usage.is_some());
        self.address += u64::from(found.address.is_some());
        self.client += u64::from(found.agent.is_some() || found.request.is_some());
        self.payment += u64::from(found.payment.is_some());
        self.opened += u64::from(found.opened.is_some());
    }

    fn signal(&self, name: &str, having: u64, needs: &str) -> Signal {
        let share = having as f64 / self.requests.max(1) as f64;
        let works = match share {
            _ if having == 0 => Works::No,
            most if most >= MOSTLY => Works::Yes,
            _ => Works::Partly,
        };
        Signal { name: name.to_owned(), works, share: (share * 1e4).round() / 1e4, needs: needs.to_owned() }
    }
}

/// Looks at up to `most` requests of `files` and writes nothing.
///
/// # Errors
/// A log cannot be read, or its format cannot be told.
pub fn check(files: &[PathBuf], options: &Options, most: u64) -> Result<Check, ImportError> {
    let mut have = Have::default();
    let tally = read(files, options, &mut |found| {
        have.count(&found);
        Ok(have.requests < most)
    })?;
    let prompts = "texts of prompts";
    let channels = vec![
        have.signal("payment", have.payment, "how an account pays"),
        have.signal("network", have.address, "the client's address"),
        have.signal("client", have.client, "the client's software or the request's settings"),
        have.signal("sign-up", have.opened, "when an account was opened"),
        have.signal("content", have.prompt, prompts),
        have.signal("work queue", have.prompt, prompts),
        have.signal("rhythm", have.requests, "times of requests"),
    ];
    let mut traits: Vec<Signal> = ["novelty", "breadth", "machine", "depth", "elicitation", "mixture"]
        .map(|name| have.signal(name, have.prompt, prompts))
        .into();
    traits.push(have.signal("output", have.usage, "tokens of prompts and answers"));
    traits.extend(["rhythm", "evenness"].map(|name| have.signal(name, have.requests, "times of requests")));
    let sums = (tally.sums != Sums::default()).then_some(tally.sums);
    let conclusions = conclude(&have, &channels, sums.is_some());
    let more = have.requests >= most;
    let (sources, bad) = (tally.sources, tally.samples);
    Ok(Check { format: 1, sources, bad, requests: have.requests, more, sums, channels, traits, conclusions })
}

fn conclude(have: &Have, channels: &[Signal], sums: bool) -> Vec<String> {
    let mut said = Vec::new();
    if sums {
        said.push("sums over time can be added up for accounting; nothing in them can be linked or judged".to_owned());
    }
    if have.requests == 0 {
        said.push("no row tells of a request: watch can do nothing with these logs".to_owned());
        return said;
    }
    // Rhythm alone is never a signal; content and work queue are one.
    let independent = [0, 1, 2, 3, 4].iter().filter(|place| channels[**place].works != Works::No).count();
    said.push(match independent {
        0 | 1 => format!(
            "accounts cannot be linked: {independent} independent kinds of evidence are there, a link needs two"
        ),
        2 => "accounts can be linked, but no link outlasts the loss of either kind of evidence easily".to_owned(),
        more => format!("accounts can be linked: {more} independent kinds of evidence are there"),
    });
    said.push(match channels[4].works {
        Works::Yes => "what accounts are used for can be judged".to_owned(),
        Works::Partly => "what accounts are used for can be judged where half of their requests have prompts".to_owned(),
        Works::No => {
            "without prompts it cannot be judged what accounts are used for: nobody is accused, linked accounts may come \
             up for review"
                .to_owned()
        }
    });
    said.push("nothing of it can be proved: logs are neither signed nor committed to, and hold no twins".to_owned());
    said
}

/// The check for a person at a terminal.
pub fn render_check(check: &Check) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_check(&mut text, check);
    text
}

fn write_check(text: &mut String, check: &Check) -> std::fmt::Result {
    for source in &check.sources {
        writeln!(text, "{}", source.in_words())?;
        if let Some(damaged) = &source.damaged {
            writeln!(text, "  not read to its end: {damaged}")?;
        }
        for field in &source.fields {
            let from: Vec<&str> = field.from.keys().map(String::as_str).collect();
            let share = 100.0 * field.requests as f64 / source.requests.max(1) as f64;
            writeln!(text, "  {:<18} {share:>3.0} %  {}", field.field.name(), from.join(", "))?;
        }
    }
    for bad in &check.bad {
        writeln!(text, "  row {} of {} {}", bad.row, bad.source, bad.fault.in_words())?;
    }
    if check.more {
        writeln!(text, "only the first {} requests were looked at", check.requests)?;
    }
    if let Some(sums) = &check.sums {
        writeln!(
            text,
            "{} sums of {} accounts: {} requests, {} tokens of prompts, {} tokens of answers",
            sums.buckets, sums.accounts, sums.requests, sums.prompt_tokens, sums.completion_tokens
        )?;
    }
    for (title, signals) in [("linking accounts", &check.channels), ("judging their use", &check.traits)] {
        writeln!(text, "\n{title}")?;
        for signal in signals {
            let works = match signal.works {
                Works::Yes => "works",
                Works::Partly => "partly",
                Works::No => "no",
            };
            let share = 100.0 * signal.share;
            writeln!(text, "  {:<12} {works:<7} {share:>3.0} %  needs {}", signal.name, signal.needs)?;
        }
    }
    writeln!(text)?;
    for conclusion in &check.conclusions {
        writeln!(text, "{conclusion}")?;
    }
    Ok(())
}
