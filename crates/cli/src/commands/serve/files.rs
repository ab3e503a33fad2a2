//! How many files the gateway may have open: a connection is one, and so is the connection to the model's server behind it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open whatever the customers do: segments of the journal, the ledger, the listeners, the log.
const OWN: u64 = 512;

/// Raises this process's limit of open files to what the system lets it have, and gives how many connections fit, at most
/// `wanted`: those that do not fit wait in the system's queue, where one that is taken without a file for its answer
/// would fail.
pub(super) fn connections(wanted: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // Where raising is not allowed, what there is has to do.
    let files = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let fit = fitting(files);
    if fit < u64::from(wanted) {
        tracing::warn!(
            files,
            connections = fit,
            "`serve.max_connections` is {wanted}, for which this process may open too few files: raise the limit (`LimitNOFILE`, `ulimit -n`)"
        );
    }
    u32::try_from(fit).map_or(wanted, |fit| fit.min(wanted))
}

/// How many connections a number of files is enough for; no number is no limit.
fn fitting(files: Option<u64>) -> u64 {
    files.map_or(u64::MAX, |files| (files.saturating_sub(OWN) / 2).max(1))
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn a_connection_is_two_files() {
        let fit = [None, Some(65_536), Some(1_024), Some(0)].map(fitting);
        assert_eq!(fit, [u64::MAX, 32_512, 256, 1]);
    }
}
