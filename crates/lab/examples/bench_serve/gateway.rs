//! An installation of `anbiq` and its gateway, for as long as it is measured.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anbiq_lab::load::Histogram;
use anbiq_lab::load::server::{PACED, SILENT, WHOLE};
use anbiq_secret::Secret;

use crate::arguments::Arguments;
use crate::usage::{self, Usage};

/// The plans, each with an account on it, and the share of exchanges that they twin.
const PLANS: [(&str, &str); 2] = [("no-twins", "0.0"), ("twins-5-percent", "0.05")];

/// The teachers.
const MODELS: [&str; 3] = [WHOLE, PACED, SILENT];

/// How long the gateway may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(90);

/// Lines of the gateway's talk that are kept.
const LINES: usize = 20;

/// A gateway under way. The process ends and its folder goes when this is dropped.
pub(crate) struct Gateway {
    /// Up to and with `/v1`.
    pub(crate) base_url: String,
    pub(crate) accounts: Vec<Account>,
    // The process goes before its folder: fields are dropped in this order.
    process: Process,
    site: Site,
}

/// Who calls.
pub(crate) struct Account {
    pub(crate) plan: String,
    pub(crate) key: Secret<String>,
}

/// The folders of an installation; they go when this is dropped.
struct Site {
    program: PathBuf,
    dir: PathBuf,
    ledger_dir: PathBuf,
}

impl Gateway {
    /// Lays out an installation whose teachers are the models of the server at `mock_url`, and starts its gateway.
    pub(crate) fn start(arguments: &Arguments, mock_url: &str) -> Result<Self, Box<dyn Error>> {
        let site = Site::make(arguments, mock_url)?;
        let accounts = PLANS.iter().map(|(plan, _)| site.account(plan)).collect::<Result<_, _>>()?;
        let (process, talk) = Process::start(&site)?;
        let (sender, receiver) = mpsc::sync_channel(1);
        // What it says must be read, or it would wait for a reader; nobody needs it when all is well.
        std::thread::spawn(move || listen(talk, &sender));
        let base_url = receiver.recv_timeout(PATIENCE).map_err(|_| "the gateway did not start in time")??;
        Ok(Self { base_url, accounts, process, site })
    }

    /// What the gateway has used.
    pub(crate) fn usage(&self) -> Result<Usage, Box<dyn Error>> {
        Ok(Usage {
            journal_bytes: usage::size(&self.site.dir.join("journal"), "")?,
            ledger_bytes: usage::size(&self.site.ledger_dir, "ledger.db")?,
            ..Usage::of(self.process.pid)?
        })
    }

    /// How long a small durable write takes on the journal's disk: nothing that is acknowledged can be faster.
    pub(crate) fn fsync(&self) -> Result<Histogram, Box<dyn Error>> {
        let mut file = File::create(self.site.dir.join("fsync"))?;
        let mut histogram = Histogram::default();
        for _ in 0..200 {
            let started = Instant::now();
            file.write_all(&[0; 1024])?;
            file.sync_data()?;
            histogram.record(u64::try_from(started.elapsed().as_nanos())?);
        }
        Ok(histogram)
    }

    /// Stops the gateway as a system would, and says whether its journal is whole.
    pub(crate) fn stop(mut self) -> Result<String, Box<dyn Error>> {
        if !self.process.end()? {
            return Err("the gateway did not stop as it should".into());
        }
        let said = self.site.run(&["journal", "verify"], &self.site.dir.join("journal"))?;
        let entries = said.lines().find(|line| line.trim_start().starts_with("entries")).unwrap_or_default();
        let words: Vec<&str> = entries.split_whitespace().collect();
        Ok(format!("{}; {}", words.join(" "), said.lines().last().unwrap_or_default()))
    }
}

/// The gateway's process. It is asked to stop when this is dropped, and also when this program is killed.
struct Process {
    pid: u32,
    shell: Child,
    /// The shell waits for its end.
    lifeline: Option<ChildStdin>,
}

/// Starts a program, says its number, and asks it to stop when standard input ends. What the program says ends with it,
/// so that one that does not start is noticed.
const SHELL: &str = r#""$@" >/dev/null & exec 2>/dev/null; echo $!; read _; kill -TERM $!; wait $!"#;

impl Process {
    /// Starts the gateway of `site`, and gives what it says.
    fn start(site: &Site) -> Result<(Self, impl BufRead + use<>), Box<dyn Error>> {
        let mut shell = Command::new("sh")
            .args(["-c", SHELL, "sh"])
            .arg(&site.program)
            .args(["serve", "--config"])
            .arg(site.configuration())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lifeline = shell.stdin.take();
        let talk = shell.stderr.take().ok_or("the gateway says nothing")?;
        let mut line = String::new();
        BufReader::new(shell.stdout.take().ok_or("the shell says nothing")?).read_line(&mut line)?;
        Ok((Self { pid: line.trim().parse()?, shell, lifeline }, BufReader::new(talk)))
    }

