//! Bad input gets a clear error, and nothing is lost.

use std::fs;

use insta::assert_snapshot;

use crate::support::Place;

#[test]
fn an_unknown_configuration_key_is_an_error_with_file_and_line() {
    let place = Place::gateway();
    let text = place.read("anbiq.toml").replace("[serve]", "[serve]\nlissen = \"127.0.0.1:1\"");
    place.write("anbiq.toml", &text);
    assert_snapshot!(place.run("serve").told(), @r#"
    exit 2
    error: anbiq.toml: TOML parse error at line 15, column 1
       |
    15 | lissen = "127.0.0.1:1"
       | ^^^^^^
    unknown field `lissen`, expected one of `listen`, `admin_listen`, `admin_anywhere`, `clock`, `trusted_proxies`, `reservation_ttl_ms`, `request_timeout_ms`, `drain_ms`, `heartbeat_ms`, `max_body_bytes`, `max_connections`, `header_timeout_ms`, `body_timeout_ms`, `write_timeout_ms`, `max_in_flight`, `max_in_flight_per_account`, `idempotency`, `twin`, `upstream_allow`, `telemetry`, `seed`
    "#);
}

#[test]
fn an_operators_address_that_strangers_reach_is_refused() {
    let place = Place::gateway();
    let text = place.read("anbiq.toml").replace("[serve]", "[serve]\nadmin_listen = \"0.0.0.0:0\"");
    place.write("anbiq.toml", &text);
    assert_snapshot!(place.run("serve").told(), @r#"
    exit 2
    error: the configuration cannot be used: `admin_listen` is `0.0.0.0:0`, which other machines may reach, and it asks for no key
    hint: listen on 127.0.0.1, or set `admin_anywhere = true` where the network keeps strangers out
    "#);
}

#[test]
fn a_missing_configuration_says_what_to_do() {
    assert_snapshot!(Place::empty().run("serve").told(), @r#"
    exit 2
    error: cannot read the configuration `anbiq.toml`
      because: No such file or directory (os error 2)
    hint: `anbiq init DIR` writes one; `--config FILE` names another
    "#);
}

#[test]
fn a_second_init_overwrites_nothing() {
    let place = Place::gateway();
    let before = place.read("secrets/signing.key");
    assert_snapshot!(place.run("init .").told(), @r#"
    exit 2
    error: `./anbiq.toml` is there already
    hint: remove it, or choose another folder
    "#);
    assert_eq!(place.read("secrets/signing.key"), before);
}

#[test]
fn a_missing_model_file_is_named() {
    let place = Place::gateway();
    fs::remove_file(place.path("teacher/model.safetensors")).unwrap();
    assert_snapshot!(place.run("serve").told(), @r#"
    exit 2
    error: cannot load the model `teacher`
      because: cannot read `teacher/model.safetensors`: No such file or directory (os error 2)
    hint: a model folder holds config.json, tokenizer.json and model.safetensors (or its shards and index)
    "#);
}

#[test]
fn a_truncated_model_file_is_named() {
    let place = Place::gateway();
    let path = place.path("teacher/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_snapshot!(place.run("serve").told(), @r#"
    exit 2
    error: cannot load the model `teacher`
      because: tensor `model.layers.2.mlp.down_proj.weight` in `teacher/model.safetensors` ends at byte 3404880 of a file of 3395432
    hint: the file may be cut short or damaged: fetch or save the model again
    "#);
}

#[test]
fn a_journal_of_another_version_is_refused_and_left_as_it_is() {
    let place = Place::gateway();
    assert_eq!(place.run("account open acme --plan standard").code, 0);
    let later = place.read("journal/journal.json").replace("\"format\": 2", "\"format\": 3");
    assert!(later.contains("\"format\": 3"), "{later}");
    place.write("journal/journal.json", &later);
    let segment = fs::read(place.path("journal/00000000.seg")).unwrap();
    assert_snapshot!(place.run("journal verify journal").told(), @r#"
    exit 2
    error: the journal `journal` does not verify
      because: `journal` is a journal of format 3; this program reads and writes format 2
    hint: read it with the version of anbiq that wrote it
    "#);
    assert_eq!(place.run("account open other --plan standard").code, 2);
    assert_eq!(fs::read(place.path("journal/00000000.seg")).unwrap(), segment, "nothing was written to it");
}

#[test]
fn a_damaged_journal_names_the_place() {
    let place = Place::gateway();
    assert_eq!(place.run("account open acme --plan standard").code, 0);
    let segment = place.path("journal/00000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let told = place.run("journal verify journal").told();
    assert!(told.starts_with("exit 2") && told.contains("00000000.seg"), "{told}");
}

#[test]
fn wrong_words_are_a_usage_error() {
    let place = Place::gateway();
    assert_eq!(place.run("wach journal").code, 2);
    assert_snapshot!(place.run("account open acme --plan nonesuch").told(), @r#"
    exit 2
    error: there is no plan `nonesuch`
    "#);
    assert_snapshot!(place.run("account open a/b --plan standard").told(), @r#"
    exit 2
    error: `a/b` cannot be an id: use 1 to 64 letters, digits, `.`, `_`, `-` or `:`, a letter or digit first
    "#);
    assert_snapshot!(place.run("verify nowhere").told(), @r#"
    exit 2
    error: there is no folder `nowhere`
    "#);
}
