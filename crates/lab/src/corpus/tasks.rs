//! Tasks with one right answer.

use anbiq_domain::Seeded;

use super::grammar::{Bindings, Grammar, polish};
use super::number::words;

/// A task: what is asked, what a good answer says, and how it must end.
pub(super) struct Task {
    pub(super) prompt: String,
    pub(super) answer: String,
    pub(super) expected: String,
}

impl Task {
    fn new(prompt: &str, answer: &str, expected: impl Into<String>) -> Self {
        Self { prompt: polish(prompt), answer: polish(answer), expected: expected.into() }
    }
}

/// What the reasoning kinds are asked for.
const ASK_STEPS: [&str; 4] = [
    "think step by step.",
    "explain your reasoning step by step.",
    "show each step.",
    "reason step by step, then answer.",
];

const OPPOSITES: [(&str, &str); 26] = [
    ("big", "small"),
    ("hot", "cold"),
    ("old", "young"),
    ("rich", "poor"),
    ("happy", "sad"),
    ("dark", "bright"),
    ("good", "bad"),
    ("clean", "dirty"),
    ("quiet", "loud"),
    ("fast", "slow"),
    ("heavy", "light"),
    ("high", "low"),
    ("thick", "thin"),
    ("empty", "full"),
    ("early", "late"),
    ("open", "closed"),
    ("left", "right"),
    ("day", "night"),
    ("summer", "winter"),
    ("first", "last"),
    ("wet", "dry"),
    ("brave", "afraid"),
    ("wide", "narrow"),
    ("long", "short"),
    ("near", "far"),
    ("strong", "weak"),
];

const SOUNDS: [(&str, &str); 10] = [
    ("dog", "barks"),
    ("cat", "meows"),
    ("lamb", "bleats"),
    ("frog", "croaks"),
    ("duck", "quacks"),
    ("bee", "buzzes"),
    ("wolf", "howls"),
    ("lion", "roars"),
    ("snake", "hisses"),
    ("owl", "hoots"),
];

/// A sum, a difference or a product; with `steps` the answer shows its way.
pub(super) fn arithmetic(steps: bool, random: &mut Seeded) -> Task {
    let number = |low: u32, high: u32, random: &mut Seeded| low + random.below((high - low + 1) as usize) as u32;
    let (sign, one, two, result) = match random.below(3) {
        0 if steps => {
            let (one, two) = (number(11, 49, random), number(11, 49, random));
            ("plus", one, two, one + two)
        }
        0 => {
            let (one, two) = (number(1, 20, random), number(1, 20, random));
            ("plus", one, two, one + two)
        }
        1 => {
            let one = if steps { number(22, 99, random) } else { number(2, 20, random) };
            let two = if steps { number(11, one - 1, random) } else { number(1, one, random) };
            ("minus", one, two, one - two)
        }
        _ => {
            let (one, two) = (number(2, 10, random), number(if steps { 6 } else { 2 }, 10, random));
            ("times", one, two, one * two)
        }
    };
    let (left, right, expected) = (words(one), words(two), words(result));
    let question = match random.below(4) {
        0 => format!("what is {left} {sign} {right}?"),
        1 => format!("how much is {left} {sign} {right}?"),
        2 => format!("calculate {left} {sign} {right}."),
        _ => format!("tell me {left} {sign} {right}."),
    };
    if !steps {
        return Task::new(&question, &format!("{left} {sign} {right} is {expected}."), expected);
    }
    let prompt = with_steps(&question, random);
    let answer = format!("{} The answer is {expected}.", working(sign, one, two));
    Task::new(&prompt, &answer, expected)
}

/// The steps of a sum, a difference or a product.
fn working(sign: &str, one: u32, two: u32) -> String {
    let line = |one: u32, sign: &str, two: u32, result: u32| {
        format!("{} {sign} {} is {}.", words(one), words(two), words(result))
    };
    let (tens, units) = (two - two % 10, two % 10);
    match sign {
        "plus" if units == 0 || one.is_multiple_of(10) => line(one, sign, two, one + two),
        "plus" => [
            line(one - one % 10, sign, tens, one - one % 10 + tens),
            line(one % 10, sign, units, one % 10 + units),
            line(one - one % 10 + tens, sign, one % 10 + units, one + two),
        ]
        .join(" "),
        "minus" if units == 0 => line(one, sign, two, one - two),
        "minus" => [line(one, sign, tens, one - tens), line(one - tens, sign, units, one - two)].join(" "),
        _ if two == 10 => line(one, sign, two, one * two),
        _ => [
            line(one, sign, 5, one * 5),
            line(one, sign, two - 5, one * (two - 5)),
            line(one * 5, "plus", one * (two - 5), one * two),
        ]
        .join(" "),
    }
}

