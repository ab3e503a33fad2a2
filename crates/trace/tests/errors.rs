//! Rare answers that are shared: nothing is shown of models that err by themselves, however many questions there are.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use anbiq_domain::Seeded;
use anbiq_trace::controls::roles;
use anbiq_trace::errors::{Answered, compare};

/// The p-value of a suspect that has `share` of its teacher's answers, among 19 families that err by themselves.
fn p_value(world: u64, share: f64) -> f64 {
    let mut random = Seeded::new(world).fork("errors");
    let mut table = "teacher\tteacher\tT\nsuspect\tsuspect\tS\n".to_owned();
    let names: Vec<String> = (0..19).map(|number| format!("control-{number}")).collect();
    names.iter().for_each(|name| table += &format!("{name}\tcontrol\tF{name}\n"));
    let mut answered = Answered::default();
    let mut of_teacher = Vec::new();
    for model in ["teacher", "suspect"].into_iter().chain(names.iter().map(String::as_str)) {
        // Models differ in how they err, which is what varies between them and not between questions.
        let bent = random.below(6);
        for prompt in 0..150 {
            let own = format!("answer {}", random.below(6 + bent));
            let answer = match model {
                "teacher" => {
                    of_teacher.push(own.clone());
                    own
                }
                "suspect" if random.chance(share) => of_teacher[prompt].clone(),
                _ => own,
            };
            answered.add(model, &format!("question {prompt}"), &answer);
        }
    }
    let report = compare(&answered, &roles(&table).unwrap(), "T").unwrap();
    report.findings[0].among.by_family.p
}

#[test]
fn under_the_null_every_rank_is_as_probable() {
    let worlds = 400;
    let p_values: Vec<f64> = (0..worlds).map(|world| p_value(world, 0.0)).collect();
    // Ties go against the suspicion, so there are fewer below each level than that many, and not far fewer.
    for twentieths in [1, 2, 5, 10] {
        let level = f64::from(twentieths) / 20.0;
        let below = p_values.iter().filter(|p| **p <= level + 1e-9).count() as f64 / worlds as f64;
        let deviation = (level * (1.0 - level) / worlds as f64).sqrt();
        assert!(below <= level + 4.0 * deviation && below >= level - 6.0 * deviation, "{level}: {below}");
    }
    assert!((0..20).all(|world| p_value(world, 0.5) <= 0.05 + 1e-9));
}
