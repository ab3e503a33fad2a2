//! Examples from documents and answers.

use std::path::Path;

use anbiq_domain::{Digest, Prompt};
use anbiq_lm::Codec;
use anbiq_lm::score::Likeliest;
use anbiq_lm::train::{self, Example};
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::capture::{Alphabet, Sample};
use crate::data::{Document, Lines};
use crate::spans::Carrier;
use crate::told::{Found, Lists};

/// Examples to learn from. What a teacher told of them is packed, and in memory as far as it is little: [`Set::batch`] unpacks a few.
#[derive(Debug, Default)]
pub(crate) struct Set {
    members: Vec<Member>,
    told: Option<Lists>,
    /// Tokens of all of them, once.
    pub(crate) tokens: u64,
    /// Of a capture, which of its answers each example comes from.
    pub(crate) from: Vec<usize>,
    /// The examples that were cut to the student's context, by their places.
    pub(crate) cut_short: Vec<usize>,
    /// Examples left out: they do not fit the context, or their prompt alone fills it.
    pub(crate) too_long: u64,
}

/// One sequence of a set.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) tokens: Vec<u32>,
    /// As [`Example::first_target`].
    pub(crate) first_target: usize,
    /// Where the set has what was told of its targets.
    told: Option<u64>,
}

impl Member {
    /// How many tokens the loss counts on.
    pub(crate) fn targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.first_target)
    }

    /// Its text alone.
    pub(crate) fn untold(&self) -> Example {
        Example { tokens: self.tokens.clone(), first_target: self.first_target, teacher: None }
    }
}

impl train::Member for Member {
    fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

/// How answers become examples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How<'recipe> {
    pub(crate) long: Long,
    /// Carry over what a teacher tells of tokens that are not the student's.
    pub(crate) spans: bool,
    /// Where what is told of them goes that does not stay in memory.
    pub(crate) store: &'recipe Path,
}

/// What is done with a sequence that is longer than the student's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Long {
    /// Its beginning is kept.
    Cut,
    /// It is left out: what has no end shows the student none.
    LeaveOut,
}

impl Set {
    /// Adds a sequence whose answer begins at `keep_from`; true if it is learnt from.
    fn push(
        &mut self,
        context: usize,
        mut example: Example,
        keep_from: usize,
        long: Long,
    ) -> Result<bool, DistillError> {
        let over = example.tokens.len() > context;
        if keep_from >= context || over && long == Long::LeaveOut {
            self.too_long += 1;
            return Ok(false);
        }
        if over {
            example.tokens.truncate(context);
            let targets = example.targets();
            if let Some(teacher) = &mut example.teacher {
                teacher.truncate(targets);
            }
        }
        if example.targets() == 0 {
            return Ok(false);
        }
        self.cut_short.extend(over.then_some(self.members.len()));
        self.tokens += example.tokens.len() as u64;
        let Example { tokens, first_target, teacher } = example;
        let told = self.told.as_mut().zip(teacher).map(|(lists, teacher)| lists.put(&teacher)).transpose()?;
        self.members.push(Member { tokens, first_target, told });
        Ok(true)
    }

    /// Adds a sequence as long as an answer of `max_tokens` makes it, for what depends on lengths alone; none where the prompt fills
    /// the context.
    pub(crate) fn suppose(&mut self, codec: &Codec, prompt: &Prompt, max_tokens: usize) -> Result<(), DistillError> {
        let mut tokens = codec.encode_prompt(prompt)?;
        let first_target = tokens.len().max(1);
        tokens.resize(codec.context.min(first_target + max_tokens), codec.eos.first().copied().unwrap_or(0));
        self.push(codec.context, Example { tokens, first_target, teacher: None }, first_target, Long::LeaveOut)?;
        Ok(())
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Some of its sequences as examples, with what was told of them.
    ///
    /// # Errors
    ///
    /// The disk does not give back what was written to it.
    pub(crate) fn batch<'set>(
        &self,
        members: impl IntoIterator<Item = &'set Member>,
    ) -> Result<Vec<Example>, DistillError> {
        members.into_iter().map(|member| Ok(Example { teacher: self.told(member)?, ..member.untold() })).collect()
    }

    /// What was told of the targets of a member.
    pub(crate) fn told(&self, member: &Member) -> Result<Option<Vec<Likeliest>>, DistillError> {
        self.told.as_ref().zip(member.told).map(|(lists, at)| lists.get(at, member.targets())).transpose()
    }

    /// The texts of the members at `places`.
    pub(crate) fn of_texts(&self, places: &[usize]) -> Self {
        let member = |&place: &usize| Member { told: None, ..self.members[place].clone() };
        let members: Vec<Member> = places.iter().map(member).collect();
        let tokens = members.iter().map(|member| member.tokens.len() as u64).sum();
        Self { members, tokens, ..Self::default() }
    }

    /// Examples that were cut to the student's context.
    pub(crate) fn cut(&self) -> u64 {
        self.cut_short.len() as u64
    }

    pub(crate) fn sequences(&self) -> Vec<(&[u32], usize)> {
        self.members.iter().map(|member| (member.tokens.as_slice(), member.first_target)).collect()
    }