    /// Asks the gateway to stop; true if it did, in time and well.
    fn end(&mut self) -> std::io::Result<bool> {
        drop(self.lifeline.take());
        let asked = Instant::now();
        loop {
            match self.shell.try_wait()? {
                Some(status) => return Ok(status.success()),
                None if asked.elapsed() > PATIENCE => return Ok(false),
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // That it does not stop has been said, or something else that went wrong before.
        let _ = self.end();
    }
}

/// Sends the address that the gateway serves on, or what it said instead.
fn listen(talk: impl BufRead, sender: &mpsc::SyncSender<Result<String, String>>) {
    let mut last = VecDeque::new();
    for line in talk.lines().map_while(Result::ok) {
        if let Some(address) = line.strip_prefix("serving on ").and_then(|rest| rest.split(';').next()) {
            let _ = sender.try_send(Ok(address.to_owned()));
        }
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    let said = last.into_iter().collect::<Vec<_>>().join("\n");
    let _ = sender.try_send(Err(format!("the gateway did not start:\n{said}")));
}

impl Site {
    fn make(arguments: &Arguments, mock_url: &str) -> Result<Self, Box<dyn Error>> {
        let name = format!("anbiq-bench-{}", std::process::id());
        let dir = arguments.dir.join(&name);
        let ledger_dir = arguments.ledger_dir.as_ref().map_or_else(|| dir.clone(), |parent| parent.join(&name));
        let site = Self { program: arguments.program.canonicalize()?, dir, ledger_dir };
        fs::create_dir_all(&site.dir)?;
        fs::create_dir_all(&site.ledger_dir)?;
        site.run(&["init"], &site.dir)?;
        site.write_terms()?;
        fs::write(site.configuration(), configuration(mock_url, &site.ledger_dir))?;
        Ok(site)
    }

    fn configuration(&self) -> PathBuf {
        self.dir.join("anbiq.toml")
    }

    /// The terms that `anbiq init` wrote, for every teacher.
    fn write_terms(&self) -> Result<(), Box<dyn Error>> {
        let text = fs::read_to_string(self.dir.join("terms.json"))?;
        for model in MODELS {
            let mut terms: serde_json::Value = serde_json::from_str(&text)?;
            terms["id"] = format!("{model}-terms").into();
            terms["teacher"] = model.into();
            fs::write(self.dir.join(terms_file(model)), terms.to_string())?;
        }
        Ok(())
    }

    /// Opens an account on `plan` that has money, and has accepted all terms.
    fn account(&self, plan: &str) -> Result<Account, Box<dyn Error>> {
        self.command(&["account", "open", plan, "--plan", plan, "--budget", "1000000"])?;
        for model in MODELS {
            self.command(&["terms", "accept", plan, model])?;
        }
        let key = self.command(&["key", "issue", plan])?;
        Ok(Account { plan: plan.to_owned(), key: Secret::new(key.trim().to_owned()) })
    }

    /// What a command of the installation writes.
    fn command(&self, words: &[&str]) -> Result<String, Box<dyn Error>> {
        self.run(&[words, &["--config"]].concat(), &self.configuration())
    }

    fn run(&self, words: &[&str], path: &Path) -> Result<String, Box<dyn Error>> {
        let output = Command::new(&self.program).args(words).arg(path).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`anbiq {}` failed: {said}", words.join(" ")).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What cannot be removed stays where the system keeps what is temporary.
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_dir_all(&self.ledger_dir);
    }
}

/// The configuration: as `anbiq init` writes it, but for the teachers, the plans, and room for as many requests as are
/// to be measured.
fn configuration(mock_url: &str, ledger_dir: &Path) -> String {
    let mut text = format!(
        "[journal]\npath = \"journal\"\nid = \"bench\"\n\n[ledger]\npath = '{}'\n\n\
         [serve]\nlisten = \"127.0.0.1:0\"\nmax_in_flight = 60000\nrequest_timeout_ms = 300000\ndrain_ms = 10000\n",
        ledger_dir.join("ledger.db").display()
    );
    for model in MODELS {
        let terms = terms_file(model);
        text += &format!(
            "\n[[model]]\nname = \"{model}\"\nurl = \"{mock_url}\"\nterms = \"{terms}\"\n\
             prices = {{ input = \"0.50\", output = \"2.00\" }}\n"
        );
    }
    for (plan, share) in PLANS {
        text += &format!("\n[[plan]]\nid = \"{plan}\"\ntexts = \"twinned\"\ntwin_share = {share}\nmax_tokens = 1024\n");
    }
    text
}

fn terms_file(model: &str) -> String {
    format!("terms-{model}.json")
}
