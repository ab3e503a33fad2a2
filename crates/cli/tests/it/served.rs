//! A running gateway of which everything is seen: what it says, what it answers, how it ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::Place;

/// A gateway; stops when dropped.
pub(crate) struct Served {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
    /// Where customers and where its operator reach it.
    pub(crate) doors: [String; 2],
}

impl Served {
    /// Starts the gateway of `place`, whose configuration names port 0 twice, with more in its environment.
    pub(crate) fn start(place: &Place, words: &str, environment: &[(&str, &str)]) -> Self {
        Self::of(place.command(words), environment)
    }

    /// Starts it in another way.
    pub(crate) fn of(mut command: Command, environment: &[(&str, &str)]) -> Self {
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::default();
        let readers = vec![
            follow(child.stdout.take().unwrap(), Arc::clone(&said)),
            follow(child.stderr.take().unwrap(), Arc::clone(&said)),
        ];
        let mut served = Self { child, said, readers, doors: Default::default() };
        let begun = Instant::now();
        served.doors = ["serving on http://", "admin API on http://"].map(|before| {
            loop {
                let said = served.said();
                if let Some((_, rest)) = said.split_once(before)
                    && let Some(end) = rest.find(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter))
                {
                    break rest[..end].to_owned();
                }
                assert!(begun.elapsed() < Duration::from_secs(120), "the gateway does not serve: {said}");
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        served
    }

    /// Its number among the processes of the system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it said so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end: the exit code, and all that it said.
    pub(crate) fn ended(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (code, self.said())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(mut from: impl Read + Send + 'static, to: Arc<Mutex<Vec<u8>>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            to.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
    })
}

/// Sends a request with a body and reads all of the answer, head and body.
pub(crate) fn ask(door: &str, line: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(door).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
