//! A short turn of every fuzz target, the same one every time; `cargo xtask fuzz` goes on for longer.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../examples/fuzz/mutate.rs"]
mod mutate;
#[path = "../examples/fuzz/targets.rs"]
mod targets;

use mutate::Mutator;
use targets::{TARGETS, guarded};

#[test]
fn every_promise_is_kept() {
    for target in TARGETS {
        let mut mutator = Mutator::new(target, 7).unwrap();
        let mut check = (target.prepare)().unwrap();
        // A journal is files; the others are memory.
        let inputs = if target.name == "journal" { 60 } else { 3000 };
        for _ in 0..inputs {
            let input = mutator.next();
            assert_eq!(guarded(&mut check, &input), Ok(()), "{}: {:?}", target.name, String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn a_seed_fixes_the_inputs() {
    for target in TARGETS {
        let inputs = |seed| {
            let mut mutator = Mutator::new(target, seed).unwrap();
            (0..100).map(|_| mutator.next()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }
}
