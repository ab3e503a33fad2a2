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
    assert_snapshot!(told.join("\n"), @"");
    let json = place.run(&format!("terms check {words} --json")).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["ruling"], &json["reasons"][0]["code"]), (&"allowed".into(), &"granted".into()));
    assert_eq!(place.run("terms check nobody").code, 2);
    assert_snapshot!(place.run("terms show teacher").out, @"");
}

#[test]
fn the_registry_needs_no_installation() {
    let place = Place::empty();
    assert_snapshot!(place.run("terms known llama-4").out, @"");
    assert_snapshot!(place.run("terms known openai-api").out, @"");
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
    assert_snapshot!(told.join("\n"), @"");
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
    assert_snapshot!([listed, wide, again, run("grant list --account acme").out].join("\n"), @"");
    assert_snapshot!(blank(&run("grant show wanted").out), @"");
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
