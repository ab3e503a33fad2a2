//! The life of a journal at the command line: sealed, verified, pruned, its texts closed and forgotten.

use std::fs;
use std::path::Path;

use crate::gateway::{Running, ask, key};
use crate::support::Place;

/// Is `needle` in any file of `folder`?
fn holds(folder: &Path, needle: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|item| {
        let path = item.unwrap().path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle.as_bytes())
    })
}

fn parquet(place: &Place) -> Vec<String> {
    let names = fs::read_dir(place.path("journal")).unwrap();
    let names = names.map(|item| item.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".parquet")).collect();
    names.sort();
    names
}

#[test]
fn a_journal_is_sealed_and_pruned_and_still_verifies() {
    let place = Place::gateway();
    for account in ["one", "two", "three"] {
        assert_eq!(place.run(&format!("account open {account} --plan standard")).code, 0);
        let sealed = place.run("journal seal");
        assert_eq!(sealed.code, 0, "{}", sealed.err);
    }
    let shown = place.run("journal show journal").out;
    let names = parquet(&place);
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(!place.path("journal/00000000.seg").exists(), "a sealed segment is gone");
    let whole = place.run("journal verify journal");
    assert!(
        whole.out.contains("in 3 segments, 3 of them sealed") && whole.out.contains("every byte is whole"),
        "{}",
        whole.out
    );

    // One file by itself.
    let public = whole.out.lines().find(|line| line.contains("signed by")).unwrap();
    let public = public.split_whitespace().last().unwrap().to_owned();
    let one = place.run(&format!("journal verify journal/{} --key {public}", names[1]));
    assert!(one.code == 0 && one.out.contains("every entry is whole and signed"), "{}{}", one.out, one.err);
    assert_eq!(place.run(&format!("journal verify journal/{}", names[1])).code, 2, "a key must be given");

    // Nothing is deleted that the configuration keeps.
    let refused = place.run("journal prune");
    assert!(refused.code == 2 && refused.err.contains("the configuration keeps everything"), "{}", refused.err);
    let last = fs::metadata(place.path("journal").join(&names[2])).unwrap().len();
    let text = place.read("anbiq.toml").replace("# keep = { days = 365 }", &format!("keep = {{ bytes = {last} }}"));
    place.write("anbiq.toml", &text);
    let dry = place.run("journal prune --dry-run");
    assert!(dry.err.contains("would delete 2 files") && parquet(&place) == names, "{}", dry.err);
    let pruned = place.run("journal prune");
    assert!(pruned.err.contains("deleted 2 files") && parquet(&place) == names[2..], "{}", pruned.err);
    let after = place.run("journal verify journal");
    assert!(
        after.out.contains("deleted          the first") && after.out.contains("every byte that is left"),
        "{}",
        after.out
    );
    let root = |text: &str| text.lines().find(|line| line.contains("root  ")).unwrap().to_owned();
    assert_eq!(root(&after.out), root(&whole.out), "the tree is the same");
    let left = place.run("journal show journal").out;
    assert!(shown.ends_with(&left) && !left.is_empty() && left.len() < shown.len(), "{left}");

    // It is written on, and a changed byte in a sealed file is found.
    assert_eq!(place.run("account open four --plan standard").code, 0);
    assert_eq!(place.run("journal verify journal").code, 0);
    let path = place.path("journal").join(&names[2]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let told = place.run("journal verify journal").told();
    assert!(told.starts_with("exit 2") && told.contains(&names[2]), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_texts_are_read_with_their_key_and_forgotten_without_it() {
    let place = Place::gateway();
    let text = place.read("anbiq.toml").replace("texts = \"twinned\"", "texts = \"sealed\"");
    place.write("anbiq.toml", &text);
    assert_eq!(place.run("account open acme --plan standard").code, 0);
    assert_eq!(place.run("terms accept acme teacher").code, 0);
    let acme = key(&place, "acme");
    let gateway = Running::start(&place);
    gateway.client(&acme).chat(&ask("where does the canary sing"), &[]).await.unwrap();
    assert_eq!(gateway.stop(), 0);
    assert_eq!(place.run("journal seal").code, 0);
    assert!(!holds(&place.path("journal"), "canary"), "the journal does not show it");
    assert!(!place.run("journal show journal").out.contains("canary"));
    let open = place.run("journal show journal --secrets secrets");
    assert!(open.out.contains("where does the canary sing"), "{}", open.err);

    let secret = place.read("secrets/texts/acme.key").trim().to_owned();
    assert!(holds(&place.path("."), &secret));
    let before = place.run("journal verify journal --json").out;
    let forgotten = place.run("account forget acme");
    assert!(forgotten.code == 0 && forgotten.err.contains("destroyed the key"), "{}", forgotten.err);
    assert!(!holds(&place.path("."), &secret), "the key is nowhere");
    let closed = place.run("journal show journal --secrets secrets");
    assert!(!closed.out.contains("canary") && closed.err.contains("1 exchanges stay closed"), "{}", closed.err);
    assert!(closed.out.contains("texts_forgotten"));
    let after = place.run("journal verify journal");
    assert!(after.code == 0 && after.out.contains("every byte is whole and signed"), "{}{before}", after.out);
    assert!(place.run("account forget acme").err.contains("nothing to destroy"));
}
