//! What the work took.

use anbiq_domain::{Money, Usage};
use serde::{Deserialize, Serialize};

/// What a student cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Tokens of the teacher.
    pub usage: Usage,
    /// What they cost by the teacher's price list, where one is given.
    pub price: Option<Money>,
    /// What the teacher's answers to the tasks cost besides, where its server was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Money>,
    /// Tokens that passed through the student in training, all epochs and stages together.
    pub training_tokens: u64,
    /// Seconds on the wall, training and evaluation of this run.
    pub wall_seconds: f64,
    /// Seconds of processors of this run, where the system says.
    pub cpu_seconds: Option<f64>,
    /// Seconds of processors of all stages, those taken from the store too.
    pub stage_cpu_seconds: f64,
}

/// Linux counts the processor time of a process in hundredths of a second, whatever the kernel's own tick is.
const TICKS_A_SECOND: f64 = 100.0;

/// Seconds of processors that this process used so far, all threads together; `None` where the system does not say.
pub(crate) fn cpu_seconds() -> Option<f64> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Seconds since an earlier value of [`cpu_seconds`].
pub(crate) fn cpu_since(earlier: Option<f64>) -> Option<f64> {
    Some((cpu_seconds()? - earlier?).max(0.0))
}

/// proc(5): fields 14 and 15 are the user and system time. The second, the name in parentheses, may hold anything.
fn parse(stat: &str) -> Option<f64> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read() {
        let stat = "17 (a ) name) R 1 17 17 0 -1 4194304 95 0 0 0 250 50 3 4 20 0 1 0 99 1 1";
        assert_eq!(parse(stat), Some(3.0));
        assert_eq!(parse("nonsense"), None);
    }
}
