//! Given answers to a report of their style, with models that are made up.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use anbiq_domain::Seeded;
use anbiq_statistics::conformal;
use anbiq_trace::Strength;
use anbiq_trace::controls::{ControlsError, roles};
use anbiq_trace::style::{Answers, Finding, StyleReport, compare, render_style};
use insta::assert_snapshot;

const COMMON: [&str; 40] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he",
    "this", "are", "or", "his", "from", "at", "which", "but", "have", "an", "had", "they", "you", "were", "their",
    "one", "all", "we", "can", "her", "has", "there", "been",
];

/// How often a model uses each of the common words: a habit of its own, a part of which it may have from a teacher.
fn habit(seed: &str, teacher: Option<(&[f64], f64)>) -> Vec<f64> {
    let mut random = Seeded::new(3).fork(seed);
    let own: Vec<f64> = COMMON.iter().map(|_| random.unit()).collect();
    let Some((teacher, share)) = teacher else { return own };
    own.iter().zip(teacher).map(|(own, teacher)| share * teacher + (1.0 - share) * own).collect()
}

fn answer(answers: &mut Answers, model: &str, habit: &[f64]) {
    let mut random = Seeded::new(4).fork(model);
    for prompt in 0..60 {
        let said: Vec<&str> =
            COMMON.iter().zip(habit).filter(|(_, share)| random.chance(**share)).map(|(word, _)| *word).collect();
        answers.add(model, &format!("prompt {prompt}"), &said.join(" ")).unwrap();
    }
}

/// One teacher, `controls` independent models of `families` families, and a suspect that has `share` of its habit from the teacher.
fn ask(controls: usize, families: usize, share: f64) -> Result<StyleReport, ControlsError> {
    let mut answers = Answers::default();
    let teacher = habit("teacher", None);
    answer(&mut answers, "teacher-1", &teacher);
    answer(&mut answers, "suspect-1", &habit("suspect", Some((&teacher, share))));
    let mut table = "# model, role, family, base\nteacher-1\tteacher\tT\t-\nsuspect-1\tsuspect\tS\tbase-0\n".to_owned();
    for control in 0..controls {
        let name = format!("control-{control:02}");
        answer(&mut answers, &name, &habit(&name, None));
        table += &format!("{name}\tcontrol\tF{:02}\tbase-{}\n", control % families, control % 10);
    }
    compare(&answers, &roles(&table).unwrap(), "T")
}

fn one(report: &StyleReport) -> &Finding {
    report.findings.first().unwrap()
}