    /// The digest of all that is learnt from it.
    pub(crate) fn digest(&self) -> Result<Digest, DistillError> {
        let mut digest = Digest::of(b"anbiq set v1");
        for member in &self.members {
            let example = Example { teacher: self.told(member)?, ..member.untold() };
            let mut bytes = Vec::with_capacity(example.tokens.len() * 4 + 16);
            bytes.extend((example.first_target as u64).to_le_bytes());
            bytes.extend((example.tokens.len() as u64).to_le_bytes());
            bytes.extend(example.tokens.iter().flat_map(|token| token.to_le_bytes()));
            for place in example.teacher.iter().flatten() {
                bytes.extend((place.len() as u64).to_le_bytes());
                for (token, logprob) in place {
                    bytes.extend(token.to_le_bytes());
                    bytes.extend(logprob.to_le_bytes());
                }
            }
            digest = Digest::of_parts(&[digest.as_bytes(), &bytes]);
        }
        Ok(digest)
    }
}

/// A corpus that is read on from where the last reader stopped, and from the start again at its end.
pub(crate) struct CorpusReader<'a> {
    path: &'a Path,
    lines: Lines<Document>,
}

/// Where the loss counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    Everywhere,
    OnAnswers,
}

impl<'a> CorpusReader<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self, DistillError> {
        Ok(Self { path, lines: Lines::open(path)? })
    }

    /// The next documents, about `tokens` of them, or all that are left where that is not said. With `again` it goes on
    /// from the start of the corpus until there are so many.
    pub(crate) fn take(
        &mut self,
        codec: &Codec,
        tokens: Option<u64>,
        loss: Loss,
        again: bool,
    ) -> Result<Set, DistillError> {
        let mut set = Set::default();
        let limit = tokens.unwrap_or(u64::MAX);
        let mut before = None;
        while set.tokens < limit {
            let Some(document) = self.lines.next() else {
                // A second pass without a token would be followed by a third.
                if !again || before == Some(set.tokens) {
                    break;
                }
                before = Some(set.tokens);
                self.lines = Lines::open(self.path)?;
                continue;
            };
            add_document(&mut set, codec, &document?, loss)?;
        }
        Ok(set)
    }
}

/// At most `most` documents of a file, to measure on.
pub(crate) fn documents(path: &Path, codec: &Codec, most: usize) -> Result<Set, DistillError> {
    let mut set = Set::default();
    for document in Lines::<Document>::open(path)?.take(most) {
        add_document(&mut set, codec, &document?, Loss::OnAnswers)?;
    }
    Ok(set)
}

fn add_document(set: &mut Set, codec: &Codec, document: &Document, loss: Loss) -> Result<(), DistillError> {
    let Some(answer) = document.full_answer() else { return Ok(()) };
    let (tokens, first) = codec.example(&document.prompt(), &answer)?;
    let first_target = if loss == Loss::Everywhere { 1 } else { first };
    set.push(codec.context, Example { tokens, first_target, teacher: None }, first, Long::Cut)?;
    Ok(())
}

/// What became of the teacher's log-probabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    /// Answers with log-probabilities in the student's own tokens.
    pub mapped: u64,
    /// Answers that the student cuts into other tokens, with what could be carried over to these by spans of bytes.
    #[serde(default)]
    pub spans: u64,
    /// Answers whose tokens the student cuts differently: only their text is learnt from.
    pub differing: u64,
    /// Answers without log-probabilities.
    pub without: u64,
    /// Share of the told probability that found a token of the student.
    pub mass: f64,
}

/// Examples of answers, with the teacher's log-probabilities where their bytes prove that they fit. One answer at a time is looked at.
pub(crate) fn answers(samples: &[Sample], codec: &Codec, how: How<'_>) -> Result<(Set, Mapping), DistillError> {
    let (alphabet, carrier) = (Alphabet::of(codec), Carrier::new(codec));
    let lists = Lists::new(codec.tokenizer.size(), how.store);
    let (mut set, mut mapping) = (Set { told: Some(lists), ..Set::default() }, Mapping::default());
    let (mut told, mut found) = (0.0, 0.0);
    for (place, sample) in samples.iter().enumerate() {
        let (tokens, first_target) = codec.example(&sample.prompt, &sample.answer)?;
        let open = sample.told.as_ref().map(|kept| kept.shelf.find(kept.place)).transpose()?;
        let tokens_told = open.as_ref().map(Found::tokens).transpose()?;
        let mapped = tokens_told.as_ref().map(|told| alphabet.map(codec, told, &tokens[first_target..]));
        let teacher = match mapped {
            None => {
                mapping.without += 1;
                None
            }
            Some(None) => {
                let told_tokens = tokens_told.as_ref().filter(|_| how.spans);
                let carried = told_tokens.and_then(|told| carrier.carry(told, &tokens[first_target..]));
                match carried {
                    Some(_) => mapping.spans += 1,
                    None => mapping.differing += 1,
                }
                carried
            }
            Some(Some(mapped)) => {
                mapping.mapped += 1;
                Some(mapped)
            }
        };
        let teacher = teacher.map(|mapped| {
            told += mapped.told;
            found += mapped.found;
            mapped.places
        });
        if set.push(codec.context, Example { tokens, first_target, teacher }, first_target, how.long)? {
            set.from.push(place);
        }
    }
    if let Some(lists) = &mut set.told {
        lists.end()?;
    }
    mapping.mass = if told > 0.0 { found / told } else { 0.0 };
    Ok((set, mapping))
}
