//! Where arrival times come from: real traces of a service, or draws.

use std::path::Path;

use anbiq_domain::Seeded;

use crate::LabError;

/// Answers from this many tokens on count as long.
const LONG: u32 = 120;

/// Longest trace file that is read: a limit against a file that is none.
const LARGEST: u64 = 64 << 20;

/// One arrival after another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// Time since the arrival before, as a multiple of the mean.
    pub gap: f64,
    /// Is a long answer asked for?
    pub long: bool,
    /// Tokens of the request and of the answer, where the trace has them.
    pub tokens: Option<(u32, u32)>,
}

/// A source of arrivals.
#[derive(Debug)]
pub struct Arrivals {
    /// Of people; empty where none was found.
    conversation: Vec<Arrival>,
    /// Of programs; empty where none was found.
    code: Vec<Arrival>,
}

/// Whose arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Somebody who types.
    Person,
    /// Software.
    Program,
}

impl Arrivals {
    /// Reads the traces under `folder` where there are any.
    ///
    /// # Errors
    /// A trace is there but cannot be read.
    pub fn open(folder: Option<&Path>) -> Result<Self, LabError> {
        let read = |file: &str| match folder {
            Some(folder) => read_trace(&folder.join("watch").join(file)),
            None => Ok(Vec::new()),
        };
        Ok(Self { conversation: read("conv_2023.csv")?, code: read("code_2023.csv")? })
    }

    /// What they were made of, in words.
    pub fn source(&self) -> &'static str {
        match (self.conversation.is_empty(), self.code.is_empty()) {
            (true, true) => "generated arrivals",
            (false, false) => {
                "the gaps between requests of an Azure LLM service, November 2023, rescaled to each account"
            }
            _ => "in part the gaps between requests of an Azure LLM service, November 2023, in part generated arrivals",
        }
    }

    /// `count` arrivals in a row, from a random place of the trace so that bursts stay together.
    pub fn take(&self, caller: Caller, count: usize, random: &mut Seeded) -> Vec<Arrival> {
        let trace = match caller {
            Caller::Person => &self.conversation,
            Caller::Program => &self.code,
        };
        if trace.is_empty() {
            return (0..count).map(|_| draw(random)).collect();
        }
        let start = random.below(trace.len());
        trace.iter().cycle().skip(start).take(count).copied().collect()
    }
}

/// A gap of a process with bursts: one in three is short.
fn draw(random: &mut Seeded) -> Arrival {
    let gap = if random.chance(0.33) { 0.15 } else { 1.42 } * random.exponential();
    Arrival { gap, long: random.chance(0.5), tokens: None }
}

/// The rows of a trace, or none where the file is not there.
fn read_trace(path: &Path) -> Result<Vec<Arrival>, LabError> {
    let failed = |source| LabError::Read { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
        Ok(facts) if facts.len() > LARGEST => return Err(failed(std::io::Error::other("it is too large for a trace"))),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let rows: Option<Vec<(f64, u32, u32)>> = text.lines().skip(1).filter(|line| !line.is_empty()).map(row).collect();
    let malformed = || failed(std::io::Error::other("expected lines of TIMESTAMP,ContextTokens,GeneratedTokens"));
    Ok(scaled(&rows.ok_or_else(malformed)?))
}

/// Seconds within the day, tokens of the request and of the answer.
fn row(line: &str) -> Option<(f64, u32, u32)> {
    let mut fields = line.split(',');
    let (_, clock) = fields.next()?.split_once(' ')?;
    let mut parts = clock.split(':');
    let mut part = || parts.next()?.parse::<f64>().ok();
    let (hours, minutes, seconds) = (part()?, part()?, part()?);
    let mut tokens = || fields.next()?.trim().parse().ok();
    Some((hours * 3600.0 + minutes * 60.0 + seconds, tokens()?, tokens()?))
}

/// Gaps as multiples of their mean.
fn scaled(rows: &[(f64, u32, u32)]) -> Vec<Arrival> {
    let span = match (rows.first(), rows.last()) {
        (Some(first), Some(last)) if last.0 > first.0 => last.0 - first.0,
        _ => return Vec::new(),
    };
    let mean = span / (rows.len() - 1) as f64;
    let arrival = |pair: &[(f64, u32, u32)]| match pair {
        [one, two] => {
            Some(Arrival { gap: ((two.0 - one.0) / mean).max(0.0), long: two.2 >= LONG, tokens: Some((two.1, two.2)) })
        }
        _ => None,
    };
    rows.windows(2).filter_map(arrival).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_becomes_gaps() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("watch")).unwrap();
        let rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.0000000,1,5\n\
                    2023-11-16 18:00:01.0000000,1,500\n2023-11-16 18:00:04.0000000,1,7\n";
        std::fs::write(folder.path().join("watch/conv_2023.csv"), rows).unwrap();
        let arrivals = Arrivals::open(Some(folder.path())).unwrap();
        let expected = [
            Arrival { gap: 0.5, long: true, tokens: Some((1, 500)) },
            Arrival { gap: 1.5, long: false, tokens: Some((1, 7)) },
        ];
        assert_eq!(arrivals.conversation, expected);
        assert!(arrivals.source().starts_with("in part"));
        assert_eq!(arrivals.take(Caller::Person, 5, &mut Seeded::new(1)).len(), 5);

        std::fs::write(folder.path().join("watch/conv_2023.csv"), "a\nb\n").unwrap();
        assert_eq!(Arrivals::open(Some(folder.path())).unwrap_err().code(), "file_unreadable");
        assert_eq!(Arrivals::open(None).unwrap().source(), "generated arrivals");
    }
}
