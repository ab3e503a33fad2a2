//! Terms and grants on the command line.

use insta::assert_snapshot;

use crate::support::Place;

/// What was printed, without the times and digests in it.
fn blank(text: &str) -> String {
    let line = |line: &str| {
        let words = line.split(' ').map(|word| match word {
            word if word.len() == 20 && word.ends_with('Z') => "TIME",
            word => word,
        });
        words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn terms_are_shown_and_checked() {
    let place = Place::gateway();
    assert_eq!(place.run("account open acme --plan standard").code, 0);
    let mut told = Vec::new();
    for (words, code) in [
        ("teacher --parameters 500000000 --not-competing", 1),
        ("teacher --parameters 2000000000 --not-competing", 1),
        ("teacher --competing --parameters 1", 1),
        ("teacher", 1),
    ] {
        let done = place.run(&format!("terms check {words}"));
        assert_eq!(done.code, code, "{words}: {}", done.err);
        told.push(format!("$ terms check {words}\n{}", done.out));
    }
    assert_eq!(place.run("grant give g --account acme --model teacher --purpose tests --max-tokens 1000").code, 0);
    let words = "teacher --account acme --parameters 500000000 --tokens 900 --not-competing";
    let permitted = place.run(&format!("terms check {words}"));
    assert_eq!(permitted.code, 0, "{}", permitted.err);
    told.push(format!("$ terms check {words}\n{}", permitted.out));
    assert_snapshot!(told.join("\n"), @r#"
    $ terms check teacher --parameters 500000000 --not-competing
    needs a grant
      because  the terms require a grant
      duty     the student's card says: Trained in part on answers of `teacher`.

    $ terms check teacher --parameters 2000000000 --not-competing
    forbidden
      because  the terms allow at most 1000000000 parameters; this student has 2000000000

    $ terms check teacher --competing --parameters 1
    forbidden
      because  the terms allow no student that competes with the teacher; this one does

    $ terms check teacher
    unknown
      because  they limit the student's size, which is not known
      because  they allow no student that competes with the teacher, and whether it will is not known
      duty     the student's card says: Trained in part on answers of `teacher`.

    $ terms check teacher --account acme --parameters 500000000 --tokens 900 --not-competing
    allowed
      because  grant `g` permits it, for: tests
      duty     the student's card says: Trained in part on answers of `teacher`.
    "#);
    let json = place.run(&format!("terms check {words} --json")).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["ruling"], &json["reasons"][0]["code"]), (&"allowed".into(), &"granted".into()));
    assert_eq!(place.run("terms check nobody").code, 2);
    assert_snapshot!(place.run("terms show teacher").out, @r#"
    teacher-terms version 1, for `teacher`
      distillation            needs a grant
      largest student         1000000000
      completion tokens       no limit
      competing use           not allowed
      duty                    the student's card says: Trained in part on answers of `teacher`.
      text SHA-256            699ba08caff6a187d5feec32574e60f92d46efdaf7545415fdb346112f75e3d4

    You may use the answers of this model in your own work. You may not train a model on them without a grant. A sample of answers is kept, with an alternative that was not sent, to find out later whether a model was trained on them.
    "#);
}

#[test]
fn the_registry_needs_no_installation() {
    let place = Place::empty();
    assert_snapshot!(place.run("terms known llama-4").out, @r#"
    llama-4, of Meta: the weights of Llama 4
      distillation            conditions
      largest student         no limit
      completion tokens       no limit
      competing use           allowed
      duty                    the student's name begins with `Llama`
      duty                    the student's card says: Built with Llama
      duty                    the student comes with: a copy of the licence
      duty                    the student comes with: the notice that the licence demands
      duty                    the student comes with: the acceptable use policy
      read                    https://github.com/meta-llama/llama-models on 2026-11-23, Llama 4 Community License Agreement, 1.b.i, in force from 2025-04-05

    The duties bind whoever gives the student to others or makes it available; whoever has more than 700 million users a month needs a licence of their own.

    Not legal advice.
    "#);
    assert_snapshot!(place.run("terms known openai-api").out, @r#"
    openai-api, of OpenAI: its API under the services agreement
      distillation            unknown
      read                    no primary text was read: read it yourself, or ask

    Not legal advice.
    "#);
    let mut told = Vec::new();
    for (words, code) in [
        ("deepseek-r1 --known", 0),
        ("llama-4 --known --name Alpaca", 1),
        ("llama-4 --known --name Llama-Alpaca", 0),
        ("openai-api --known", 1),
    ] {
        let done = place.run(&format!("terms check {words}"));
        assert_eq!(done.code, code, "{words}: {}", done.err);
        told.push(format!("$ terms check {words}\n{}", done.out));
    }
    assert_snapshot!(told.join("\n"), @r#"
    $ terms check deepseek-r1 --known
    allowed
      because  the terms allow it

    $ terms check llama-4 --known --name Alpaca
    forbidden
      because  the terms allow only names that begin with `Llama`; this student is called `Alpaca`

    $ terms check llama-4 --known --name Llama-Alpaca
    allowed
      because  the terms allow it under conditions, and it keeps them
      duty     the student's name begins with `Llama`
      duty     the student's card says: Built with Llama
      duty     the student comes with: a copy of the licence
      duty     the student comes with: the notice that the licence demands
      duty     the student comes with: the acceptable use policy

    $ terms check openai-api --known
    unknown
      because  the terms do not say, or nobody read them
    "#);
    let all = place.run("terms known --json");
    let all: serde_json::Value = serde_json::from_str(&all.out).unwrap();
    assert!(all.as_array().unwrap().len() > 20);
    assert_eq!(place.run("terms known nobody").code, 2);
}

#[test]
fn a_grant_goes_its_way() {
    let place = Place::gateway();
    let run = |words: &str| {
        let done = place.run(words);
        assert_eq!(done.code, 0, "{words}: {}", done.err);
        done
    };
    run("account open acme --plan standard");
    for (grant, tokens) in [("wanted", 1000), ("unwanted", 9_000_000)] {
        run(&format!("grant ask {grant} --account acme --model teacher --purpose school --max-tokens {tokens}"));
    }
    let listed = run("grant list").out;
    let wide = place.run("grant approve wanted --max-student 5000000000").told();
    run("grant approve wanted --max-student 5000000000 --beyond-terms partner --price 3.50 --days 90");
    run("grant refuse unwanted --reason large");
    let again = place.run("grant approve unwanted").told();
    assert_snapshot!([listed, wide, again, run("grant list --account acme").out].join("\n"), @r#"
    unwanted             asked    acme                 0 of 9000000 tokens
    wanted               asked    acme                 0 of 1000 tokens

    exit 2
    error: grant `wanted` permits more than its terms: a larger student than the terms allow
    hint: say why it goes beyond them, and the journal keeps the reason

    exit 2
    error: grant `unwanted` is not asked for: it was given, refused or revoked

    unwanted             refused  acme                 0 of 9000000 tokens
    wanted               active   acme                 0 of 1000 tokens
    "#);
    assert_snapshot!(blank(&run("grant show wanted").out), @r#"
    grant wanted of acme
      state                   active
      terms                   teacher-terms version 1
      purpose                 school
      used                    0 of 1000 tokens
      largest student         5000000000
      completion tokens       1000
      competing use           not allowed
      price                   $3.50 a million completion tokens
      duty                    the student's card says: Trained in part on answers of `teacher`.
      beyond its terms        partner
      asked for               TIME
      given                   TIME
      holds until             TIME
    "#);
    run("grant revoke wanted");
    assert!(run("grant list").out.contains("revoked"));
    let json: serde_json::Value = serde_json::from_str(&run("grant show unwanted --json").out).unwrap();
    assert_eq!((&json["state"], &json["refused"]), (&"refused".into(), &"large".into()));
    let journal = run("journal show journal").out;
    let entries: Vec<&str> = ["grant_asked", "grant_given", "grant_refused", "grant_revoked"]
        .into_iter()
        .filter(|entry| journal.contains(&format!(r#""entry":"{entry}""#)))
        .collect();
    assert_eq!(entries.len(), 4, "{entries:?}");
    assert!(journal.contains(r#""beyond_terms":"partner""#), "the reason is kept");
}
