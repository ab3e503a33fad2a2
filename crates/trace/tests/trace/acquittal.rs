//! What the pairs exclude.

use anbiq_domain::{Digest, OperatorId};
use anbiq_trace::{
    Alternative, Collected, Config, Protocol, Report, Selection, Statistic, Strength, items, recheck, render_text,
};

use crate::support::{Mock, collected, exchanges, journal, selection, served, trace};

/// Students of what was served to `b`, each with a memory of its own.
fn students(collected: &Collected, count: u32) -> Vec<(Digest, Report)> {
    let student = |number: u32| {
        let by = 3.0 + f64::from(number % 7) * 0.5;
        let model = Mock::trained_on(format!("student-{number}").leak(), served(collected, "b"), by);
        let report = trace(collected, &model, &[], &Config::default()).unwrap();
        (Digest::of(&number.to_le_bytes()), report)
    };
    (0..count).map(student).collect()
}

fn acquitting(collected: &Collected, students: &[(Digest, Report)]) -> Config {
    let like = Protocol::fix(collected, "suspect", "teacher", Vec::new(), &Config::default()).unwrap();
    Config { alternative: Some(Alternative::of(students, &like).unwrap()), ..Config::default() }
}

#[test]
fn an_innocent_suspect_is_acquitted_of_training_like_that_of_the_students() {
    let collected = collected(27);
    let students = students(&collected, 20);
    let config = acquitting(&collected, &students);
    let report = trace(&collected, &Mock::named("innocent"), &[], &config).unwrap();
    let text = render_text(&report);
    assert_eq!(report.verdict.strength, Strength::Contradicted, "{text}");
    assert!(text.contains("Verdict: CONTRADICTED") && text.contains("To be excluded: "), "{text}");
    let acquittal = report.acquittal.as_ref().unwrap();
    assert_eq!(acquittal.bounds.len(), 3);
    assert!((acquittal.p_students - 1.0 / 21.0).abs() < 1e-12 && acquittal.p_pairs < 1e-3);
    // The bound is that of Clopper and Pearson with 99.9 % on one side.
    assert!(acquittal.bounds.iter().all(|bound| bound.upper < acquittal.win_rate), "{acquittal:?}");
    assert_eq!(recheck(&report), Ok(()));
    let changes: [fn(&mut Report); 3] = [
        |report| report.acquittal.as_mut().unwrap().bounds[1].preferred -= 1,
        |report| report.protocol.alternative.as_mut().unwrap().students[3].win_rate = 0.51,
        |report| report.acquittal = None,
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut changed = report.clone();
        change(&mut changed);
        assert!(recheck(&changed).is_err(), "change {place}");
    }

    // One that was trained is not acquitted, nor is anybody by 18 students: the chance of a weaker one is then 1 in 19.
    let guilty = Mock::trained_on("guilty", served(&collected, "a"), 4.0);
    let guilty = trace(&collected, &guilty, &[], &config).unwrap();
    assert_eq!(guilty.verdict.strength, Strength::Established);
    assert!(!guilty.acquittal.unwrap().excluded);
    let few = acquitting(&collected, &students[..18]);
    let report = trace(&collected, &Mock::named("innocent"), &[], &few).unwrap();
    assert_eq!(report.verdict.strength, Strength::NotShown);
    assert!(report.acquittal.unwrap().p_pairs < 1e-3);
}

#[test]
fn at_most_the_weakest_of_like_students_could_be_acquitted() {
    let collected = collected(22);
    let students = students(&collected, 21);
    let all = acquitting(&collected, &students);
    let mut acquitted = 0;
    for (left_out, (_, own)) in students.iter().enumerate() {
        let mut config = all.clone();
        config.alternative.as_mut().unwrap().students.remove(left_out);
        let by = 3.0 + (left_out % 7) as f64 * 0.5;
        let name = own.protocol.suspect.clone().leak();
        let again = trace(&collected, &Mock::trained_on(name, served(&collected, "b"), by), &[], &config).unwrap();
        let acquittal = again.acquittal.as_ref().unwrap();
        acquitted += usize::from(acquittal.p_students <= 0.05);
        // The weakest memory is at the limit of what so few pairs establish.
        let shown = matches!(again.verdict.strength, Strength::Established | Strength::Strong);
        assert!(!acquittal.excluded && shown, "{left_out}: {}", render_text(&again));
    }
    assert!(acquitted <= 1, "{acquitted}");
}

