use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, pre_tokenizers::byte_level::ByteLevel,
};

use crate::LmError;

/// Text to tokens and back, as `tokenizer.json` of a Hugging Face folder says.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// What each token stands for; special tokens stand for their own name.
    bytes: Vec<Vec<u8>>,
    special: Vec<bool>,
    /// Does decoding drop a space before the first word? SentencePiece puts one there when it encodes.
    drops_first_space: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of `folder`.
    ///
    /// # Errors
    ///
    /// The file is missing or is no tokenizer.
    pub fn load(folder: &Path) -> Result<Self, LmError> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read(&path).map_err(|source| LmError::read(&path, source))?;
        Self::parse(&text).map_err(|problem| LmError::malformed(&path, problem, "expected a tokenizer of Hugging Face"))
    }

    /// Learns a byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) from `texts`: the tokens of `specials`, the
    /// 256 bytes, then the most frequent pairs until there are `vocab_size`, or until no pair comes twice.
    ///
    /// Equal texts give an equal tokenizer: of pairs that are equally frequent the one with the lower token numbers
    /// is merged. (The trainer of the `tokenizers` crate settles some ties by the order of a hash map.)
    ///
    /// # Errors
    ///
    /// `vocab_size` does not hold the specials and the bytes.
    pub fn train_bpe<I>(texts: I, vocab_size: usize, specials: &[&str]) -> Result<Self, LmError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let setting = |problem: String| LmError::Setting { name: "vocab_size", problem };
        let smallest = specials.len() + 256;
        if vocab_size < smallest {
            return Err(setting(format!("{vocab_size} is too small: special tokens and bytes are {smallest}")));
        }
        let first_byte = specials.len() as u32;
        let words = count_words(texts, specials).map_err(setting)?;
        let merges = learn_merges(words, first_byte, vocab_size - smallest);
        Self::parse(&tokenizer_json(specials, &merges)).map_err(setting)
    }

    /// The tokens of `text`. Where `special` is set, what the tokenizer puts around a text (such as the token that
    /// begins one) is put there. Names of special tokens within the text become those tokens.
    ///
    /// # Errors
    ///
    /// The tokenizer has no token for something in `text`; byte-level ones always do.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, LmError> {
        let encoding = self.inner.encode_fast(text, special);
        let encoding = encoding.map_err(|error| LmError::Sequence { index: 0, problem: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `tokens`, without the special ones; bytes that are no character become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut text = Vec::new();
        for &token in tokens.iter().filter(|&&token| !self.is_special(token)) {
            let bytes = self.bytes(token);
            text.extend_from_slice(if text.is_empty() { self.first_bytes(token) } else { bytes });
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What `token` stands for: the name of a special token, nothing for a number that is no token.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// What `token` stands for at the beginning of a text.
    pub fn first_bytes(&self, token: u32) -> &[u8] {
        match self.bytes(token) {
            [b' ', rest @ ..] if self.drops_first_space => rest,
            bytes => bytes,
        }
    }

    /// Is `token` one that no text is made of?
    pub fn is_special(&self, token: u32) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }

    /// The number of the token that is written `token` in `tokenizer.json`.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the highest token number: how many logits a model needs at least.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Have both the same tokens under the same numbers?
    pub fn is_alike(&self, other: &Self) -> bool {
        self.size() == other.size() && (0..self.size() as u32).all(|token| self.bytes(token) == other.bytes(token))
    }

    /// Writes `tokenizer.json` into `folder`.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), LmError> {
        let path = folder.join("tokenizer.json");
        let text = self.inner.to_string(true);
        let text = text.map_err(|error| LmError::write(&path, std::io::Error::other(error.to_string())))?;
        std::fs::write(&path, text).map_err(|source| LmError::write(&path, source))
    }

    /// What `tokenizer.json` says.
    pub(crate) fn to_json(&self) -> Result<Value, LmError> {
        let text = self.inner.to_string(false).map_err(|error| error.to_string());
        let parsed = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
        parsed.map_err(|problem| LmError::Setting { name: "tokenizer", problem })
    }

    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let inner = tokenizers::Tokenizer::from_bytes(text).map_err(|error| error.to_string())?;
        let decoder = serde_json::to_value(inner.get_decoder()).map_err(|error| error.to_string())?;
        let parts = decoder_parts(&decoder);
        let has = |kind: &str| parts.iter().any(|part| part["type"] == kind);
        let spelling = if has("ByteLevel") { Spelling::ByteLevel } else { Spelling::SentencePiece };
        let metaspace = parts.iter().find(|part| part["type"] == "Metaspace");
        let drops_first_space = parts.iter().any(|part| part["type"] == "Strip" && part["content"] == " ")
            || metaspace.is_some_and(|part| part["prepend_scheme"] != "never");

        let added = inner.get_added_tokens_decoder();
        let vocabulary = inner.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&last| last as usize + 1);
        let (mut bytes, mut special) = (vec![Vec::new(); size], vec![false; size]);
        for (name, id) in vocabulary {
            let place = id as usize;
            match added.get(&id) {
                Some(token) => {
                    special[place] = token.special;
                    bytes[place] = name.into_bytes();
                }
                None => bytes[place] = spelling.bytes(&name),
            }
        }
        Ok(Self { inner, bytes, special, drops_first_space })
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("size", &self.size()).finish_non_exhaustive()
    }
}

