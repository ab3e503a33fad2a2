//! How many rows a second are imported and read back, and in how much memory: `cargo xtask bench import [ROWS] [DIR]`.
//!
//! The rows are LiteLLM's, generated from a seed: with prompts of about 60 words, and without any. Rates are by the clock
//! and, since machines are shared, by the processor's time as well. The peak is that of the whole process so far, as the
//! kernel counts it, so the smallest run stands first.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anbiq_domain::Seeded;
use anbiq_import::{Import, Options, Target, import};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

/// Accounts between which the rows are divided.
const ACCOUNTS: usize = 20_000;
const WORDS: [&str; 16] = [
    "river", "stone", "write", "list", "explain", "three", "market", "letter", "number", "garden", "why", "table",
    "short", "story", "answer", "please",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let rows: usize = words.next().map_or(Ok(1_000_000), |rows| rows.parse())?;
    let parent = words.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = parent.join(format!("anbiq-import-rate-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let done = run(rows, &folder);
    fs::remove_dir_all(&folder)?;
    done
}

fn run(rows: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    for (name, rows, prompts, gzip) in [
        ("a tenth, without prompts", rows / 10, false, false),
        ("without prompts", rows, false, false),
        ("with prompts", rows, true, false),
        ("with prompts, gzip", rows, true, true),
    ] {
        let log = folder.join("log");
        let bytes = generate(&log, rows, prompts, gzip)?;
        let target = Target { out: folder.join("imported"), key: [7; 32], names: None };
        let (start, worked) = (Instant::now(), processor());
        let manifest = import(std::slice::from_ref(&log), &Options::default(), &target, &mut |_| {})?;
        let took = start.elapsed().as_secs_f64();
        let rate = rows as f64 / took;
        let alone = rows as f64 / (processor() - worked);
        let written = manifest.rows.bytes as f64 / rows as f64;
        let megabytes = bytes as f64 / took / 1e6;
        writeln!(
            out,
            "{name:<26} {rows:>9} rows: {rate:>8.0} rows/s ({alone:.0} by processor time), {megabytes:>4.0} MB/s of JSON, {written:>4.0} bytes a row written, peak {}",
            peak()
        )?;
        let (start, worked) = (Instant::now(), processor());
        let mut read = 0_u64;
        for row in Import::open_all(std::slice::from_ref(&target.out))?[0].rows()? {
            row?;
            read += 1;
        }
        let (rate, alone) = (read as f64 / start.elapsed().as_secs_f64(), read as f64 / (processor() - worked));
        writeln!(out, "{:<26} {rate:>8.0} rows/s ({alone:.0} by processor time)", "    read back")?;
        fs::remove_dir_all(&target.out)?;
        fs::remove_file(&log)?;
    }
    Ok(())
}

/// Writes a log and says how many bytes of JSON are in it.
fn generate(path: &Path, rows: usize, prompts: bool, gzip: bool) -> Result<u64, Box<dyn Error>> {
    let mut random = Seeded::new(1).fork("log");
    let file = BufWriter::new(File::create(path)?);
    let mut file: Box<dyn std::io::Write> =
        if gzip { Box::new(GzEncoder::new(file, Compression::fast())) } else { Box::new(file) };
    let mut bytes = 0;
    for place in 0..rows {
        let account = random.below(ACCOUNTS);
        let text: Vec<&str> = (0..60).filter_map(|_| random.pick(&WORDS).copied()).collect();
        let messages = if prompts { json!([{"role": "user", "content": text.join(" ")}]) } else { json!({}) };
        let row = json!({
            "request_id": format!("r{place}"), "call_type": "acompletion", "api_key": format!("{account:064x}"), "spend": 0.00125,
            "total_tokens": 120, "prompt_tokens": 80, "completion_tokens": 40, "startTime": 1_772_409_600_000_i64 + 37 * place as i64,
            "endTime": 1_772_409_600_900_i64 + 37 * place as i64, "request_duration_ms": 900, "model": "openai/m-1", "model_group": "m-1",
            "custom_llm_provider": "openai", "api_base": "https://api.example/v1", "user": "", "metadata": {"status": "success"},
            "cache_hit": "False", "request_tags": ["User-Agent: tool", "User-Agent: tool/1.2"], "team_id": "team", "end_user": "",
            "requester_ip_address": format!("203.{}.{}.7", account % 200, account / 200), "messages": messages, "response": {},
            "status": "success", "proxy_server_request": {"temperature": 0.7, "max_tokens": 512, "stream": false},
        });
        let line = format!("{row}\n");
        bytes += line.len() as u64;
        file.write_all(line.as_bytes())?;
    }
    file.flush()?;
    Ok(bytes)
}

/// Seconds of processor time that this process has had, in steps of a hundredth.
fn processor() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// Most memory that the process has had, as the kernel counts it.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kilobytes.map_or_else(|| "not known".to_owned(), |kilobytes| format!("{:.0} MiB", kilobytes / 1024.0))
}
