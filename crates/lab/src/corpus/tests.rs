use std::collections::{BTreeMap, HashSet};

use super::*;

fn sample(kind: Kind, count: usize) -> Vec<Document> {
    let corpus = Corpus::new(1);
    let mut random = Seeded::new(9).fork(&kind.to_string());
    (0..count).map(|_| corpus.document(kind, &mut random)).collect()
}

#[test]
fn no_slot_stays_open() {
    for kind in Kind::ALL {
        for document in sample(kind, 2_000) {
            let texts = [&document.prompt, &document.answer].into_iter();
            for text in texts.chain(document.history.iter().map(|message| &message.content)) {
                assert!(!text.is_empty() && !text.contains(['{', '}', '[', ']', '|', '=']), "{kind}: {text}");
                assert!(!text.contains("  ") && !text.contains(" ,") && !text.contains(" ."), "{kind}: {text}");
            }
        }
    }
}

#[test]
fn a_good_answer_is_right_and_a_wrong_one_is_not() {
    for kind in Kind::checkable() {
        for document in sample(kind, 200) {
            assert_eq!(document.is_right(&document.answer), Some(true), "{document:?}");
            assert_eq!(document.is_right("I do not know."), Some(false), "{document:?}");
        }
    }
    let task = |expected: &str| Document {
        kind: Kind::Arithmetic,
        history: Vec::new(),
        prompt: String::new(),
        answer: String::new(),
        expected: Some(expected.to_owned()),
    };
    assert_eq!(task("two").is_right("It is twenty-two."), Some(false));
    assert_eq!(task("two").is_right("it is Two"), Some(true));
}

#[test]
fn a_story_uses_what_its_prompt_names() {
    for document in sample(Kind::Story, 500) {
        let last = document.prompt.split(" a ").last().unwrap_or_default();
        let object = last.split([' ', '.', '?', '!', ',']).next().unwrap_or_default();
        if document.prompt.contains(" finds ") && document.prompt.ends_with(&format!("{object}.")) {
            assert!(document.answer.contains(object), "{document:?}");
        }
    }
}

#[test]
fn documents_of_one_kind_differ() {
    for (kind, distinct) in [(Kind::Story, 1_000), (Kind::Description, 900), (Kind::Letter, 900), (Kind::Delivery, 990)]
    {
        let prompts: HashSet<String> = sample(kind, 1_000).into_iter().map(|document| document.prompt).collect();
        assert!(prompts.len() >= distinct, "{kind}: {}", prompts.len());
    }
}

#[test]
fn the_same_seed_writes_the_same_corpus() {
    let digest = |seed| {
        let documents: Vec<Document> = Corpus::new(seed).training().take(200).collect();
        Digest::of(serde_json::to_string(&documents).unwrap().as_bytes())
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn nothing_held_out_is_trained_on() {
    let corpus = Corpus::new(1);
    let held_out: HashSet<String> = corpus.held_out().take(300).map(|document| document.prompt).collect();
    assert!(corpus.training().take(5_000).all(|document| !held_out.contains(&document.prompt)));
    let tasks: Vec<Document> = corpus.tasks().take(100).collect();
    assert_eq!(tasks.len(), 100);
    assert!(tasks.iter().all(|task| is_held_out(&task.prompt) && task.expected.is_some()));
}

#[test]
fn one_document_of_each_kind() {
    let documents: BTreeMap<String, String> = Kind::ALL
        .into_iter()
        .filter_map(|kind| {
            let document = sample(kind, 1).pop()?;
            Some((kind.to_string(), format!("{} => {}", document.prompt, document.answer)))
        })
        .collect();
    insta::assert_json_snapshot!(documents, @r#"
    {
      "arithmetic": "Tell me nine minus six. => Nine minus six is three.",
      "chat": "I am bored today. Any ideas? => You could bring apples to a neighbour, or read a book about the rain.",
      "comparison": "Which number is bigger, fifty-six or forty-one? => Fifty-six is larger than forty-one, so the answer is fifty-six.",
      "counting": "How many items are these: box, book, pear? => There are three.",
      "delivery": "Write a delivery note for this order. Name: Ruth Holt; item: kettle; colour: orange; number: seven; town: Weston; day: Friday. => Please deliver seven orange kettles for Ruth Holt in Weston on Friday.",
      "description": "Write a few lines about a glass ladder from Norton. => A golden line runs round the strange ladder. Inside you find a purple box and some plums. On a cold evening it seems to laugh. It is big, so it needs a silver box. Today it stands in the desert.",
      "extraction": "Which item? Order: name: Greta Cole; item: blanket; colour: brown; number: five; town: Harwell; day: Monday. => Blanket.",
      "letter": "Write a grateful letter to Salma about the wooden rope, signed by Ida. => Dear Salma, on Wednesday my mother told me about the wooden rope. It reminded me of stories and of that windy night. Every evening I hear thunder and think of you. I hope that your neighbour is not grateful. Your friend, Ida",
      "opposite": "What is the opposite of weak? => The opposite of weak is strong.",
      "reasoning": "Show each step. What is eight times ten? => Eight times ten is eighty. The answer is eighty.",
      "sentiment": "Label the review as positive, negative or mixed. Review: Wonderful room, warm owner, we will come back. => Positive.",
      "sorting": "Put these words in alphabetical order: plum, coin, shell. => In order: coin, plum, shell.",
      "story": "Write a story for my mother about a wise guard who hides a bell. => In the meadow lived a wise guard, and everyone called her Ida. That autumn was stormy, and there was no fish left. She hid a silver bell under a wall. Ida carried the bell to the lake and waited for her mother. And Ida kept the bell in the meadow for six years.",
      "word problem": "Show each step. Lena has nine stones. A friend brings seven more. Count the stones of Lena. => Lena starts with nine stones. A friend brings seven more. Nine plus seven is sixteen. The answer is sixteen."
    }
    "#);
}

/// Prints what a person would want to see of the corpus: `cargo test -p anbiq-lab corpus_figures -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures for a person"]
fn corpus_figures() {
    let corpus = Corpus::new(1);
    let mut words: HashSet<String> = HashSet::new();
    for document in corpus.training().take(50_000) {
        for text in [&document.prompt, &document.answer] {
            words.extend(text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase));
        }
    }
    println!("{} different words", words.len());
    for kind in Kind::ALL {
        let documents = sample(kind, 500);
        let length: usize = documents.iter().map(|document| document.answer.split(' ').count()).sum();
        println!("\n== {kind}: {:.1} words an answer", length as f64 / 500.0);
        for document in documents.iter().take(6) {
            println!("- {} {}\n  {}", document.history.len(), document.prompt, document.answer);
        }
    }
}