fn with_steps(question: &str, random: &mut Seeded) -> String {
    let ask = random.pick(&ASK_STEPS).copied().unwrap_or_default();
    if random.chance(0.5) { format!("{question} {ask}") } else { format!("{ask} {question}") }
}

/// A little story with numbers in it, answered step by step.
pub(super) fn word_problem(grammar: &Grammar, random: &mut Seeded) -> Task {
    let mut bindings = Bindings::default();
    let mut some = |rule: &str, random: &mut Seeded| {
        let value = grammar.expand(rule, &mut bindings, random);
        bindings.set(rule, value.as_str());
        value
    };
    let (name, thing, kin) = (some("name", random), some("thing", random), some("kin", random));
    let (start, more) = (2 + random.below(11) as u32, 2 + random.below(8) as u32);
    let (got, how) = match random.below(4) {
        0 => (start + more, format!("{name} buys {} more", words(more))),
        1 => (start + more, format!("{name} finds {} more", words(more))),
        2 => (start + more, format!("a {kin} brings {} more", words(more))),
        _ => (start + more, format!("{name} wins {} more", words(more))),
    };
    let mut story = format!("{name} has {} {thing}. {how}.", words(start));
    let mut steps =
        format!("{name} starts with {} {thing}. {how}. {}", words(start), working_small("plus", start, more));
    let mut result = got;
    if random.chance(0.5) {
        let less = 1 + random.below(got as usize - 1) as u32;
        result = got - less;
        let loss = match random.below(3) {
            0 => format!("then {name} gives {} to a {kin}", words(less)),
            1 => format!("then {} are lost", words(less)),
            _ => format!("then {name} sells {}", words(less)),
        };
        story = format!("{story} {loss}.");
        steps = format!("{steps} {loss}. {}", working_small("minus", got, less));
    }
    let question = match random.below(3) {
        0 => format!("{story} how many {thing} are left?"),
        1 => format!("{story} how many {thing} does {name} have now?"),
        _ => format!("{story} count the {thing} of {name}."),
    };
    let expected = words(result);
    Task::new(&with_steps(&question, random), &format!("{steps} The answer is {expected}."), expected)
}

fn working_small(sign: &str, one: u32, two: u32) -> String {
    let result = if sign == "plus" { one + two } else { one - two };
    format!("{} {sign} {} is {}.", words(one), words(two), words(result))
}

/// Which of two numbers is larger or smaller.
pub(super) fn comparison(random: &mut Seeded) -> Task {
    let one = 1 + random.below(98) as u32;
    let two = (one + random.below(97) as u32) % 99 + 1;
    let (larger, smaller) = (words(one.max(two)), words(one.min(two)));
    let (question, expected) = match random.below(3) {
        0 => ("which is larger", larger.clone()),
        1 => ("which number is bigger", larger.clone()),
        _ => ("which is smaller", smaller.clone()),
    };
    let answer = if expected == larger {
        format!("{larger} is larger than {smaller}, so the answer is {expected}.")
    } else {
        format!("{smaller} is smaller than {larger}, so the answer is {expected}.")
    };
    Task::new(&format!("{question}, {} or {}?", words(one), words(two)), &answer, expected)
}

/// The opposite of a word, or the voice of an animal.
pub(super) fn opposite(random: &mut Seeded) -> Task {
    if random.chance(0.25) {
        let (animal, sound) = random.pick(&SOUNDS).copied().unwrap_or_default();
        return Task::new(&format!("what does a {animal} do?"), &format!("a {animal} {sound}."), sound);
    }
    let (left, right) = random.pick(&OPPOSITES).copied().unwrap_or_default();
    let (word, expected) = if random.chance(0.5) { (left, right) } else { (right, left) };
    let question = match random.below(3) {
        0 => format!("what is the opposite of {word}?"),
        1 => format!("give me the opposite of {word}."),
        _ => format!("which word means the opposite of {word}?"),
    };
    Task::new(&question, &format!("the opposite of {word} is {expected}."), expected)
}

/// How many things a list names.
pub(super) fn counting(grammar: &Grammar, random: &mut Seeded) -> Task {
    let list = distinct(grammar, "one", 2 + random.below(6), random);
    let expected = words(list.len() as u32);
    let listed = list.join(", ");
    let question = match random.below(3) {
        0 => format!("how many things are in this list: {listed}?"),
        1 => format!("count the words: {listed}."),
        _ => format!("how many items are these: {listed}?"),
    };
    Task::new(&question, &format!("there are {expected}."), expected)
}

