//! What is to be asked: every answer that a recipe wants, by its id and its place, without holding the prompts.

use std::path::Path;

use anbiq_domain::{Digest, Money, Prompt, Seeded, Usage};
use tokio::time::Instant;

use super::Limits;
use crate::DistillError;
use crate::data::{Document, Lines};
use crate::recipe::AskPart;

/// The first 96 bits of a request's id: enough to tell a thousand million requests apart (they collide with a
/// probability below 10^-10), and half as large.
pub(crate) type Short = u128;

/// The [`Short`] of an id.
pub(crate) fn short(id: &Digest) -> Short {
    id.as_bytes()[..12].iter().fold(0, |number, byte| number << 8 | Short::from(*byte))
}

/// One answer to be had.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) id: Digest,
    /// Its place among all that are wanted, in the order of the prompts.
    pub(crate) place: u32,
    pub(crate) prompt: Prompt,
    /// Which of the answers to its prompt, from 0.
    pub(crate) sample: u32,
    /// Where its prompt is drawn ([`drawn`]).
    pub(crate) drawn: f64,
    /// The seed of the first answer to its prompt; that of each further one is one more, as vLLM counts them where it is asked
    /// for several at once.
    pub(crate) first_seed: u64,
    /// The most tokens that it can take.
    pub(crate) usage: Usage,
    /// The most that it can cost.
    pub(crate) most: Money,
}

/// What is asked for at once: one answer, or all that are wanted to one prompt.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// At least one.
    pub(crate) wants: Vec<Want>,
    /// Tries that failed for no reason of the server's limits.
    pub(crate) tries: u32,
    /// How often the server said that it has an answer under the request's key and will not give it.
    pub(crate) edition: u32,
    /// When it was sent last.
    pub(crate) sent: Instant,
}

impl Request {
    pub(crate) fn of(wants: Vec<Want>) -> Self {
        Self { wants, tries: 0, edition: 0, sent: Instant::now() }
    }

    /// How many answers it asks for.
    pub(crate) fn count(&self) -> u32 {
        self.wants.len() as u32
    }

    /// The most that it can cost: a server that gives several answers may charge the prompt for each.
    pub(crate) fn most(&self) -> Money {
        self.wants.iter().map(|want| want.most).sum()
    }

    /// The most tokens that it can take.
    pub(crate) fn tokens(&self) -> u64 {
        self.wants.iter().map(|want| want.usage.total()).sum()
    }

    /// Its answers, each to be asked for alone.
    pub(crate) fn apart(self) -> impl Iterator<Item = Self> {
        self.wants.into_iter().map(|want| Self::of(vec![want]))
    }
}

/// Makes the requests of a recipe.
#[derive(Debug)]
pub(crate) struct Maker<'recipe> {
    teacher: &'recipe str,
    pub(crate) part: &'recipe AskPart,
    pub(crate) limits: Limits,
    seeds: Seeded,
    share: Option<f64>,
}

impl<'recipe> Maker<'recipe> {
    /// Of a `share` of all prompts only, where one is given: a random sample, by the ids of their first answers.
    pub(crate) fn new(teacher: &'recipe str, part: &'recipe AskPart, limits: Limits, share: Option<f64>) -> Self {
        Self { teacher, part, limits, seeds: Seeded::new(limits.seed).fork("answers"), share }
    }

    /// The digest of everything that an answer depends on. The address of the server is not part of it: a teacher may
    /// move.
    pub(crate) fn id(&self, prompt: &Prompt, sample: u32) -> Digest {
        let Self { teacher, part, .. } = self;
        let settings = (teacher, &part.model, part.max_tokens, part.temperature.to_bits(), part.logprobs, sample);
        // Numbers and texts always have a JSON form.
        let settings = serde_json::to_string(&settings).unwrap_or_default();
        Digest::of_parts(&[b"anbiq request v1\0", settings.as_bytes(), b"\0", prompt.canonical().as_bytes()])
    }

    fn want(&self, id: Digest, place: u32, prompt: Prompt, sample: u32) -> Want {
        let usage = most_usage(&prompt, self.part.max_tokens);
        let most = self.limits.prices.cost(usage, self.limits.class_of(self.part.batch.is_some()));
        let first = if sample == 0 { id } else { self.id(&prompt, 0) };
        let first_seed = self.seeds.fork(&first.to_string()).bits();
        Want { id, place, prompt, sample, drawn: drawn(&first), first_seed, usage, most }
    }
}

/// A number in `[0, 1]` that is as good as random and depends on nothing but the id: a random share of all prompts is
/// those of whose first answers it is below that share.
pub(crate) fn drawn(id: &Digest) -> f64 {
    let last = id.as_bytes()[24..].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    last as f64 / 2.0_f64.powi(64)
}

/// The most tokens that an exchange can take: no token is shorter than a byte, and a template adds a few a message.
pub(crate) fn most_usage(prompt: &Prompt, max_tokens: u32) -> Usage {
    let prompt_tokens = match prompt {
        Prompt::Chat(messages) => messages.iter().map(|message| message.bytes() as u64 + 16).sum::<u64>() + 32,
        Prompt::Text(text) => text.len() as u64 + 32,
    };
    Usage { prompt_tokens, completion_tokens: u64::from(max_tokens), ..Usage::default() }
}

