use anbiq_domain::{
    Answer, Client, Draws, Entry, EpochCommitment, Exchange, Finish, Keyed, Money, Outcome, Prompt, RequestFacts,
    Seeded, Sketch, Texts, Timestamp, Twinning, Usage,
};

use super::*;

fn signer() -> SigningKey {
    SigningKey::from_bytes([9; 32])
}

fn coin() -> CoinKey {
    CoinKey::from_bytes([7; 32])
}

fn exchange(number: i64, random: &mut Seeded) -> Exchange {
    let at = Timestamp::from_milliseconds(1_760_000_000_000 + number);
    let id = ExchangeId::fresh(at, random);
    let keyed = Keyed(5);
    let prompt = Prompt::user("say \"hé\"");
    let answers: Vec<_> = ["yes", "no </script>\u{1b}"].map(|text| Answer::new(text, Finish::Stop)).into();
    let mut draws = Draws::commit(&coin(), id, &prompt, &answers);
    draws.twinning = Some(Twinning { epoch: 0, served: coin().choose(id, 2), ..Twinning::default() });
    Exchange {
        id,
        at,
        duration_ms: 5,
        account: "acme".parse().unwrap(),
        key: "key".parse().unwrap(),
        model: "teacher".to_owned(),
        terms: None,
        grant: None,
        request: RequestFacts { temperature: 0.7, ..RequestFacts::default() },
        client: Client { address: keyed, network: keyed, agent: keyed },
        sketch: Sketch { exact: keyed, opening: keyed, minhash: [1; 32], words: 2, flags: 0 },
        usage: Usage::default(),
        cost: Money::ZERO,
        outcome: Outcome::Completed,
        draws,
        texts: Some(Texts { prompt, answers }),
        sealed: None,
    }
}

fn entries() -> Vec<Entry> {
    let mut random = Seeded::new(1);
    let at = Timestamp::default();
    let epoch = EpochCommitment { epoch: 0, commitment: coin().commitment() };
    let exchanges: Vec<_> = (0..3).map(|number| Entry::Exchange(Box::new(exchange(number, &mut random)))).collect();
    [vec![Entry::Closed { at }, Entry::CoinsCommitted { at, epoch }], exchanges, vec![Entry::Closed { at }]].concat()
}

/// A dossier over the records of `entries` at `disclosed`.
fn contents(entries: &[Entry], disclosed: &[u64]) -> Contents {
    let payloads: Vec<_> = entries.iter().map(|entry| serde_json::to_vec(entry).unwrap()).collect();
    let levels = tree::Levels::new(payloads.iter().map(|payload| tree::leaf_hash(payload)).collect());
    let record = |index: &u64| Disclosed {
        index: *index,
        payload: payloads[*index as usize].clone(),
        proof: levels.inclusion_proof(*index).unwrap(),
    };
    Contents {
        html: "<!doctype html>\n<p>A page.\n".to_owned(),
        json: "{\n \"a\": 1\n}\n".to_owned(),
        checkpoint: Checkpoint::sign("j".parse().unwrap(), levels.size(), levels.root(), &signer()),
        records: disclosed.iter().map(record).collect(),
        coins: vec![(0, coin())],
        texts: Vec::new(),
        attachments: vec![("watch.json".to_owned(), b"{}".to_vec())],
    }
}

fn written() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dossier");
    write(&dir, &contents(&entries(), &[1, 2, 4]), &signer()).unwrap();
    (parent, dir)
}

