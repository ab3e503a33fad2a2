//! Generated prompts: an open vocabulary in recurring moulds.

use anbiq_domain::Seeded;

use super::phrases::{FAMILIES, Phrases};

/// `@` stands for a slot: `@w` a word, `@n` a number, `@t` a thing to programme, `@l` a language, `@s` a subject, `@d` a deed.
const CHAT: [&str; 16] = [
    "what is the best way to cook @w with @w",
    "my @w keeps making a strange noise when i @d it, is that normal",
    "can you explain @s to me like i am @n",
    "hello, how are you today",
    "i have a meeting about @s tomorrow and i am nervous",
    "who invented the @w",
    "thanks",
    "do you think @w is better than @w for a beginner",
    "tell me more",
    "write a short birthday note for my @w who likes @s",
    "is it true that @s has something to do with @w",
    "i feel tired of @s lately",
    "what should i pack for @n days in @w",
    "give me a name for a @w shop",
    "how do i say @w politely",
    "ok, and what about @s",
];
const APPLICATIONS: [&str; 24] = [
    "Summarise the ticket in one sentence.\nCustomer @w wrote on day @n: the @w that I bought does not @d any more, and @w says @n.",
    "Write a slogan for the product below.\nProduct: @w @w, made of @w, for people who love @s.",
    "Extract the invoice number and the amount.\nInvoice @n from @w for @n @ws, due in @n days.",
    "Translate into plain words: the @w of @w shall @d the @w within @n days of @s.",
    "You are the assistant of @w Bank. Answer shortly. Question: why was I charged @n for @w?",
    "Rate the fit of the candidate. Candidate: @n years of @s, worked at @w, knows @w. Role: @s.",
    "Rewrite the listing so that it sells. Listing: @n rooms near @w, with a @w and a @w.",
    "Suggest three tags for this article about @s and @w, written by @w in @n.",
    "Draft a reply to the complaint: order @n of @w came without the @w.",
    "Turn the note into a bullet list. Note: @w needs @n @ws, then @d the @w, ask @w about @s.",
    "Which department should handle this? Message: the @w in room @n does not @d.",
    "Explain this alert to an operator. Alert: @w on host @w above @n for @n minutes.",
    "Write a product description of at most @n words. Product: @w for @s.",
    "Shorten the following to @n characters: @w and @w met at @w to talk of @s and to @d a @w.",
    "Given the recipe, list what to buy. Recipe: @n @ws, @n @ws, a spoon of @w, then @d.",
    "Is this review about shipping or about quality? Review: my @w was @w after @n days.",
    "Make a subject line for a mail that tells @w about @s at @w.",
    "Fill the form. Name: @w @w. Wish: to @d a @w. Date: day @n. Reason: @s.",
    "Answer from the context only.\nContext: @w was founded in @n by @w. It makes @ws for @s and once tried to @d a @w.\nQuestion: what does @w make?",
    "Use only these passages.\nPassage 1: the @w of @w holds @n @ws. Passage 2: @s is forbidden near @w.\nWhat is allowed?",
    "Correct the grammar and return the text only: yesterday @w have @d the @w with @n @w.",
    "Classify the sentiment of the tweet: @w is so @w, I would @d it @n times!",
    "Label the log line as error, warning or fine: @w failed to @d @w after @n ms.",
    "Is the comment rude? Comment: only a @w would @d a @w for @n.",
];
const BENCHMARKS: [&str; 6] = [
    "@w has @n @ws and buys @n more for @n each. How much does @w pay?",
    "True or false: not ( @n > @n ) and ( @n < @n ).",
    "Which is the odd one out? Options: (A) @w (B) @w (C) @w",
    "If all @ws are @ws and no @w is a @w, can a @w @d? Options: yes, no",
    "A train leaves @w at @n and arrives in @w at @n. How long does it take?",
    "Complete the sentence: the @w could not @d because of the @w",
];
const CODE: [&str; 8] = [
    "Write a @l function that @t",
    "fix this: @l says `@w is not defined` when I @d the @w",
    "add a test for the case where @w is @n",
    "How would you @d a list of @ws in @l?",
    "refactor the module @w so that it can @d @ws",
    "Create a class @w in @l with a method that @t",
    "why does @w return @n instead of @n",
    "Write a query that counts @ws by @w",
];
const GENERAL: [&str; 14] = [
    "Write an essay on how @s changed @w.",
    "Give @n reasons why a @w should @d.",
    "Compare @s with @w and say which matters more for @w.",
    "Explain step by step how to @d a @w.",
    "Write a dialogue between a @w and a @w about @s.",
    "Summarise the history of @s in @n sentences.",
    "Propose an experiment that shows whether @w influences @s.",
    "Invent a story in which a @w loses a @w near @w.",
    "List common mistakes when one has to @d a @w, and how to avoid them.",
    "Describe the taste of @w to somebody who only knows @w.",
    "Argue for and against @s.",
    "Plan a lesson of @n minutes about @s for @ws.",
    "Write a poem about @w and @w.",
    "What would happen if every @w could @d?",
];
const EVOLVED: [&str; 14] = [
    "@@ Add the constraint that @w must be at most @n.",
    "@@ Think step by step and explain why each step is right.",
    "@@ Assume that @w is given as a list of @n @ws.",
    "Rewrite the task so that it also covers @s, then solve it: @@",
    "@@ Give the answer for @n and for @n and compare them.",
    "@@ Handle the case in which @w is missing.",
    "@@ Then say how the answer changes if one has to @d first.",
    "Solve the following and show your reasoning. @@ Use @w as an example.",
    "@@ Do it without @ws.",
    "@@ Explain it to a @w in no more than @n sentences.",
    "Given a @w of size @n: @@",
    "@@ Include a table with @n rows about @s.",
    "@@ Consider both @w and @w.",
    "First list what is needed to @d, then answer: @@",
];
const SUBJECTS: [&str; 20] = [
    "the tides",
    "old maps",
    "sleep",
    "local elections",
    "bread",
    "steam engines",
    "the plague",
    "card games",
    "bees",
    "weather forecasts",
    "cheap flights",
    "handwriting",
    "city trees",
    "tax forms",
    "chess openings",
    "coral reefs",
    "choirs",
    "bridges",
    "glass",
    "rivers",
];
const DEEDS: [&str; 16] = [
    "sort",
    "repair",
    "paint",
    "measure",
    "translate",
    "plant",
    "merge",
    "count",
    "clean",
    "copy",
    "store",
    "compare",
    "filter",
    "open",
    "weigh",
    "fold",
];
const TASKS: [&str; 12] = [
    "returns the largest of @n numbers",
    "reverses a string",
    "reads a file of @ws and counts them",
    "checks whether a @w is valid",
    "computes the @w of a matrix",
    "merges two lists of @ws",
    "parses a date",
    "draws a @w with @n sides",
    "finds duplicates in a @w",
    "sends a request to @w",
    "caches the last @n results",
    "converts @ws to @ws",
];
const LANGUAGES: [&str; 8] = ["Python", "JavaScript", "C++", "Rust", "Java", "Go", "SQL", "Ruby"];
const SYLLABLES: [&str; 24] = [
    "ba", "ko", "ri", "ten", "mu", "las", "ve", "dor", "ni", "pal", "su", "ger", "ho", "mi", "tra", "bel", "cu", "fen",
    "jo", "wi", "zan", "qui", "lo", "per",
];

