use anbiq_domain::Seeded;
use proptest::prelude::*;

use super::*;

fn sketcher() -> Sketcher {
    Sketcher::new(&[3; 32])
}

fn sketch(text: &str) -> Sketch {
    sketcher().sketch(&Prompt::user(text))
}

#[test]
fn a_sketch_never_changes() {
    // Journals hold sketches for years; these were printed once, in the older form and in today's.
    let sketch = sketch("Write a short story about a cat and a clock.");
    assert_eq!(serde_json::to_string(&sketch).unwrap(), COMPACT);
    for printed in [PRINTED, COMPACT] {
        assert_eq!(serde_json::from_str::<Sketch>(printed).unwrap(), sketch);
    }
}

const COMPACT: &str = concat!(
    r#""+0m9UVPAONnQR/PJXcaDfwK/FcgR8eErISPbYQ5ePs8BySMqCh4B9AECFWwS+LcsBKfpYQKOW84GtrWCSRyNPxDCzS8DdaZyGOWEkSA7aMAB/k7y"#,
    r#"LgTG3RVcXvQyRawhC6kRbRrq3XUFN+BVG07ruyDu6LMBK6CAOyhtZRnS87g13IInAPtPLUCNHq9a2nRgAAAKAAA""#,
);

const PRINTED: &str = concat!(
    r#"{"exact":"fb49bd5153c038d9","opening":"d047f3c95dc6837f","minhash":""#,
    "02bf15c811f1e12b2123db610e5e3ecf01c9232a0a1e01f40102156c12f8b72c04a7e961028e5bce06b6b582491c8d3f10c2",
    "cd2f0375a67218e58491203b68c001fe4ef22e04c6dd155c5ef43245ac210ba9116d1aeadd750537e0551b4eebbb20eee8b3",
    r#"012ba0803b286d6519d2f3b835dc822700fb4f2d408d1eaf5ada7460","words":10,"flags":0}"#,
);

#[test]
fn case_and_white_space_do_not_count() {
    let one = sketch("Write  a\tShort story\n");
    assert_eq!(one, sketch("write a short story"));
    assert_ne!(one.exact, sketch("write a short story!").exact);
    assert_eq!(one.minhash, sketch("write a short story!").minhash);
    assert_eq!(one, sketcher().sketch(&Prompt::Text("Write a short story".into())));
}

#[test]
fn another_key_gives_another_sketch() {
    let other = Sketcher::new(&[4; 32]).sketch(&Prompt::user("write a short story"));
    let one = sketch("write a short story");
    assert_ne!(one.exact, other.exact);
    assert!(similarity(&one, &other) < 0.1);
}

#[test]
fn messages_before_the_last_count_in_exact_only() {
    let message = |role, content: &str| Message::new(role, content);
    let plain = sketch("and then?");
    let system = sketcher()
        .sketch(&Prompt::Chat(vec![message(Role::System, "You are a poet."), message(Role::User, "and then?")]));
    assert_ne!(plain.exact, system.exact);
    assert_eq!(plain.minhash, system.minhash);
    assert_eq!(system.flags, flags::SYSTEM);
    let turns = sketcher().sketch(&Prompt::Chat(vec![
        message(Role::User, "Tell me a story."),
        message(Role::Assistant, "Once."),
        message(Role::User, "and then?"),
    ]));
    assert_eq!(turns.flags, flags::MULTI_TURN);
}

#[test]
fn templates_share_an_opening_and_are_similar() {
    let a = sketch("Translate the following sentence into French and explain the grammar: the cat sleeps");
    let b = sketch("Translate the following sentence into French and explain the grammar: a storm is coming");
    let c = sketch("How many apples are left if Sara eats three of nine and gives two away?");
    assert_eq!(a.opening, b.opening);
    assert_ne!(a.opening, c.opening);
    assert!(similarity(&a, &b) > 0.3, "{}", similarity(&a, &b));
    assert!(similarity(&a, &c) < 0.1);
}

#[test]
fn similarity_estimates_the_jaccard_index() {
    // Two texts of 100 pairs each that share a known number; averaged over many keys-worth of texts.
    let mut random = Seeded::new(1);
    for shared in [20_usize, 50, 80] {
        let mut total = 0.0;
        for _ in 0..200 {
            let mut fresh = |n: usize| (0..n).map(|_| format!("w{:x}", random.bits())).collect::<Vec<_>>();
            let common = fresh(shared + 1);
            let text = |own: Vec<String>| sketch(&[common.clone(), own].concat().join(" "));
            let (a, b) = (text(fresh(100 - shared)), text(fresh(100 - shared)));
            total += similarity(&a, &b);
        }
        let expected = shared as f64 / (200 - shared) as f64;
        assert!((total / 200.0 - expected).abs() < 0.03, "{shared}: {} for {expected}", total / 200.0);
    }
}

