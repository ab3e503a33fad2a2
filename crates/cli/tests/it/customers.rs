//! Accounts, users, keys and budgets on the command line.

use insta::assert_snapshot;

use crate::support::Place;

/// What was printed, with the public parts of keys and the times left out.
fn blank(text: &str) -> String {
    let word = |word: &str| {
        let time = word.len() > 19 && word.contains('T') && word.contains('Z');
        let key = word.strip_prefix("key:").unwrap_or(word);
        let public = key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if time {
            "TIME".to_owned()
        } else if public {
            word.replace(key, "KEY")
        } else {
            word.to_owned()
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ").trim_end().to_owned();
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn public(key: &str) -> String {
    key.split('-').nth(2).unwrap().to_owned()
}

#[test]
fn accounts_users_and_keys() {
    let place = Place::gateway();
    let run = |words: &str| {
        let done = place.run(words);
        assert_eq!(done.code, 0, "{words}: {}", done.err);
        done
    };
    run("account open acme --plan standard --budget 5 --operator group");
    run("account open other --plan standard");
    run("account close other");
    run("user add acme nour --name Nour");
    let first = run("key issue acme --name ci --user nour --scope chat,models --model teacher --days 30");
    let second = run(&format!("key rotate {} --grace 2h", public(&first.out)));
    assert!(second.err.contains("takes the place of"), "{}", second.err);
    assert_ne!(first.out, second.out);
    let lists = ["account list", "account list --operator group", "user list acme"].map(|words| run(words).out);
    assert_snapshot!(blank(&lists.join("\n")), @r#"
    acme                     plan standard     operator group        open
    other                    plan standard     operator -            closed TIME

    acme                     plan standard     operator group        open

    nour                     Nour
    "#);
    let keys = run("key list acme").out;
    assert_snapshot!(blank(keys.lines().next().unwrap()), @r#"KEY  until TIME   routes chat,models, models teacher, user nour, "ci""#);
    assert_eq!(keys.lines().count(), 2);
    let json: serde_json::Value = serde_json::from_str(&run("key list acme --json").out).unwrap();
    assert_eq!(json[0]["root"], json[1]["root"]);
    assert!(run("user remove acme nour").err.contains("revoked 2 keys"));
    assert_eq!(run("key list acme").out.matches("revoked").count(), 2);
}

#[test]
fn budgets() {
    let place = Place::gateway();
    let run = |words: &str| {
        let done = place.run(words);
        assert_eq!(done.code, 0, "{words}: {}", done.err);
        done.out
    };
    run("account open acme --plan standard --operator group");
    let key = public(&run("key issue acme"));
    run("budget set --account acme --money 100");
    run("budget set --account acme --window month --tokens 1000000");
    run(&format!("budget set --key {key} --window 6h --money 0.5"));
    run("budget set --operator group --window day --money 20");
    assert_snapshot!(blank(&run("budget list")), @r#"
    account:acme             total  $0.00 of $100.00 spent, $0.00 reserved
    account:acme             month  0 tokens of 1000000 tokens spent, 0 tokens reserved, until TIME
    key:KEY         6h     $0.00 of $0.50 spent, $0.00 reserved, until TIME
    operator:group           day    $0.00 of $20.00 spent, $0.00 reserved, until TIME
    "#);
    run("budget remove --account acme --window month --unit tokens");
    assert_eq!(run("budget list --account acme").lines().count(), 1);
    let told: Vec<String> = [
        "budget set --account acme --window year --money 1",
        "budget set --account nobody --money 1",
        "budget remove --operator group --unit tokens",
        "budget set --account acme --money -1",
        "key rotate nobody --grace soon",
    ]
    .map(|words| place.run(words).told())
    .to_vec();
    assert_snapshot!(told.join("\n"), @r#"
    exit 2
    error: `year` is no window: write `total`, `month`, `week`, `day` or a number of hours such as `6h`

    exit 2
    error: there is no account `nobody`

    exit 2
    error: there is no budget of `operator:group` in tokens for `total`

    exit 2
    error: unexpected argument '-1' found

    Usage: anbiq budget set [OPTIONS] <--account <ACCOUNT>|--key <KEY>|--operator <OPERATOR>>

    For more information, try '--help'.

    exit 2
    error: `soon` is no length of time: write a number and `s`, `m`, `h` or `d`, such as `24h`
    "#);
    for words in ["budget set --money 1", "budget set --account acme", "budget set --account acme --key k --money 1"] {
        assert_eq!(place.run(words).code, 2, "{words}");
    }
}
