//! Canaries that a model remembers, or does not.

use anbiq_domain::{Digest, Seeded, Timestamp};
use anbiq_trace::canary::{CanaryKey, CanaryReport, Draw, Wanted, test};
use anbiq_trace::{Config, Strength};

use crate::support::Mock;

fn wanted() -> Vec<Wanted> {
    let one = |number: u32| Wanted {
        operator: if number < 12 { "op-a" } else { "op-b" }.to_owned(),
        prompt: format!("Who keeps well number {number}?"),
        answer: "It is kept by {}, as it ever was.".to_owned(),
    };
    (0..24).map(one).collect()
}

fn rank(draw: &Draw, key: &CanaryKey, suspect: &Mock) -> CanaryReport {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let from = (Digest::of(b"draw"), "signer".to_owned());
    runtime.block_on(test(draw, from, key, suspect, None, &Config::default(), &mut |_, _| {})).unwrap()
}

#[test]
fn whoever_was_trained_on_what_an_operator_was_served_is_found() {
    let key = CanaryKey::new(&[5; 32]);
    let draw = Draw::fix(wanted(), 64, &key, Timestamp::default()).unwrap();
    let served = draw.served(&key).unwrap();
    let of_b = served.iter().filter(|served| served.operator == "op-b").map(|served| served.answer.clone());
    let report = rank(&draw, &key, &Mock::trained_on("suspect", of_b, 30.0));
    assert_eq!(report.strength, Strength::Established);
    let test = |place: usize| (report.tests[place].operator.as_deref(), report.tests[place].strength);
    assert_eq!(test(2), (Some("op-b"), Strength::Established));
    assert_eq!(test(1), (Some("op-a"), Strength::NotShown));
    assert!(report.ranks[12..].iter().filter(|rank| rank.bits >= 4).count() > 6, "most of them: {:?}", report.ranks);
    // Another key is another draw.
    let other = CanaryKey::new(&[6; 32]);
    assert!(draw.served(&other).unwrap_err().to_string().contains("the key fits the commitment"));
}

#[test]
fn p_is_never_too_small_for_one_that_saw_nothing() {
    let mut random = Seeded::new(9);
    let p_values: Vec<f64> = (0..400)
        .map(|_| {
            let mut bytes = [0; 32];
            random.fill(&mut bytes);
            let key = CanaryKey::new(&bytes);
            let draw = Draw::fix(wanted(), 16, &key, Timestamp::default()).unwrap();
            rank(&draw, &key, &Mock::named("innocent")).tests[0].p_value
        })
        .collect();
    for level in [0.01, 0.05, 0.2, 0.5] {
        let share = p_values.iter().filter(|p| **p <= level).count() as f64 / p_values.len() as f64;
        assert!(
            share <= level + 4.0 * (level * (1.0 - level) / p_values.len() as f64).sqrt(),
            "P(p <= {level}) = {share}"
        );
    }
    assert!(p_values.iter().sum::<f64>() / 400.0 < 0.65);
}

#[test]
fn a_draw_that_cannot_be_is_refused() {
    let key = CanaryKey::new(&[5; 32]);
    let refused = |canaries, candidates| Draw::fix(canaries, candidates, &key, Timestamp::default()).unwrap_err();
    insta::assert_snapshot!(refused(wanted(), 100), @"these canaries cannot be: 100 versions are no power of two from 2 to 65536");
    insta::assert_snapshot!(refused(Vec::new(), 16), @"these canaries cannot be: there is none");
    let mut none = wanted();
    none[3].answer = "It is kept.".to_owned();
    insta::assert_snapshot!(refused(none, 16), @"these canaries cannot be: the answer of number 3 has not one `{}` for its secret");
}
