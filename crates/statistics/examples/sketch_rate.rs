//! How long the sketch of a prompt takes: `cargo xtask bench sketch`.

use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use anbiq_domain::{Prompt, Seeded};
use anbiq_statistics::sketch::Sketcher;

fn main() -> std::io::Result<()> {
    let sketcher = Sketcher::new(&[7; 32]);
    let mut random = Seeded::new(1);
    let mut out = std::io::stdout();
    for words in [20, 200, 2_000, 20_000] {
        let prompts: Vec<Prompt> = (0..50).map(|_| prompt(words, &mut random)).collect();
        let bytes = prompts.iter().map(|prompt| prompt.last_text().len()).sum::<usize>() / prompts.len();
        let rounds = 200_000 / words;
        let start = Instant::now();
        for prompt in prompts.iter().cycle().take(rounds) {
            black_box(sketcher.sketch(black_box(prompt)));
        }
        let micros = start.elapsed().as_secs_f64() * 1e6 / rounds as f64;
        writeln!(out, "{words:>6} words, {bytes:>7} bytes: {micros:>8.1} microseconds a sketch")?;
    }
    Ok(())
}

fn prompt(words: usize, random: &mut Seeded) -> Prompt {
    let word = |random: &mut Seeded| {
        (0..2 + random.below(9)).map(|_| char::from(b'a' + random.below(26) as u8)).collect::<String>()
    };
    Prompt::user((0..words).map(|_| word(random)).collect::<Vec<_>>().join(" "))
}