#[test]
fn few_pairs_exclude_nothing_and_cancelled_ones_count_as_preferred() {
    let mut few = exchanges(23);
    few.truncate(120);
    for exchange in few.iter_mut().filter(|exchange| exchange.account.as_str() == "a1") {
        exchange.outcome = anbiq_domain::Outcome::Cancelled;
    }
    let collected = items::from_journal(journal(few), &selection()).unwrap();
    let students = students(&collected, 20);
    let config = acquitting(&collected, &students);
    let report = trace(&collected, &Mock::named("innocent"), &[], &config).unwrap();
    let acquittal = report.acquittal.as_ref().unwrap();
    let cancelled = report.all_traffic.against as u64;
    assert!(cancelled > 0);
    assert_eq!(acquittal.bounds[0].preferred, report.all_traffic.wins as u64 + cancelled);
    assert_eq!(report.verdict.strength, Strength::NotShown, "{}", render_text(&report));
    // Operators with too few pairs are named.
    let mut fewer = exchanges(23);
    fewer.retain(|exchange| exchange.account.as_str() != "a1" && exchange.account.as_str() != "a2");
    fewer.extend(exchanges(24).into_iter().filter(|exchange| exchange.account.as_str() == "a1").take(5));
    let collected = items::from_journal(journal(fewer), &selection()).unwrap();
    let students = self::students(&collected, 19);
    let report = trace(&collected, &Mock::named("innocent"), &[], &acquitting(&collected, &students)).unwrap();
    let not_covered = &report.acquittal.as_ref().unwrap().not_covered;
    assert_eq!(not_covered.iter().map(OperatorId::as_str).collect::<Vec<_>>(), ["op-a"]);
    assert!(render_text(&report).contains("too few pairs: NOT excluded"));
}

#[test]
fn students_that_cannot_be_compared_are_refused() {
    let collected = collected(25);
    let students = students(&collected, 2);
    let like = Protocol::fix(&collected, "suspect", "teacher", Vec::new(), &Config::default()).unwrap();
    let refused = |students: &[(Digest, Report)], like: &Protocol| Alternative::of(students, like).unwrap_err();
    let twice = [students[0].clone(), students[0].clone()];
    insta::assert_snapshot!(refused(&twice, &like), @"the calibration student `student-0` cannot be compared with: it is given twice");
    let other = Config { statistic: Statistic::MinusTeacher, ..Config::default() };
    let other = Protocol::fix(&collected, "suspect", "teacher", Vec::new(), &other).unwrap();
    insta::assert_snapshot!(refused(&students, &other), @"the calibration student `student-0` cannot be compared with: it was traced against another teacher, with another statistic or other controls");
    let elsewhere = items::from_journal(journal(exchanges(26)), &Selection::default()).unwrap();
    let elsewhere = Protocol::fix(&elsewhere, "suspect", "teacher", Vec::new(), &Config::default()).unwrap();
    insta::assert_snapshot!(refused(&students, &elsewhere), @"the calibration student `student-0` cannot be compared with: it was traced over other pairs, or pairs of other operators or periods");
    let mut changed = students.clone();
    changed[1].1.all_traffic.win_rate = 0.5;
    let error = refused(&changed, &like);
    assert!(error.to_string().contains("`all_traffic.win_rate` is recorded as 0.5"), "{error}");
    assert_eq!(error.code(), "calibration_differs");
}