/// Overwrites in place: ext4 makes who empties a file and writes it anew wait for the disk.
fn put_back(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

#[test]
fn a_whole_dossier_verifies() {
    let (_parent, dir) = written();
    let verified = verify(&dir, Some(&signer().public())).unwrap();
    assert_eq!((verified.records, verified.twins_checked, verified.texts_checked), (3, 2, 2));
    assert_eq!((verified.size, verified.files), (6, 9));
    assert_eq!(verified.twins[1].index, 4);
    let stranger = SigningKey::from_bytes([1; 32]).public();
    assert_eq!(verify(&dir, Some(&stranger)).unwrap_err().file, PUBLIC_KEY);
}

#[test]
fn every_changed_byte_is_found_in_its_file_and_row() {
    let (_parent, dir) = written();
    let mut checked = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = dir.join(&name);
        let bytes = std::fs::read(&path).unwrap();
        for position in 0..bytes.len() {
            let row = 1 + bytes[..position].iter().filter(|byte| **byte == b'\n').count();
            for flip in [1, 0x20, 0x80] {
                let mut changed = bytes.clone();
                changed[position] ^= flip;
                put_back(&path, &changed);
                let broken = verify(&dir, None).expect_err(&format!("byte {position} of {name}"));
                assert_eq!(broken.file, name, "byte {position}: {broken}");
                if ![MANIFEST, STATEMENT].contains(&name.as_str()) && broken.row.is_some() {
                    assert_eq!(broken.row, Some(row), "byte {position}: {broken}");
                    checked += 1;
                } else {
                    assert!([MANIFEST, STATEMENT, PUBLIC_KEY].contains(&name.as_str()), "{broken}");
                }
            }
        }
        for length in [0, bytes.len() / 2, bytes.len() - 1] {
            put_back(&path, &bytes[..length]);
            assert_eq!(verify(&dir, None).unwrap_err().file, name);
        }
        put_back(&path, &[&bytes[..], b"\n"].concat());
        assert_eq!(verify(&dir, None).unwrap_err().file, name);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(verify(&dir, None).unwrap_err().file, name);
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(checked > 10_000, "{checked}");
    assert!(verify(&dir, None).is_ok());
    std::fs::write(dir.join("more.txt"), "x").unwrap();
    assert_eq!(verify(&dir, None).unwrap_err().to_string(), "`more.txt`: it is not part of the dossier");
}

#[test]
fn what_does_not_hold_together_is_not_written() {
    let change = |entries: &mut Vec<Entry>, change: &dyn Fn(&mut Exchange)| match &mut entries[3] {
        Entry::Exchange(exchange) => change(exchange),
        other => panic!("{other:?}"),
    };
    let all = [1, 2, 3, 4];
    let refused = |contents: &Contents| {
        let parent = tempfile::tempdir().unwrap();
        let error = write(&parent.path().join("dossier"), contents, &signer()).unwrap_err();
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left behind");
        error.to_string()
    };

    let mut entries_ = entries();
    change(&mut entries_, &|exchange| {
        let twinning = exchange.draws.twinning.as_mut().unwrap();
        twinning.served = 1 - twinning.served;
    });
    insta::assert_snapshot!(refused(&contents(&entries_, &all)), @"the dossier would not verify: `records.jsonl`, row 3: draw 1 was served, but the coin chose draw 0");

    let mut entries_ = entries();
    change(&mut entries_, &|exchange| exchange.texts.as_mut().unwrap().answers[1].text.push('!'));
    insta::assert_snapshot!(refused(&contents(&entries_, &all)), @"the dossier would not verify: `records.jsonl`, row 3: its texts are not those that were committed to");

    insta::assert_snapshot!(refused(&contents(&entries(), &[2, 3])), @"the dossier would not verify: `records.jsonl`, row 1: no record before it commits to the coin of epoch 0");

    let mut contents_ = contents(&entries(), &all);
    contents_.coins = vec![(0, CoinKey::from_bytes([8; 32]))];
    insta::assert_snapshot!(refused(&contents_), @"the dossier would not verify: `records.jsonl`, row 1: the revealed coin key of epoch 0 is not the one committed to here");

    contents_.coins.clear();
    insta::assert_snapshot!(refused(&contents_), @"the dossier would not verify: `records.jsonl`, row 2: the coin of epoch 0 is not revealed");

    contents_.coins = vec![(0, coin()), (1, coin())];
    insta::assert_snapshot!(refused(&contents_), @"the dossier would not verify: `coins.json`, row 1: no disclosed record commits to the coin of epoch 1");

    let mut contents_ = contents(&entries(), &all);
    contents_.records[1].proof.pop();
    insta::assert_snapshot!(refused(&contents_), @"the dossier would not verify: `records.jsonl`, row 2: it is not proved to be record 2 of the journal");

    let mut contents_ = contents(&entries(), &all);
    contents_.attachments.push(("../x".to_owned(), Vec::new()));
    insta::assert_snapshot!(refused(&contents_), @"`../x` cannot be the name of an attachment: use letters, digits, `.`, `_` and `-`, and no name twice");
}

#[test]
fn a_folder_in_the_way_stays_as_it_is() {
    let (_parent, dir) = written();
    let error = write(&dir, &contents(&entries(), &[1]), &signer()).unwrap_err();
    assert_eq!(error.code(), "dossier_exists");
    assert!(verify(&dir, None).is_ok());
    assert_eq!(attachment_name("trace", "../a b"), "trace-.._a_b.json");
}

/// The entries with the texts of exchange 3 under some seal, and those texts.
fn sealed() -> (Vec<Entry>, Texts) {
    let mut entries = entries();
    let Entry::Exchange(exchange) = &mut entries[3] else { unreachable!() };
    let texts = exchange.texts.take().unwrap();
    exchange.sealed = Some(anbiq_domain::SealedTexts { key: Keyed(1), bytes: vec![1, 2, 3] });
    // One that had no twin is salted by the coin of its time too.
    exchange.draws.twinning = None;
    (entries, texts)
}

#[test]
fn texts_that_were_under_seal_must_be_those_that_were_committed_to() {
    let (entries, texts) = sealed();
    let parent = tempfile::tempdir().unwrap();
    let written = |name: &str, texts: Vec<(u64, Texts)>| {
        let dir = parent.path().join(name);
        let contents = Contents { texts, ..contents(&entries, &[1, 3, 4]) };
        write(&dir, &contents, &signer()).map(|_| verify(&dir, None).unwrap().texts_opened)
    };
    assert_eq!(written("opened", vec![(3, texts.clone())]).unwrap(), 1);
    assert_eq!(written("closed", Vec::new()).unwrap(), 0);
    let broken = |name: &str, texts| written(name, texts).unwrap_err().to_string();
    let other = Texts { prompt: Prompt::user("say \"no\""), ..texts.clone() };
    insta::assert_snapshot!(broken("other", vec![(3, other)]), @"the dossier would not verify: `records.jsonl`, row 2: the texts that were opened of it are not those that were committed to");
    insta::assert_snapshot!(broken("plain", vec![(4, texts.clone())]), @"the dossier would not verify: `records.jsonl`, row 3: texts were opened of it that it does not hold under seal");
    insta::assert_snapshot!(broken("absent", vec![(2, texts.clone())]), @"the dossier would not verify: `texts.jsonl`: the texts of record 2 are there, but not the record");
    insta::assert_snapshot!(broken("twice", vec![(3, texts.clone()), (3, texts)]), @"the dossier would not verify: `texts.jsonl`, row 2: the texts of record 3 are there twice");
}
