//! What was measured, for a person and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use anbiq_lab::load::{Histogram, Outcome};
use serde::Serialize;

use crate::usage::Usage;

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// How many processors all three processes share.
    processors: usize,
    /// A durable write of a kilobyte on the journal's disk.
    fsync_ms: Percentiles,
    pub(crate) rows: Vec<Row>,
    pub(crate) idle: Option<Idle>,
    /// What `anbiq journal verify` says at the end.
    pub(crate) journal: String,
}

/// One load, directly and through the gateway.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    plan: String,
    stream: bool,
    /// Requests a second that were planned.
    offered: f64,
    direct: Side,
    gateway: Side,
    /// The percentiles through the gateway less those without it.
    added: Times,
    /// Processor time of the gateway for each answered request.
    cpu_us: f64,
    /// Share of one processor that the gateway kept busy.
    cpu_share: f64,
    resident_mib: f64,
    peak_mib: f64,
    /// Growth of the journal for each answered request.
    journal_bytes: f64,
    /// Growth of the ledger's files for each answered request; its log is written again and again without growing.
    ledger_bytes: f64,
    /// Written to the disk for each answered request, in whole pages, by the journal and the ledger.
    disk_bytes: f64,
}

/// What became of a load.
#[derive(Debug, Serialize)]
struct Side {
    /// Answers a second.
    achieved: f64,
    answered: u64,
    dropped: u64,
    failed: BTreeMap<String, u64>,
    times: Times,
    /// How late the generator sent.
    generator_lag_ms: Percentiles,
}

/// Times of a load, in milliseconds. Those after the first are of streams only.
#[derive(Debug, Serialize)]
struct Times {
    total: Percentiles,
    first_text: Percentiles,
    /// How long a chunk is on its way from the server.
    way: Percentiles,
    /// From one chunk to the next.
    gap: Percentiles,
    /// From the last text to the end.
    tail: Percentiles,
}

/// How many times of a stream are shown; of a whole answer it is the first of them.
const STREAM_TIMES: usize = 5;

#[derive(Debug, Clone, Copy, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Memory with silent streams.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    streams: usize,
    failed: usize,
    /// How long it took to open them.
    opening_seconds: f64,
    resident_before_mib: f64,
    resident_mib: f64,
    kib_per_stream: f64,
}

impl Report {
    pub(crate) fn new(fsync: &Histogram) -> Self {
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            fsync_ms: Percentiles::of(fsync),
            rows: Vec::new(),
            idle: None,
            journal: String::new(),
        }
    }
}

impl Row {
    pub(crate) fn new(
        offered: f64,
        stream: bool,
        plan: &str,
        direct: &Outcome,
        gateway: &Outcome,
        usage: Usage,
    ) -> Self {
        let each = |total: f64| total / gateway.answered.max(1) as f64;
        let (direct, through) = (Side::of(direct), Side::of(gateway));
        Self {
            plan: plan.to_owned(),
            stream,
            offered,
            added: through.times.less(&direct.times),
            direct,
            cpu_us: each(usage.cpu_seconds * 1e6),
            cpu_share: usage.cpu_seconds / gateway.elapsed.as_secs_f64().max(1e-9),
            resident_mib: mib(usage.resident_kib),
            peak_mib: mib(usage.peak_kib),
            journal_bytes: each(usage.journal_bytes as f64),
            ledger_bytes: each(usage.ledger_bytes as f64),
            disk_bytes: each(usage.disk_bytes as f64),
            gateway: through,
        }
    }
}

impl Side {
    fn of(outcome: &Outcome) -> Self {
        Self {
            achieved: outcome.achieved(),
            answered: outcome.answered,
            dropped: outcome.dropped,
            failed: outcome.failed.clone(),
            times: Times {
                total: Percentiles::of(&outcome.latency),
                first_text: Percentiles::of(&outcome.first),
                way: Percentiles::of(&outcome.way),
                gap: Percentiles::of(&outcome.gap),
                tail: Percentiles::of(&outcome.tail),
            },
            generator_lag_ms: Percentiles::of(&outcome.lag),
        }
    }
}

