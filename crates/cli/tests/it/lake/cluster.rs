//! The same questions put to a scheduler and two executors, each a process of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anbiq_lake::QUERIES;
use insta::assert_snapshot;

use super::local::{cases, history, takes};
use super::oracle::Given;
use super::world;
use crate::support::Place;

/// How long a cluster may take to come to anything; it takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A scheduler and its executors, which end with this.
struct Cluster {
    address: String,
    scheduler: Child,
    executors: Vec<Child>,
}

impl Cluster {
    fn start(place: &Place, executors: usize) -> Self {
        let words = format!("lake scheduler --bind 127.0.0.1:0 --executors {executors}");
        let mut scheduler = place.command(&words).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(scheduler.stderr.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        let address = line.strip_prefix("listening on df://").unwrap_or_else(|| panic!("{line}")).to_owned();
        // Whatever it says further is read, so that it never waits for a reader.
        std::thread::spawn(move || said.for_each(drop));
        let mut cluster = Self { executors: Vec::new(), scheduler, address };
        (0..executors).for_each(|_| cluster.add(place));
        cluster.wait();
        cluster
    }

    /// Starts one more executor, in a folder of its own.
    fn add(&mut self, place: &Place) {
        let folder = format!("executor-{}", self.executors.len());
        std::fs::create_dir(place.path(&folder)).unwrap();
        let words = format!("lake executor df://{} --parts 2 --memory 256 --folder {folder}", self.address);
        let started = place.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.executors.push(started);
    }

    /// Waits until as many executors work as were asked for.
    fn wait(&self) {
        let patience = Instant::now();
        while !self.is_ready() {
            assert!(patience.elapsed() < PATIENCE, "the executors did not come");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET /readyz HTTP/1.1\r\nhost: scheduler\r\nconnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        ask().is_ok_and(|text| text.starts_with("HTTP/1.1 200"))
    }

    /// The words that put a question to it.
    fn words(&self, name: &str, words: &str) -> String {
        let about = "--journal journal --imported imported --csv --parts 4 --timeout 300";
        format!("lake run {name} {about} --cluster df://{} {words}", self.address)
    }

    /// SIGKILL, which lets nobody put anything in order.
    fn kill(&mut self, number: usize) {
        self.executors[number].kill().unwrap();
        self.executors[number].wait().unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.executors.iter_mut().chain([&mut self.scheduler]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How many files there are anywhere in `folder`.
fn files(folder: &Path) -> usize {
    let Ok(items) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| if path.is_dir() { files(path) } else { 1 };
    items.flatten().map(|item| count(&item.path())).sum()
}

#[test]
fn a_cluster_answers_as_the_engine_in_the_process_does_also_when_an_executor_is_killed() {
    let exchanges = std::env::var("ANBIQ_PROVE_EXCHANGES").ok().and_then(|number| number.parse().ok()).unwrap_or(4000);
    let place = Place::empty();
    world::write(&place, exchanges);
    let history = history(&place);
    let mut cluster = Cluster::start(&place, 2);
    for query in QUERIES {
        for (given, words) in cases().into_iter().filter(|(_, words)| takes(query, words)) {
            let local =
                place.run(&format!("lake run {} --journal journal --imported imported --csv {words}", query.name));
            let asked = place.run(&cluster.words(query.name, words));
            assert_eq!(asked.code, 0, "{} {words}: {}", query.name, asked.err);
            assert_eq!(asked.out, local.out, "{} {words}", query.name);
            assert_eq!(asked.out, history.answer(query.name, &given), "{} {words}", query.name);
        }
    }

    // One executor is killed while a question is worked on: as soon as there is something that it did for it, and when others
    // read what it did.
    for (number, done) in [(1, 1), (2, 45)] {
        cluster.wait();
        let folder = place.path(&format!("executor-{number}"));
        clear(&folder);
        let mut asking = place.command(&cluster.words("shared", "")).stdout(Stdio::piped()).spawn().unwrap();
        while files(&folder) < done {
            assert!(asking.try_wait().unwrap().is_none(), "executor {number} had no such part in it");
            std::thread::sleep(Duration::from_millis(1));
        }
        cluster.kill(number);
        assert!(asking.try_wait().unwrap().is_none(), "it was answered before: give it more to do");
        let answered = asking.wait_with_output().unwrap();
        assert!(answered.status.success());
        let answer = String::from_utf8(answered.stdout).unwrap();
        assert_eq!(answer, history.answer("shared", &Given::default()), "executor {number} killed");
        cluster.add(&place);
    }
    cluster.kill(3);

    // The other one does all the work from then on.
    for query in QUERIES {
        let asked = place.run(&cluster.words(query.name, ""));
        assert_eq!(asked.code, 0, "{}: {}", query.name, asked.err);
        assert_eq!(asked.out, history.answer(query.name, &Given::default()), "{}", query.name);
    }
}

/// Removes what earlier questions left in an executor's folder.
fn clear(folder: &Path) {
    for made in std::fs::read_dir(folder).unwrap() {
        for job in std::fs::read_dir(made.unwrap().path()).unwrap() {
            let job = job.unwrap().path();
            if job.is_dir() { std::fs::remove_dir_all(job).unwrap() } else { std::fs::remove_file(job).unwrap() }
        }
    }
}

#[test]
fn a_scheduler_that_is_not_there_is_named() {
    let place = Place::empty();
    world::write(&place, 60);
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = place.run(&format!("lake run days --journal journal --cluster df://{free}"));
    assert_snapshot!(refused.told().replace(&free.to_string(), "[ADDRESS]"), @r"
    exit 2
    error: no scheduler can be reached at `df://[ADDRESS]`: Connection refused (os error 111)
    hint: `anbiq lake scheduler` starts one, and `anbiq lake executor` those who work for it
    ");
    assert_snapshot!(place.run("lake run days --journal journal --cluster ftp://somewhere").told(), @r"
    exit 2
    error: `ftp://somewhere` is no address of a scheduler
    hint: one looks like `df://127.0.0.1:50050`
    ");
}