/// Everything, generated.
pub(super) fn phrases(random: &mut Seeded) -> Phrases {
    let filled = |moulds: &[&str], count: usize, random: &mut Seeded| -> Vec<String> {
        (0..count).map(|_| fill(random.pick(moulds).copied().unwrap_or(""), random)).collect()
    };
    let sessions = (0..4_000).map(|_| {
        let turns = 1 + random.below(4);
        filled(&CHAT, turns, random)
    });
    let sessions = sessions.collect();
    let templates = APPLICATIONS.iter().map(|mould| (0..120).map(|_| fill(mould, random)).collect()).collect();
    let benchmarks = BENCHMARKS.iter().map(|mould| (0..250).map(|_| fill(mould, random)).collect()).collect();
    let code = filled(&CODE, 2_000, random);
    let mut seeds: [Vec<String>; FAMILIES] = Default::default();
    seeds[0] = filled(&CODE, 4_000, random);
    seeds[1] = filled(&BENCHMARKS[..1], 4_000, random);
    seeds[2] = filled(&GENERAL, 4_000, random);
    for family in &mut seeds {
        family.sort();
        family.dedup();
    }
    Phrases { sessions, templates, benchmarks, code, seeds, real: false }
}

/// A task grown from `seed`, as a machine that invents instructions does.
pub(super) fn evolved(seed: &str, random: &mut Seeded) -> String {
    let mould = random.pick(&EVOLVED).copied().unwrap_or("@@");
    fill(mould, random).replace("@@", seed)
}

/// Fills the slots of a mould; `@@` stays.
fn fill(mould: &str, random: &mut Seeded) -> String {
    let mut text = String::with_capacity(mould.len() + 40);
    let mut rest = mould;
    while let Some(at) = rest.find('@') {
        text.push_str(&rest[..at]);
        let slot = rest[at + 1..].chars().next();
        rest = rest.get(at + 2..).unwrap_or("");
        match slot {
            Some('w') => text.push_str(&word(random)),
            Some('n') => text.push_str(&random.below(400).to_string()),
            Some('s') => text.push_str(random.pick(&SUBJECTS).copied().unwrap_or("")),
            Some('d') => text.push_str(random.pick(&DEEDS).copied().unwrap_or("")),
            Some('l') => text.push_str(random.pick(&LANGUAGES).copied().unwrap_or("")),
            Some('t') => text.push_str(&fill(random.pick(&TASKS).copied().unwrap_or(""), random)),
            _ => text.push_str("@@"),
        }
    }
    text + rest
}

/// A word that nobody knows.
fn word(random: &mut Seeded) -> String {
    (0..2 + random.below(2)).filter_map(|_| random.pick(&SYLLABLES).copied()).collect()
}
