//! `anbiq config`: what is wrong is said before a gateway is started, all of it at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::support::{Done, Place};

fn shown(done: &Done) -> String {
    format!("exit {}\n{}{}", done.code, done.out, done.err)
}

#[test]
fn a_good_configuration_is_fine() {
    let place = Place::gateway();
    assert_snapshot!(shown(&place.run("config check")), @r"
    exit 0
    `anbiq.toml` is fine
    ");
    assert_snapshot!(shown(&place.run("config check anbiq.toml --json")), @r#"
    exit 0
    {
      "file": "anbiq.toml",
      "problems": []
    }
    "#);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let place = Place::empty();
    place.write("other.key", "secret\n");
    place.write("empty.key", "\n");
    fs::set_permissions(place.path("other.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(place.path("empty.key"), fs::Permissions::from_mode(0o600)).unwrap();
    place.write(
        "anbiq.toml",
        r#"
[journal]
path = "journal"
id = "example"
[ledger]
url_env = "ANBIQ_NO_SUCH_LEDGER"
[serve]
admin_listen = "0.0.0.0:9090"
[[model]]
name = "local"
folder = "nowhere"
terms = "gone.json"
prices = { input = "0.50", output = "2.00" }
[[model]]
name = "remote"
url = "http://169.254.169.254/v1"
key_env = "ANBIQ_NO_SUCH_KEY"
api_version = "2024-10-21"
prices = { input = "0.50", output = "2.00" }
[[model.upstream]]
url = "http://user:hunter2@host/v1"
key_file = "empty.key"
[[model.upstream]]
url = "https://host/v1"
key_file = "other.key"
weight = 0
"#,
    );
    let done = place.run("config check");
    assert!(!done.out.contains("hunter2") && !done.out.contains("secret"), "{}", done.out);
    assert_snapshot!(shown(&done), @r#"
    exit 1
    model `remote`: `api_version` is for `dialect = "azure"`
    model `remote`: the `weight` of a server is at least 1
    the configuration cannot be used: `admin_listen` is `0.0.0.0:9090`, which other machines may reach, and it asks for no key
    hint: listen on 127.0.0.1, or set `admin_anywhere = true` where the network keeps strangers out
    ledger: the environment variable `ANBIQ_NO_SUCH_LEDGER` holds no URL
    model `local`: there is no `nowhere/config.json`
    model `local`: there is no `nowhere/tokenizer.json`
    model `local`: cannot read `gone.json`: No such file or directory (os error 2)
    model `remote`: `169.254.169.254` is a link-local, metadata or otherwise special address, which is not allowed
    hint: where it is meant, name it or its network in `[serve] upstream_allow`
    model `remote`: the environment variable `ANBIQ_NO_SUCH_KEY` holds no key
    model `remote`: `http://host/v1` is not an address: it holds a user name
    hint: write `http://HOST:PORT/v1`, with a name or a usual number for HOST
    model `remote`: the file `empty.key` holds no key
    model `remote`: everybody on this machine may read `other.key`
    hint: chmod 600 other.key
    "#);
    let json = place.run("config check --json");
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, report["problems"].as_array().unwrap().len()), (1, 12), "{}", json.out);
}

#[test]
fn what_cannot_be_read_at_all_is_told_apart() {
    let place = Place::empty();
    assert_snapshot!(shown(&place.run("config check gone.toml")), @r"
    exit 2
    error: cannot read the configuration `gone.toml`
      because: No such file or directory (os error 2)
    ");
    place.write("anbiq.toml", "[journal\n");
    let done = place.run("config check");
    assert_eq!(done.code, 1);
    assert!(done.out.contains("line 1"), "{}", done.out);
}

/// The schema that editors are given is what the program reads, and says of each key what it is.
/// `ANBIQ_RENEW=1` writes it anew.
#[test]
fn the_schema_is_committed_and_explains_every_key() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contrib/anbiq.schema.json");
    let printed = Place::empty().run("config schema");
    assert_eq!(printed.code, 0, "{}", printed.err);
    if std::env::var_os("ANBIQ_RENEW").is_some() {
        fs::write(file, &printed.out).unwrap();
    }
    assert!(fs::read_to_string(file).is_ok_and(|committed| committed == printed.out), "renew it: ANBIQ_RENEW=1");
    let schema: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    let mut objects: Vec<&serde_json::Value> = schema["$defs"].as_object().unwrap().values().collect();
    objects.push(&schema);
    let mut keys = 0;
    for object in objects {
        let Some(properties) = object["properties"].as_object() else { continue };
        assert_eq!(object["additionalProperties"], false, "an unknown key is an error: {object}");
        for (key, property) in properties {
            assert!(property["description"].as_str().is_some_and(|words| !words.is_empty()), "{key}: {property}");
            keys += 1;
        }
    }
    assert!(keys > 60, "{keys}");
}