/// How a vocabulary writes bytes that are no printable character.
#[derive(Clone, Copy)]
enum Spelling {
    /// Every byte is a character of its own (GPT-2).
    ByteLevel,
    /// U+2581 is a space and `<0x0A>` a byte (Llama 1 and 2, Mistral).
    SentencePiece,
}

impl Spelling {
    fn bytes(self, name: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => {
                let bytes: Option<Vec<u8>> =
                    name.chars().map(|character| CHAR_BYTES.get(&character).copied()).collect();
                bytes.unwrap_or_else(|| name.as_bytes().to_vec())
            }
            Self::SentencePiece => {
                let hex = name.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => name.replace('\u{2581}', " ").into_bytes(),
                }
            }
        }
    }
}

/// The decoder itself, or the parts of a sequence of decoders.
fn decoder_parts(decoder: &Value) -> Vec<Cow<'_, Value>> {
    match decoder["decoders"].as_array() {
        Some(parts) => parts.iter().map(Cow::Borrowed).collect(),
        None => vec![Cow::Borrowed(decoder)],
    }
}

/// The character of each byte in GPT-2's spelling: printable ones are written as themselves, the others as what
/// follows U+0100, in order.
static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = (0x100..).map_while(char::from_u32);
    std::array::from_fn(|byte| match byte as u8 {
        plain @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(plain),
        _ => next.next().unwrap_or(char::REPLACEMENT_CHARACTER),
    })
});

static CHAR_BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=255).map(|byte: u8| (BYTE_CHARS[usize::from(byte)], byte)).collect());

/// The words of `texts` between special tokens, as GPT-2 splits them, with how often each comes.
fn count_words<I>(texts: I, specials: &[&str]) -> Result<BTreeMap<Vec<u8>, u64>, String>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let splitter = ByteLevel::new(false, false, true);
    let mut words: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for text in texts {
        for part in split_at_specials(text.as_ref(), specials) {
            let mut pieces = PreTokenizedString::from(part);
            splitter.pre_tokenize(&mut pieces).map_err(|error| error.to_string())?;
            for (_, (start, end), _) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                let word = &part.as_bytes()[start..end];
                match words.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(words.insert(word.to_vec(), 1)),
                }
            }
        }
    }
    Ok(words)
}

fn split_at_specials<'text>(text: &'text str, specials: &[&str]) -> Vec<&'text str> {
    specials.iter().fold(vec![text], |parts, special| parts.into_iter().flat_map(|part| part.split(special)).collect())
}

type Pair = (u32, u32);

/// The pairs to merge, most frequent first; the pair at place `i` becomes token `first_byte + 256 + i`.
fn learn_merges(words: BTreeMap<Vec<u8>, u64>, first_byte: u32, most: usize) -> Vec<Pair> {
    // Bytes are numbered in the order of their characters, as the `tokenizers` crate numbers an alphabet.
    let alphabet = alphabet();
    let number = BYTE_CHARS.map(|own| first_byte + alphabet.partition_point(|&other| other < own) as u32);
    let mut words: Vec<(Vec<u32>, u64)> = words
        .into_iter()
        .map(|(word, count)| (word.into_iter().map(|byte| number[usize::from(byte)]).collect(), count))
        .collect();
    let mut counts: HashMap<Pair, u64> = HashMap::new();
    let mut places: HashMap<Pair, HashSet<usize>> = HashMap::new();
    for (place, (tokens, count)) in words.iter().enumerate() {
        for pair in pairs(tokens) {
            *counts.entry(pair).or_default() += count;
            places.entry(pair).or_default().insert(place);
        }
    }
    let mut merges = Vec::with_capacity(most);
    while merges.len() < most {
        let frequent = counts.iter().filter(|&(_, &count)| count > 1);
        let best = frequent.max_by_key(|&(&pair, &count)| (count, std::cmp::Reverse(pair)));
        let Some((&pair, _)) = best else { break };
        let token = first_byte + 256 + merges.len() as u32;
        merges.push(pair);
        for place in places.remove(&pair).unwrap_or_default() {
            let (tokens, count) = &mut words[place];
            for old in pairs(tokens) {
                if let Some(total) = counts.get_mut(&old) {
                    *total -= *count;
                }
            }
            merge(tokens, pair, token);
            for new in pairs(tokens) {
                *counts.entry(new).or_default() += *count;
                places.entry(new).or_default().insert(place);
            }
        }
        counts.remove(&pair);
    }
    merges
}

fn pairs(tokens: &[u32]) -> impl Iterator<Item = Pair> {
    tokens.windows(2).map(|pair| (pair[0], pair[1]))
}