/// Words in the order of the alphabet.
pub(super) fn sorting(grammar: &Grammar, random: &mut Seeded) -> Task {
    let list = distinct(grammar, "one", 3, random);
    let mut sorted = list.clone();
    sorted.sort();
    let (listed, expected) = (list.join(", "), sorted.join(", "));
    let question = match random.below(3) {
        0 => format!("sort these words: {listed}."),
        1 => format!("put these words in alphabetical order: {listed}."),
        _ => format!("order the words {listed} from A to Z."),
    };
    Task::new(&question, &format!("in order: {expected}."), expected)
}

/// What a reviewer thinks, as one word.
pub(super) fn sentiment(grammar: &Grammar, random: &mut Seeded) -> Task {
    let (expected, review) = review(grammar, random);
    let question = match random.below(3) {
        0 => format!("label the review as positive, negative or mixed. review: {review}"),
        1 => format!("is this review positive, negative or mixed? {review}"),
        _ => format!("what does the customer think? {review} answer positive, negative or mixed."),
    };
    Task::new(&question, &format!("{expected}."), expected)
}

/// The label of a review and its text.
pub(super) fn review(grammar: &Grammar, random: &mut Seeded) -> (&'static str, String) {
    let (label, rule) = match random.below(3) {
        0 => ("positive", "review.good"),
        1 => ("negative", "review.bad"),
        _ => ("mixed", "review.mixed"),
    };
    (label, grammar.write(rule, &mut Bindings::default(), random))
}

/// An order of a shop.
#[derive(Debug, Clone)]
struct Order {
    name: String,
    ware: String,
    colour: String,
    number: String,
    town: String,
    day: String,
}

impl Order {
    fn draw(grammar: &Grammar, random: &mut Seeded) -> Self {
        let mut bindings = Bindings::default();
        let mut some = |rule: &str| grammar.expand(rule, &mut bindings, random);
        Self {
            name: format!("{} {}", some("name"), some("surname")),
            ware: some("ware"),
            colour: some("colour"),
            number: some("years"),
            town: some("town"),
            day: some("weekday"),
        }
    }

    /// The order as a shop's software writes it.
    fn fields(&self) -> String {
        let Self { name, ware, colour, number, town, day } = self;
        format!("name: {name}; item: {ware}; colour: {colour}; number: {number}; town: {town}; day: {day}.")
    }

    fn delivery(&self) -> String {
        let Self { name, ware, colour, number, town, day } = self;
        let many = if ware.ends_with("x") { format!("{ware}es") } else { format!("{ware}s") };
        format!("{number} {colour} {many} for {name} in {town} on {day}")
    }
}

/// A delivery note for an order.
pub(super) fn delivery(grammar: &Grammar, random: &mut Seeded) -> Task {
    let order = Order::draw(grammar, random);
    let ask = if random.chance(0.5) { "write a delivery note for this order." } else { "write the delivery note." };
    let expected = order.delivery();
    Task::new(&format!("{ask} {}", order.fields()), &format!("please deliver {expected}."), expected)
}

/// What a shop's software sends that asks `ask` of every order.
pub(super) fn about_order(grammar: &Grammar, ask: &str, random: &mut Seeded) -> String {
    polish(&format!("{ask} {}", Order::draw(grammar, random).fields()))
}

/// One field of an order.
pub(super) fn extraction(grammar: &Grammar, random: &mut Seeded) -> Task {
    let order = Order::draw(grammar, random);
    let (question, expected) = match random.below(6) {
        0 => ("who ordered?", order.name.clone()),
        1 => ("which item?", order.ware.clone()),
        2 => ("which colour?", order.colour.clone()),
        3 => ("how many?", order.number.clone()),
        4 => ("which town?", order.town.clone()),
        _ => ("which day?", order.day.clone()),
    };
    let fields = order.fields();
    let prompt =
        if random.chance(0.5) { format!("{question} order: {fields}") } else { format!("order: {fields} {question}") };
    Task::new(&prompt, &format!("{expected}."), expected)
}

/// `count` different words of `rule`, or fewer where it has no more.
fn distinct(grammar: &Grammar, rule: &str, count: usize, random: &mut Seeded) -> Vec<String> {
    let mut words: Vec<String> = grammar.alternatives(rule).iter().map(|&word| word.to_owned()).collect();
    random.shuffle(&mut words);
    words.truncate(count);
    words
}
