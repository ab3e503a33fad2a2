//! Texts with many right answers: stories, descriptions, letters and talk.

use anbiq_domain::{Message, Role, Seeded};

use super::grammar::{Bindings, Grammar, polish};

/// A text with what was asked and said before.
pub(super) struct Text {
    pub(super) history: Vec<Message>,
    pub(super) prompt: String,
    pub(super) answer: String,
}

impl Text {
    fn new(prompt: String, answer: String) -> Self {
        Self { history: Vec::new(), prompt, answer }
    }
}

/// A story about the hero, the object and the place of the prompt.
pub(super) fn story(grammar: &Grammar, random: &mut Seeded) -> Text {
    let mut bindings = Bindings::default();
    hero(grammar, &mut bindings, random);
    let act = grammar.expand("act", &mut bindings, random);
    let place = if random.chance(0.5) {
        let place = grammar.expand("place", &mut bindings, random);
        bindings.set("place", place.as_str());
        format!(" {place}")
    } else {
        String::new()
    };
    bindings.set("where", place);
    let pattern = random.pick(grammar.alternatives("story.prompt")).copied().unwrap_or_default();
    let event = if pattern.contains("{act}") { format!("story.{act}") } else { "story.has".to_owned() };
    bindings.set("act", act);
    let prompt = polish(&grammar.fill(pattern, &mut bindings, random));

    let mut rules = vec!["story.open", "story.time", event.as_str()];
    if random.chance(0.6) {
        rules.push("story.turn");
    }
    rules.push("story.end");
    // The place is free where the prompt names none, but a story stays where it is.
    if bindings.get("place").is_none() {
        let place = grammar.expand("place", &mut bindings, random);
        bindings.set("place", place);
    }
    Text::new(prompt, sentences(grammar, &rules, &mut bindings, random))
}

/// A hero of a story: an animal or a person, with a name and pronouns.
fn hero(grammar: &Grammar, bindings: &mut Bindings, random: &mut Seeded) {
    if random.chance(0.6) {
        let animal = grammar.expand("animal", bindings, random);
        bindings.set("hero", animal.as_str());
        bindings.set("animal.hero", animal);
        let name = grammar.expand("pet", bindings, random);
        bindings.set("name", name);
        pronouns(bindings, ["it", "it", "its"]);
    } else {
        let job = grammar.expand("job", bindings, random);
        person(grammar, &job, bindings, random);
        bindings.set("hero", job);
    }
}

/// Binds a name and the pronouns that go with it.
fn person(grammar: &Grammar, job: &str, bindings: &mut Bindings, random: &mut Seeded) {
    let she = match job {
        "king" => false,
        "queen" => true,
        _ => random.chance(0.5),
    };
    let name = grammar.expand(if she { "she" } else { "he" }, bindings, random);
    bindings.set("name", name);
    pronouns(bindings, if she { ["she", "her", "her"] } else { ["he", "him", "his"] });
}

fn pronouns(bindings: &mut Bindings, [subject, object, owner]: [&str; 3]) {
    bindings.set("it", subject);
    bindings.set("him", object);
    bindings.set("its", owner);
}

fn sentences(grammar: &Grammar, rules: &[&str], bindings: &mut Bindings, random: &mut Seeded) -> String {
    let texts: Vec<String> = rules.iter().map(|rule| grammar.expand(rule, bindings, random)).collect();
    polish(&texts.join(" "))
}

/// A description of a place, a person or a thing.
pub(super) fn description(grammar: &Grammar, random: &mut Seeded) -> Text {
    let mut bindings = Bindings::default();
    let rule = match random.below(3) {
        0 => "describe.place",
        1 => "describe.object",
        _ => {
            let job = grammar.expand("job", &mut bindings, random);
            person(grammar, &job, &mut bindings, random);
            bindings.set("job", job);
            "describe.person"
        }
    };
    let prompt = grammar.write(&format!("{rule}.prompt"), &mut bindings, random);
    Text::new(prompt, grammar.write(rule, &mut bindings, random))
}

/// A letter or a note.
pub(super) fn letter(grammar: &Grammar, random: &mut Seeded) -> Text {
    let mut bindings = Bindings::default();
    for name in ["from", "to"] {
        let someone = grammar.expand("name", &mut bindings, random);
        bindings.set(name, someone);
    }
    let topic = grammar.expand("topic", &mut bindings, random);
    bindings.set("topic", topic);
    let prompt = grammar.write("letter.prompt", &mut bindings, random);
    Text::new(prompt, grammar.write("letter", &mut bindings, random))
}

/// What people talk about, with the rule of the answers.
const TALK: [(&str, &str); 9] = [
    ("chat.hello", "chat.hello.answer"),
    ("chat.cook", "chat.cook.answer"),
    ("chat.advice", "chat.advice.answer"),
    ("chat.love", "chat.love.answer"),
    ("chat.season", "chat.season.answer"),
    ("chat.dish", "chat.dish.answer"),
    ("chat.colour", "chat.colour.answer"),
    ("chat.town", "chat.town.answer"),
    ("chat.weather", "chat.weather.answer"),
];

/// How a talk goes on after an answer.
const MORE: [(&str, &str); 2] = [("chat.thanks", "chat.thanks.answer"), ("chat.more", "chat.more.answer")];

/// Small talk; a third of it has been going on for a turn or two.
pub(super) fn chat(grammar: &Grammar, random: &mut Seeded) -> Text {
    let mut text = turn(grammar, &TALK, random);
    let mut turns = 0;
    while turns < 2 && random.chance(0.35) {
        let next = if random.chance(0.5) { turn(grammar, &MORE, random) } else { turn(grammar, &TALK, random) };
        text.history.push(Message::new(Role::User, text.prompt));
        text.history.push(Message::new(Role::Assistant, text.answer));
        text = Text { history: text.history, ..next };
        turns += 1;
    }
    text
}

/// What somebody says to keep a talk going.
pub(super) fn follow_up(grammar: &Grammar, random: &mut Seeded) -> String {
    if random.chance(0.5) { turn(grammar, &MORE, random).prompt } else { turn(grammar, &TALK, random).prompt }
}

fn turn(grammar: &Grammar, talk: &[(&str, &str)], random: &mut Seeded) -> Text {
    let (asked, answered) = random.pick(talk).copied().unwrap_or_default();
    let mut bindings = Bindings::default();
    // A greeting may say a name, and the answer then uses it.
    let name = grammar.expand("name", &mut bindings, random);
    bindings.set("name", name.as_str());
    let prompt = grammar.write(asked, &mut bindings, random);
    let named = asked == "chat.hello" && prompt.contains(&name);
    bindings.set("comma.name", if named { format!(", {name}") } else { String::new() });
    Text::new(prompt, grammar.write(answered, &mut bindings, random))
}