#[test]
fn lexemes_are_found_in_many_languages() {
    let reasoning = [
        "Solve it step by step.",
        "حل المسألة خطوة بخطوة",
        "请一步一步地解答",
        "Resuélvelo paso a paso",
        "Explique étape par étape",
        "Erkläre es Schritt für Schritt",
        "Resolva passo a passo",
        "Реши шаг за шагом",
        "Adım adım çöz",
        "段階的に説明してください",
        "단계별로 설명해 주세요",
        "चरण दर चरण हल करें",
        "Jawab langkah demi langkah",
        "گام به گام حل کن",
    ];
    let grading = [
        "Grade the answer from 1 to 5.",
        "Which response is better?",
        "قيّم الإجابة التالية",
        "请给这个回答打分",
        "Califica esta respuesta",
        "Bewerte die Antwort",
        "Оцени ответ",
        "次の回答を採点",
    ];
    let generation = [
        "Come up with ten new tasks.",
        "اكتب أسئلة عن الفيزياء",
        "请生成一个问题",
        "Genera preguntas de historia",
        "Génère des questions",
        "Придумай вопросы",
        "質問を生成してください",
    ];
    for (flag, texts) in
        [(flags::REASONING, &reasoning[..]), (flags::GRADING, &grading[..]), (flags::GENERATION, &generation[..])]
    {
        for text in texts {
            assert_eq!(sketch(text).flags & flag, flag, "{text}");
        }
    }
    for plain in ["What is the capital of Jordan?", "ما عاصمة الأردن؟", "今天天气怎么样？", "Underrate the film", ""]
    {
        assert_eq!(sketch(plain).flags, 0, "{plain}");
    }
}

#[test]
fn characters_are_words_where_no_spaces_are_written() {
    let found: Vec<_> = words("我爱 rust语言 كتابٌ جديد").collect();
    assert_eq!(found, ["我", "爱", "rust", "语", "言", "كتابٌ", "جديد"]);
}

/// Every word begins where the characters say it, plain or not.
#[test]
fn words_of_plain_texts_are_those_of_any_text() {
    for text in
        ["", "a", "don't stop-now 3.5x", "caf\u{e9} na\u{ef}ve \u{4e00}\u{4e8c}x \u{e01}y", "x\u{64b}\u{64c} -- y"]
    {
        let mut longhand = Vec::new();
        let mut word = String::new();
        for character in text.chars() {
            if stands_alone(character) || !in_word(character) {
                longhand.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
                longhand.extend(stands_alone(character).then(|| character.to_string()));
            } else {
                word.push(character);
            }
        }
        longhand.extend(Some(word).filter(|word| !word.is_empty()));
        assert_eq!(words(text).collect::<Vec<_>>(), longhand, "{text}");
    }
}

proptest! {
    #[test]
    fn a_conversation_has_the_sketches_of_its_prompts(
        said in proptest::collection::vec((0_usize..3, "[ a-zA-Z<>\u{1}\u{e9}\u{4e00}\\n]{0,20}|think step by step|grade this"), 0..8)
    ) {
        let roles = [Role::System, Role::User, Role::Assistant];
        let messages: Vec<Message> = said.iter().map(|(role, text)| Message::new(roles[*role], text.as_str())).collect();
        let ends = (1..=messages.len()).filter(|end| messages[end - 1].role == Role::User);
        let each: Vec<Sketch> = ends.map(|end| sketcher().sketch(&Prompt::Chat(messages[..end].to_vec()))).collect();
        prop_assert_eq!(sketcher().conversation(&messages).collect::<Vec<_>>(), each);
    }

    #[test]
    fn any_text_has_a_sketch(text in "\\PC{0,200}") {
        let one = sketch(&text);
        prop_assert_eq!(&one, &sketch(&text));
        prop_assert_eq!(similarity(&one, &one), 1.0);
        let json = serde_json::to_string(&one).unwrap();
        prop_assert_eq!(serde_json::from_str::<Sketch>(&json).unwrap(), one);
    }
}

/// Not a test of correctness: `cargo test -p anbiq-statistics -- --ignored --nocapture speed` prints the time.
#[test]
#[ignore = "prints a time"]
fn speed() {
    for words in [10, 100, 1000, 10_000] {
        let text = (0..words).map(|word| format!("word{}", word % 977)).collect::<Vec<_>>().join(" ");
        let (prompt, sketcher) = (Prompt::user(text), sketcher());
        let start = std::time::Instant::now();
        for _ in 0..200 {
            std::hint::black_box(sketcher.sketch(&prompt));
        }
        println!("{words} words: {:?} a sketch", start.elapsed() / 200);
    }
}
