//! The standings of `anbiq lab watch` without the rest of the program: `cargo xtask bench watch [--quick] [--large] [--brief]
//! [--seed N] [--seeds K] [--data DIR] [--out FILE]`.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

use anbiq_arena::{Plan, contest, render_text};

fn main() -> Result<(), Box<dyn Error>> {
    let mut plan = Plan {
        seed: 1,
        seeds: 1,
        quick: false,
        large: false,
        brief: false,
        data: std::env::var_os("ANBIQ_DATA").map(PathBuf::from),
    };
    let mut out = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
        match word.as_str() {
            "--quick" => plan.quick = true,
            "--large" => plan.large = true,
            "--brief" => plan.brief = true,
            "--seed" => plan.seed = value()?.parse()?,
            "--seeds" => plan.seeds = value()?.parse()?,
            "--data" => plan.data = Some(value()?.into()),
            "--out" => out = Some(PathBuf::from(value()?)),
            _ => return Err(format!("`{word}` is not known").into()),
        }
    }
    let standings = contest(&plan, &mut |words| {
        // Talk; that nobody hears it is no failure.
        let _ = writeln!(std::io::stderr(), "{words}");
    })?;
    if let Some(out) = out {
        std::fs::write(out, serde_json::to_string(&standings)?)?;
    }
    write!(std::io::stdout(), "{}", render_text(&standings))?;
    Ok(())
}