/// Where each request stands: sixteen bytes for each of them, and one more for whether it is still to be sent.
#[derive(Debug)]
pub(crate) struct Index {
    /// [`Short`] and place, sorted.
    places: Vec<u128>,
    /// By place: neither answered, nor the same as an earlier one, nor outside the sample.
    wanted: Vec<bool>,
}

impl Index {
    /// Reads the prompts once. A request that stands there twice is wanted once, where it stands first.
    pub(crate) fn new(maker: &Maker<'_>) -> Result<Self, DistillError> {
        let (mut places, mut wanted) = (Vec::new(), Vec::new());
        for document in Lines::<Document>::open(&maker.part.prompts)? {
            let prompt = document?.prompt();
            let mut inside = true;
            for sample in 0..maker.part.answers {
                let id = maker.id(&prompt, sample);
                let place = u32::try_from(wanted.len()).map_err(|_| too_many(&maker.part.prompts))?;
                // A prompt is drawn with all of its answers: they may be asked for together.
                if sample == 0 {
                    inside = maker.share.is_none_or(|share| drawn(&id) < share);
                }
                wanted.push(inside);
                if inside {
                    places.push(short(&id) << 32 | u128::from(place));
                }
            }
        }
        places.sort_unstable();
        places.dedup_by(|later, first| {
            let same = *later >> 32 == *first >> 32;
            if same {
                wanted[*later as u32 as usize] = false;
            }
            same
        });
        places.shrink_to_fit();
        Ok(Self { places, wanted })
    }

    /// Requests in all.
    pub(crate) fn len(&self) -> u64 {
        self.places.len() as u64
    }

    /// The place of the request `id`, if it is one of these.
    pub(crate) fn place(&self, id: &Digest) -> Option<u32> {
        let id = short(id);
        let found = self.places.partition_point(|entry| entry >> 32 < id);
        self.places.get(found).filter(|entry| **entry >> 32 == id).map(|entry| *entry as u32)
    }

    /// Is the answer of this place still wanted?
    pub(crate) fn wants(&self, place: u32) -> bool {
        self.wanted.get(place as usize).copied().unwrap_or_default()
    }

    /// The request of this id has its answer; true if it was wanted.
    pub(crate) fn answered(&mut self, id: &Digest) -> bool {
        let place = self.place(id).and_then(|place| self.wanted.get_mut(place as usize));
        place.is_some_and(|wanted| std::mem::replace(wanted, false))
    }
}

/// The requests that are still wanted, in the order of the prompts, read as they are needed.
pub(crate) struct Wants<'recipe> {
    maker: &'recipe Maker<'recipe>,
    lines: Lines<Document>,
    /// The prompt under way, and how many of its answers were looked at.
    prompt: Option<(Prompt, u32)>,
    place: u32,
}

impl<'recipe> Wants<'recipe> {
    pub(crate) fn new(maker: &'recipe Maker<'recipe>) -> Result<Self, DistillError> {
        Ok(Self { maker, lines: Lines::open(&maker.part.prompts)?, prompt: None, place: 0 })
    }

    /// The next request; `None` after the last. With `several` it asks for all answers to a prompt at once, where none of them
    /// is there yet: then the same answers are asked for together in every run, under the same name.
    pub(crate) fn next_request(&mut self, index: &Index, several: bool) -> Result<Option<Request>, DistillError> {
        let Some(first) = self.next(index)? else { return Ok(None) };
        let (place, answers) = (first.place as usize, self.maker.part.answers as usize);
        let mut wants = vec![first];
        if several
            && wants[0].sample == 0
            && index.wanted.get(place..place + answers).is_some_and(|all| !all.contains(&false))
        {
            for _ in 1..answers {
                wants.extend(self.next(index)?);
            }
        }
        Ok(Some(Request::of(wants)))
    }

    /// The next one; `None` after the last.
    pub(crate) fn next(&mut self, index: &Index) -> Result<Option<Want>, DistillError> {
        loop {
            let (prompt, sample) = match self.prompt.take() {
                Some((prompt, sample)) if sample < self.maker.part.answers => (prompt, sample),
                _ => match self.lines.next().transpose()? {
                    Some(document) => (document.prompt(), 0),
                    None => return Ok(None),
                },
            };
            let place = self.place;
            self.place = place.saturating_add(1);
            // A file that grew while it was read: what was not counted is not asked for.
            let Some(wanted) = index.wanted.get(place as usize) else { return Ok(None) };
            self.prompt = Some((prompt, sample + 1));
            if !wanted {
                continue;
            }
            if let Some((prompt, _)) = &self.prompt {
                let id = self.maker.id(prompt, sample);
                if index.place(&id) == Some(place) {
                    return Ok(Some(self.maker.want(id, place, prompt.clone(), sample)));
                }
                // It is another file by now.
                let path = self.maker.part.prompts.clone();
                let problem = "the prompts changed while they were asked: start again".to_owned();
                return Err(DistillError::Row { path, line: self.lines.line(), problem });
            }
        }
    }
}

fn too_many(path: &Path) -> DistillError {
    DistillError::Row {
        path: path.to_owned(),
        line: 0,
        problem: "more than 4,294,967,295 answers are wanted".to_owned(),
    }
}
