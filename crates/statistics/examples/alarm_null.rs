//! Simulates the null hypothesis of alarms: many streams whose scores keep their bounds, and what share of worlds has a false
//! alarm within the horizon, beside what is guaranteed. Run by `cargo xtask prove alarms [--worlds 200] [--streams 1000] [--seed 1]`.
//!
//! Three kinds of honest streams: scores at their bound, independent; scores at their bound that depend on the ones before so as to come
//! in long runs; and scores below it. The guarantee is for all of them, and for any mixture.

use std::io::{self, Write as _};

use anbiq_domain::Seeded;
use anbiq_statistics::detector::{Detector, wager};
use anbiq_statistics::ebh;

const BOUND: f64 = 0.8;
const STAKE: f64 = 0.5;
/// Looks of the horizon, and exchanges between two of them.
const LOOKS: usize = 90;
const EXCHANGES: usize = 20;

/// The next score of a stream of some kind, and what it depends on.
fn score(kind: usize, run: &mut f64, random: &mut Seeded) -> f64 {
    match kind {
        0 => f64::from(u8::from(random.chance(BOUND))),
        // The spread is drawn anew now and then; the mean is always the bound.
        1 => {
            if random.chance(0.05) {
                *run = random.unit() * (1.0 - BOUND);
            }
            if random.chance(0.5) { BOUND + *run } else { BOUND - *run }
        }
        _ => f64::from(u8::from(random.chance(0.7))),
    }
}

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str, default: u64| {
        let place = words.iter().position(|word| word == name);
        place.and_then(|place| words.get(place + 1)?.parse().ok()).unwrap_or(default)
    };
    let (worlds, streams) = (option("--worlds", 200), option("--streams", 1_000) as usize);
    let mut random = Seeded::new(option("--seed", 1));
    writeln!(out, "{worlds} worlds of {streams} honest streams, {LOOKS} looks, {EXCHANGES} exchanges between two")?;
    writeln!(out, "guaranteed  worlds with a false alarm  mean detector / looks")?;
    for bound in [0.5, 0.1, 0.01] {
        let level = bound / LOOKS as f64;
        let (mut wrong, mut mean) = (0_u64, 0.0);
        for _ in 0..worlds {
            let mut detectors = vec![(Detector::new(), 0.0); streams];
            let mut alarmed = false;
            for _ in 0..LOOKS {
                for (stream, (detector, run)) in detectors.iter_mut().enumerate() {
                    let won = (0..EXCHANGES).map(|_| wager(score(stream % 3, run, &mut random), BOUND, STAKE)).sum();
                    detector.push(won);
                }
                let ln: Vec<f64> = detectors.iter().map(|(detector, _)| detector.ln_value()).collect();
                alarmed |= !ebh::reject(&ln, level).is_empty();
            }
            wrong += u64::from(alarmed);
            let sum: f64 = detectors.iter().step_by(3).map(|(detector, _)| detector.ln_value().exp()).sum();
            mean += sum / streams.div_ceil(3) as f64 / LOOKS as f64;
        }
        writeln!(out, "{bound:>10}  {:>25.4}  {:>21.3}", wrong as f64 / worlds as f64, mean / worlds as f64)?;
    }
    Ok(())
}