fn merge(tokens: &mut Vec<u32>, pair: Pair, token: u32) {
    let mut merged = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let [first, tail @ ..] = rest {
        let matches = *first == pair.0 && tail.first() == Some(&pair.1);
        merged.push(if matches { token } else { *first });
        rest = if matches { &tail[1..] } else { tail };
    }
    *tokens = merged;
}

fn alphabet() -> [char; 256] {
    let mut alphabet = *BYTE_CHARS;
    alphabet.sort_unstable();
    alphabet
}

fn tokenizer_json(specials: &[&str], merges: &[Pair]) -> Vec<u8> {
    let mut names: Vec<String> = specials.iter().map(|&special| special.to_owned()).collect();
    names.extend(alphabet().into_iter().map(String::from));
    let mut merged = Vec::with_capacity(merges.len());
    for &(first, second) in merges {
        let (first, second) = (names[first as usize].clone(), names[second as usize].clone());
        names.push(format!("{first}{second}"));
        merged.push([first, second]);
    }
    let added: Vec<Value> = specials.iter().enumerate().map(|(id, special)| added_token(id, special)).collect();
    let vocabulary: serde_json::Map<String, Value> =
        names.into_iter().enumerate().map(|(id, name)| (name, json!(id))).collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true });
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": byte_pairs(&vocabulary, &json!(merged), false),
    });
    file.to_string().into_bytes()
}

/// The model of a `tokenizer.json` that merges pairs. Where `whole_words` are looked for first, a word that is a token is not
/// made of merges.
pub(crate) fn byte_pairs(vocabulary: &serde_json::Map<String, Value>, merges: &Value, whole_words: bool) -> Value {
    json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": whole_words,
        "vocab": vocabulary,
        "merges": merges,
    })
}

pub(crate) fn added_token(id: usize, content: &str) -> Value {
    json!({
        "id": id,
        "content": content,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": true,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXTS: [&str; 4] = [
        "The old boat drifted past the old bridge, past the old mill.",
        "seven plus twelve is nineteen; twelve plus seven is nineteen",
        "القارب القديم والجسر القديم — naïve café",
        "<|user|>the the the<|end|>",
    ];

    fn trained() -> Tokenizer {
        Tokenizer::train_bpe(TEXTS, 300, &["<|end|>", "<|user|>"]).unwrap()
    }

    #[test]
    fn training_is_the_same_every_time() {
        let [one, two] = [trained(), trained()].map(|tokenizer| tokenizer.inner.to_string(false).unwrap());
        assert_eq!(one, two);
        let tokenizer = trained();
        assert_eq!((tokenizer.size(), tokenizer.id("<|end|>"), tokenizer.id("<|user|>")), (300, Some(0), Some(1)));
        // Special tokens are no training text, and frequent words are one token.
        assert_eq!(
            tokenizer.encode("<|user|>the<|end|>", false).unwrap().len(),
            3 + usize::from(tokenizer.id("the").is_none())
        );
        assert_eq!(tokenizer.encode(" old", false).unwrap().len(), 1);
    }

    #[test]
    fn a_tokenizer_survives_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = trained();
        tokenizer.save(folder.path()).unwrap();
        let again = Tokenizer::load(folder.path()).unwrap();
        assert_eq!(again.inner.to_string(false).unwrap(), tokenizer.inner.to_string(false).unwrap());
        for text in TEXTS {
            assert_eq!(again.encode(text, true).unwrap(), tokenizer.encode(text, true).unwrap());
        }
        std::fs::write(folder.path().join("tokenizer.json"), "{\"version\": ").unwrap();
        assert_eq!(Tokenizer::load(folder.path()).unwrap_err().code(), "model_file_malformed");
        assert_eq!(Tokenizer::train_bpe(TEXTS, 100, &[]).unwrap_err().code(), "setting_invalid");
    }

    #[test]
    fn every_byte_has_its_character() {
        assert_eq!((BYTE_CHARS[0], BYTE_CHARS[32], BYTE_CHARS[255], CHAR_BYTES.len()), ('Ā', 'Ġ', 'ÿ', 256));
        let tokenizer = trained();
        let plain: Vec<Vec<u8>> = (2..258).map(|token| tokenizer.bytes(token).to_vec()).collect();
        assert!((0..=255).all(|byte| plain.contains(&vec![byte])));
    }

    #[test]
    fn sentencepiece_vocabularies_are_understood() {
        let spelled = |name: &str| Spelling::SentencePiece.bytes(name);
        assert_eq!([spelled("\u{2581}the"), spelled("<0x0A>"), spelled("<0x0>")], [&b" the"[..], b"\n", b"<0x0>"]);
    }

    proptest! {
        #[test]
        fn every_text_survives(text in "\\PC{0,40}") {
            let tokenizer = trained();
            let tokens = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(&tokenizer.decode(&tokens), &text);
            prop_assert_eq!(tokenizer.inner.decode(&tokens, true).unwrap(), text);
        }
    }
}
