use std::collections::HashMap;

use anbiq_domain::Seeded;

/// A context-free grammar with variables; `language.txt` says how it is written.
#[derive(Debug, Clone)]
pub(super) struct Grammar(HashMap<&'static str, Vec<&'static str>>);

/// Values that later parts of the same text refer to.
#[derive(Debug, Clone, Default)]
pub(super) struct Bindings(HashMap<String, String>);

impl Bindings {
    /// `name` stands for `value` from now on.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// What `name` stands for.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn holds(&self, value: &str) -> bool {
        self.0.values().any(|bound| bound == value)
    }
}

impl Grammar {
    /// Reads rules; text before the first rule and lines that begin with `#` are left out.
    pub(super) fn parse(text: &'static str) -> Self {
        let mut rules: HashMap<&'static str, Vec<&'static str>> = HashMap::new();
        let mut current = "";
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(name) => current = name,
                None => rules.entry(current).or_default().extend(line.split(" | ").map(str::trim)),
            }
        }
        Self(rules)
    }

    /// Every alternative of `rule`; none where there is no such rule.
    pub(super) fn alternatives(&self, rule: &str) -> &[&'static str] {
        self.0.get(rule).map_or(&[], Vec::as_slice)
    }

    /// One text of `rule`, as it stands in the grammar: without capitals.
    pub(super) fn expand(&self, rule: &str, bindings: &mut Bindings, random: &mut Seeded) -> String {
        let alternative = random.pick(self.alternatives(rule)).copied().unwrap_or_default();
        self.fill(alternative, bindings, random)
    }

    /// One sentence or more of `rule`, with capitals.
    pub(super) fn write(&self, rule: &str, bindings: &mut Bindings, random: &mut Seeded) -> String {
        polish(&self.expand(rule, bindings, random))
    }

    /// `pattern` with its slots filled.
    pub(super) fn fill(&self, pattern: &str, bindings: &mut Bindings, random: &mut Seeded) -> String {
        let mut text = String::new();
        let mut rest = pattern;
        while let Some((before, (slot, after))) =
            rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            text.push_str(before);
            text.push_str(&self.slot(slot, bindings, random));
            rest = after;
        }
        text.push_str(rest);
        text
    }

    fn slot(&self, slot: &str, bindings: &mut Bindings, random: &mut Seeded) -> String {
        let (name, rule) = match (slot.strip_prefix('!'), slot.split_once('=')) {
            (Some(rule), _) => (rule, rule),
            (None, Some(pair)) => pair,
            (None, None) => match bindings.get(slot) {
                Some(bound) => return bound.to_owned(),
                None => return self.expand(slot, bindings, random),
            },
        };
        let value = self.fresh(rule, bindings, random);
        bindings.set(name, value.as_str());
        value
    }

    /// A value that is not bound yet; a short rule may run out of these, so it gives up after some tries.
    fn fresh(&self, rule: &str, bindings: &mut Bindings, random: &mut Seeded) -> String {
        let mut value = self.expand(rule, bindings, random);
        for _ in 0..8 {
            if !bindings.holds(&value) {
                break;
            }
            value = self.expand(rule, bindings, random);
        }
        value
    }
}

/// Sets capitals at the beginnings of sentences and quotations, and writes `an` before a vowel.
pub(super) fn polish(text: &str) -> String {
    let mut polished = String::with_capacity(text.len() + 8);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let begins = begins_after(&polished, word);
        if !polished.is_empty() {
            if ends_with_article(&polished) && word.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']) {
                polished.push('n');
            }
            polished.push(' ');
        }
        let quoted = word.starts_with('"') && word.len() > 1;
        if begins || quoted {
            let skip = usize::from(quoted);
            polished.push_str(&word[..skip]);
            push_capitalised(&mut polished, &word[skip..]);
        } else {
            polished.push_str(word);
        }
    }
    polished
}

/// Does `word` begin a sentence after `text`? It does not where it only says who spoke.
fn begins_after(text: &str, word: &str) -> bool {
    let ended = text.trim_end_matches('"').ends_with(['.', '!', '?']);
    text.is_empty() || (ended && !(text.ends_with('"') && word == "said"))
}

fn ends_with_article(text: &str) -> bool {
    matches!(text.rsplit(' ').next(), Some("a" | "A" | "\"A"))
}

fn push_capitalised(text: &mut String, word: &str) {
    let mut letters = word.chars();
    if let Some(first) = letters.next() {
        text.extend(first.to_uppercase());
        text.push_str(letters.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_name_stays_what_it_was() {
        let grammar = Grammar::parse("[a]\nx | y\n[s]\n{!a} {a} {b=a} {b}\n");
        let mut random = Seeded::new(1);
        for _ in 0..20 {
            let text = grammar.expand("s", &mut Bindings::default(), &mut random);
            assert!(text == "x x y y" || text == "y y x x", "{text}");
        }
    }

    #[test]
    fn sentences_are_polished() {
        for (raw, polished) in [
            ("a owl and a fox. a end!", "An owl and a fox. An end!"),
            ("it said, \"a apple?\" then it left.", "It said, \"An apple?\" Then it left."),
            ("\"go home. now!\" said a ox.", "\"Go home. Now!\" said an ox."),
        ] {
            assert_eq!(polish(raw), polished);
        }
    }
}
