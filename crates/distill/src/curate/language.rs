//! What an answer is written in: script and language, and whether it declines.

use serde::{Deserialize, Serialize};

/// How much of an answer's letters must be of the script that it should be in.
pub(super) const LEAST_SHARE: f64 = 0.9;

/// A family of letters. It tells Russian from English, not English from French.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Script {
    /// Of English, French, Turkish, Vietnamese and many more.
    Latin,
    /// Of Russian, Ukrainian, Serbian and more.
    Cyrillic,
    /// Of Greek.
    Greek,
    /// Of Arabic, Persian, Urdu.
    Arabic,
    /// Of Hebrew and Yiddish.
    Hebrew,
    /// Of Hindi, Marathi, Nepali.
    Devanagari,
    /// Of Chinese; Japanese has its letters and others.
    Han,
    /// Of Japanese: kana and Chinese letters.
    Japanese,
    /// Of Korean.
    Hangul,
    /// Of Thai.
    Thai,
}

impl Script {
    /// The share of the letters of `text` that are of this script; 1 where there are no letters.
    pub(super) fn share(self, text: &str) -> f64 {
        let (mut all, mut own) = (0_u64, 0_u64);
        for letter in text.chars().filter(|letter| letter.is_alphabetic()) {
            all += 1;
            own += u64::from(self.has(letter));
        }
        if all == 0 { 1.0 } else { own as f64 / all as f64 }
    }

    /// By the blocks of Unicode.
    fn has(self, letter: char) -> bool {
        let han = || matches!(letter, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3134f}');
        match self {
            Self::Latin => {
                matches!(letter, 'a'..='z' | 'A'..='Z' | '\u{aa}' | '\u{ba}' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
            }
            Self::Cyrillic => matches!(letter, '\u{400}'..='\u{52f}'),
            Self::Greek => matches!(letter, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}'),
            Self::Arabic => {
                matches!(letter, '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}')
            }
            Self::Hebrew => matches!(letter, '\u{590}'..='\u{5ff}'),
            Self::Devanagari => matches!(letter, '\u{900}'..='\u{97f}'),
            Self::Han => han(),
            Self::Japanese => {
                han() || matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}')
            }
            Self::Hangul => {
                matches!(letter, '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}')
            }
            Self::Thai => matches!(letter, '\u{e00}'..='\u{e7f}'),
        }
    }
}

/// A language, by its code of ISO 639-3 (`eng`, `fra`, `arb`) or its name in English.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(whatlang::Lang);

impl TryFrom<String> for Language {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let known = whatlang::Lang::all().iter().copied();
        let found = known.into_iter().find(|lang| lang.code() == word || lang.eng_name().eq_ignore_ascii_case(&word));
        found
            .map(Self)
            .ok_or_else(|| format!("`{word}` is no language that can be told: give a code of ISO 639-3, such as `eng`"))
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.0.code().to_owned()
    }
}

/// Letters below which no language is told: trigrams of less say little.
const FEWEST_LETTERS: usize = 40;

impl Language {
    /// Is `text` in another language, as far as can be told? A text that is short, or of which the detector is not sure, is in
    /// none: what cannot be told is kept.
    pub(super) fn is_missed_by(self, text: &str) -> bool {
        text.chars().filter(|letter| letter.is_alphabetic()).count() >= FEWEST_LETTERS
            && whatlang::detect(text).is_some_and(|found| found.is_reliable() && found.lang() != self.0)
    }
}

/// How answers begin that decline, in lower case and with plain apostrophes.
const DECLINING: [&str; 18] = [
    "i can't help",
    "i can't assist",
    "i can't provide",
    "i can't fulfill",
    "i cannot help",
    "i cannot assist",
    "i cannot provide",
    "i cannot fulfill",
    "i'm sorry, but",
    "i am sorry, but",
    "sorry, but i can",
    "sorry, i can",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "as an ai",
    "i must decline",
];

/// Does it decline to answer? English only, and by its beginning only: an answer that says so later has answered before.
pub(super) fn declines(text: &str) -> bool {
    let start: String = text.trim_start().chars().take(40).flat_map(char::to_lowercase).collect();
    let start = start.replace('\u{2019}', "'");
    DECLINING.iter().any(|words| start.starts_with(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_told_where_a_text_is_long_enough() {
        let english = Language::try_from("eng".to_owned()).unwrap();
        assert_eq!(english, Language::try_from("English".to_owned()).unwrap());
        let french = "Le vieux meunier porta sept sacs d'orge de l'autre côté du pont avant la tombée de la nuit, comme tous les soirs.";
        assert!(english.is_missed_by(french));
        assert!(!Language::try_from("fra".to_owned()).unwrap().is_missed_by(french));
        for kept in [
            "The old miller carried seven sacks of barley over the bridge before it was dark, as he did every evening.",
            "Oui.",
            "fn main() { }",
        ] {
            assert!(!english.is_missed_by(kept), "{kept}");
        }
        assert!(Language::try_from("klingon".to_owned()).unwrap_err().contains("ISO 639-3"));
    }
}