#[test]
fn a_student_among_enough_independent_controls_is_moderate() {
    let report = ask(24, 24, 0.8).unwrap();
    assert_eq!(one(&report).verdict.strength, Strength::Moderate);
    assert_snapshot!(render_style(&report), @r"
    Style of answers against T: 26 models, 60 prompts
    Not fixed beforehand: no signed plan shows that suspect, pairs and statistic were chosen before results were seen.

    suspect-1: MODERATE
      There is moderate evidence that suspect-1 was trained on answers of T, or of a model of the same style.
      p over 24 controls: 0.040, cannot be below 0.040
      p over 24 families of controls: 0.040, cannot be below 0.040
      p over 3 controls of base base-0: 0.250, cannot be below 0.250
      p of the larger one, adjusted (Holm): 0.040; E_model 2.50
      nearest candidates:
         0.838  T (teacher-1)
         0.203  F10 (control-10)
         0.109  F15 (control-15)
         0.056  F13 (control-13)
         0.054  F18 (control-18)
      score 0.838; highest of the controls:
         0.183  control-13 (F13)
         0.142  control-18 (F18)
         0.134  control-10 (F10)
         0.114  control-14 (F14)
         0.108  control-07 (F07)

    This evidence rests on controls. It is at most moderate, and is never added to exact evidence.
    Null hypothesis: The suspect was not trained on answers of the accused family, and is exchangeable with the controls: as a draw from the same population of models (and, for the p-value over families, its family from the same population of families).
    Error rate: Never more than moderate, and that with at most 5 % probability as far as suspect and families of controls are exchangeable. Measured on answers of public models on which the rule was chosen, so kindly: of 21 that are no documented students none was moderate (0 to 16.1 %), though two stood above all of their 11 controls.
    What is random in it: Which models were built and taken as controls. The prompts and answers are taken as given: more prompts do not make more evidence. Nobody drew the controls at random, so exchangeability is an assumption, and this evidence is never added to the exact one.
    Score: For each model, the share of its answers (first 300 words) that hold each common word; arcsine of the root; centred on the other models, every family weighing the same; directions in which models differ most damped; cosine with the nearest teacher of the accused family. No model of the looked-at model's own family is in the reference.
    Tests: Conformal p-value: the rank of the suspect's score among the controls', ties against the suspicion, over models and over families of models; the larger one decides, after Holm's adjustment over the suspects. Moderate, the most that style can show, is p at most 0.05 while no other candidate family is nearer.
    What else could explain it:
      - A common third teacher: suspect and accused may both have learnt from the same other model.
      - Convergent style: assistants that were trained for the same taste grow alike without seeing each other's answers.
      - Shared public sets: conversations and instruction sets on the web hold answers of many vendors' models.
      - A teacher that is not among the candidates, or a parent model that was trained on such answers before.
      - Licensed use: the answers may have been taken with permission.
    What it does not show:
      - Who asked for the answers, through which accounts, or under which terms.
      - That a suspect that is not shown to be a student is none.
      - That the controls are what their documents say; a control that is a secret student makes the p-value larger, not smaller.
    ");
}

#[test]
fn style_is_never_more_than_moderate() {
    let report = ask(60, 60, 1.0).unwrap();
    assert_eq!(one(&report).verdict.strength, Strength::Moderate);
}

#[test]
fn a_model_that_has_nothing_from_the_teacher_is_not_shown() {
    let report = ask(24, 24, 0.0).unwrap();
    assert_snapshot!(one(&report).verdict.sentence, @"It is not shown that suspect-1 was trained on answers of T. That does not show the contrary. It is nearer to F23.");
}

#[test]
fn too_few_controls_are_said_in_words() {
    let report = ask(10, 10, 1.0).unwrap();
    assert_eq!(one(&report).verdict.strength, Strength::NotShown);
    assert_snapshot!(one(&report).verdict.sentence, @"It is not shown that suspect-1 was trained on answers of T. That does not show the contrary. No result could have shown it: 10 controls are too few, since p cannot fall below 1/11; at least 19 are needed.");
}

#[test]
fn many_controls_of_few_families_are_said_in_words() {
    let report = ask(40, 4, 1.0).unwrap();
    assert_eq!(one(&report).verdict.strength, Strength::NotShown);
    assert_snapshot!(one(&report).verdict.sentence, @"It is not shown that suspect-1 was trained on answers of T. That does not show the contrary. No result could have shown it: the 40 controls are of 4 families, which are too few, since p cannot fall below 1/5; at least 19 are needed.");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let mut answers = Answers::default();
    let told = |error: ControlsError| format!("{}: {error}", error.code());
    let bad =
        answers.read("a.jsonl", &b"{\"model\": \"a\", \"prompt\": \"p\", \"output\": \"o\"}\n{\"model\": 1}\n"[..]);
    assert_snapshot!(told(bad.unwrap_err()), @"answers_malformed: `a.jsonl`, line 2: not an object with `model`, `prompt` and `output`: invalid type: integer `1`, expected a string at line 1 column 11");
    assert_snapshot!(told(roles("a\tjudge\tF").unwrap_err()), @"roles_malformed: roles, line 1: `judge` is none of `suspect`, `teacher` and `control`");
    assert_snapshot!(told(roles("a\tcontrol\tF\na\tsuspect\tF").unwrap_err()), @"roles_malformed: roles, line 2: `a` has a role already");
    assert_snapshot!(told(compare(&answers, &roles("b\tsuspect\tF").unwrap(), "T").unwrap_err()), @"no_answers: model `b` has a role, but no answer in the files");
    assert_snapshot!(told(compare(&answers, &roles("a\tsuspect\tF").unwrap(), "T").unwrap_err()), @"too_few_prompts: 1 prompts were answered by every model that has a role, at least 50 are needed");
    assert_snapshot!(told(ask(0, 1, 1.0).unwrap_err()), @"role_missing: no model has the role `control` for the suspect `suspect-1`, whose own family `S` is left out");
}

#[test]
fn no_model_of_the_suspects_family_is_used() {
    let mut answers = Answers::default();
    let teacher = habit("teacher", None);
    answer(&mut answers, "teacher-1", &teacher);
    for name in ["suspect-1", "sibling", "other"] {
        answer(&mut answers, name, &habit(name, None));
    }
    let table = "teacher-1\tteacher\tT\nsuspect-1\tsuspect\tS\nsibling\tcontrol\tS\nother\tcontrol\tO";
    let report = compare(&answers, &roles(table).unwrap(), "T").unwrap();
    let used: Vec<&str> = one(&report).among.controls.iter().map(|control| control.model.as_str()).collect();
    assert_eq!(used, ["other"]);
    assert!(one(&report).closeness.iter().all(|closeness| closeness.family != "S"));
}

#[test]
fn the_rank_is_what_counting_gives_also_with_ties() {
    let mut random = Seeded::new(8);
    for _ in 0..2_000 {
        let controls: Vec<f64> = (0..random.below(12)).map(|_| random.below(4) as f64).collect();
        let score = random.below(4) as f64;
        let at_least = 1 + controls.iter().filter(|control| **control >= score).count();
        assert_eq!(conformal::p_value(score, &controls), at_least as f64 / (controls.len() + 1) as f64);
    }
}

/// Models without a teacher, each the suspect in turn: the p-value must not be small too often.
#[test]
fn p_values_of_exchangeable_models_are_not_too_small() {
    let (rounds, models) = (40, 10);
    let mut p_values = Vec::new();
    for round in 0..rounds {
        let mut answers = Answers::default();
        answer(&mut answers, "teacher", &habit(&format!("teacher {round}"), None));
        let names: Vec<String> = (0..models).map(|model| format!("model {round} {model}")).collect();
        names.iter().for_each(|name| answer(&mut answers, name, &habit(name, None)));
        let suspect = Seeded::new(round).below(models);
        let role = |place: usize| if place == suspect { "suspect" } else { "control" };
        let lines = names.iter().enumerate().map(|(place, name)| format!("{name}\t{}\t{name}\n", role(place)));
        let table = lines.collect::<String>() + "teacher\tteacher\tT\n";
        p_values.push(one(&compare(&answers, &roles(&table).unwrap(), "T").unwrap()).among.p_models);
    }
    // Under exchangeability the p-value is uniform on 1/10, 2/10 .. 1. The largest distance between the two distributions
    // (Dvoretzky, Kiefer and Wolfowitz) exceeds 0.258 with probability 0.01 at 40 rounds.
    for step in 1..=models {
        let level = step as f64 / models as f64;
        let share = p_values.iter().filter(|p| **p <= level + 1e-9).count() as f64 / rounds as f64;
        assert!((share - level).abs() < 0.258, "{share} of the p-values are at most {level}");
    }
}

/// In every set of models the suspects' ranks are a permutation: looking at suspect and controls alike is what makes the test exact.
#[test]
fn every_model_in_turn_takes_every_rank_once() {
    let mut answers = Answers::default();
    answer(&mut answers, "teacher", &habit("teacher", None));
    let names: Vec<String> = (0..8).map(|model| format!("model {model}")).collect();
    names.iter().for_each(|name| answer(&mut answers, name, &habit(name, None)));
    let mut ranks: Vec<f64> = (0..8)
        .map(|suspect| {
            let role = |place: usize| if place == suspect { "suspect" } else { "control" };
            let lines = names.iter().enumerate().map(|(place, name)| format!("{name}\t{}\t{name}\n", role(place)));
            let table = lines.collect::<String>() + "teacher\tteacher\tT\n";
            one(&compare(&answers, &roles(&table).unwrap(), "T").unwrap()).among.p_models * 8.0
        })
        .collect();
    ranks.sort_by(f64::total_cmp);
    assert_eq!(ranks, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
}