impl Times {
    fn less(&self, other: &Self) -> Self {
        Self {
            total: self.total.less(other.total),
            first_text: self.first_text.less(other.first_text),
            way: self.way.less(other.way),
            gap: self.gap.less(other.gap),
            tail: self.tail.less(other.tail),
        }
    }

    const fn named(&self) -> [(&'static str, Percentiles); STREAM_TIMES] {
        [
            ("total", self.total),
            ("first text", self.first_text),
            ("each chunk", self.way),
            ("chunk to chunk", self.gap),
            ("last text to end", self.tail),
        ]
    }
}

impl Percentiles {
    fn of(histogram: &Histogram) -> Self {
        let at = |share| histogram.percentile(share).unwrap_or_default() as f64 / 1e6;
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }

    fn less(self, other: Self) -> Self {
        Self { p50: self.p50 - other.p50, p99: self.p99 - other.p99, p999: self.p999 - other.p999 }
    }
}

impl Idle {
    pub(crate) fn new(streams: usize, failed: usize, opening_seconds: f64, before: Usage, after: Usage) -> Self {
        let grown = after.resident_kib.saturating_sub(before.resident_kib);
        Self {
            streams,
            failed,
            opening_seconds,
            resident_before_mib: mib(before.resident_kib),
            resident_mib: mib(after.resident_kib),
            kib_per_stream: grown as f64 / streams.max(1) as f64,
        }
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} processors for the load, the model's server and the gateway together", self.processors)?;
        writeln!(f, "a durable write of 1 kB takes {} ms (P50 / P99 / P99.9)", self.fsync_ms)?;
        for row in &self.rows {
            write!(f, "\n{row}")?;
        }
        if let Some(idle) = &self.idle {
            writeln!(
                f,
                "\n{} silent streams, opened in {:.1} s ({} failed): {:.1} MiB resident, {:.1} before, {:.1} KiB each",
                idle.streams,
                idle.opening_seconds,
                idle.failed,
                idle.resident_mib,
                idle.resident_before_mib,
                idle.kib_per_stream
            )?;
        }
        writeln!(f, "\njournal: {}", self.journal)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.stream { "streamed" } else { "whole" };
        writeln!(f, "{} requests/s, {kind}, {}; times in ms, P50 / P99 / P99.9", self.offered, self.plan)?;
        let shown = if self.stream { STREAM_TIMES } else { 1 };
        let sides = [&self.added, &self.gateway.times, &self.direct.times].map(Times::named);
        for place in 0..shown {
            let [(name, added), (_, through), (_, direct)] = sides.map(|times| times[place]);
            writeln!(f, "  {name:17} added {added}   gateway {through}   direct {direct}")?;
        }
        for (name, side) in [("gateway", &self.gateway), ("direct", &self.direct)] {
            let (achieved, answered, dropped, lag) =
                (side.achieved, side.answered, side.dropped, side.generator_lag_ms);
            write!(f, "  {name:17} {achieved:.0}/s, {answered} answered, {dropped} not sent, sent late by {lag}")?;
            for (code, count) in &side.failed {
                write!(f, ", {count} x {code}")?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "  gateway's cost    {:.0} us of processor a request ({:.0} % of one), {:.1} MiB resident, {:.1} at most",
            self.cpu_us,
            self.cpu_share * 100.0,
            self.resident_mib,
            self.peak_mib
        )?;
        writeln!(
            f,
            "  bytes a request   journal {:.0}, ledger's growth {:.0}, disk {:.0}",
            self.journal_bytes, self.ledger_bytes, self.disk_bytes
        )
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} / {:.2} / {:.2}", self.p50, self.p99, self.p999)
    }
}
