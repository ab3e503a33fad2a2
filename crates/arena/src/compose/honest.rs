//! Who is honest, and unlike each other.

use anbiq_domain::Keyed;
use anbiq_lab::world::{Arrival, Caller, Rhythm};

use super::{Class, Composer, Face, HOUR, Said};
use crate::ArenaError;

/// Programs that people chat with, and libraries that software uses.
const PROGRAMS: usize = 40;
/// Libraries, as numbers of programs from here on.
pub(super) const LIBRARIES: usize = 1_000;
/// Networks of clouds that software runs in.
const CLOUDS: usize = 60;
/// Share of an application's requests that are refused for its rate.
pub(super) const REFUSED: f64 = 0.02;
/// People behind one carrier's address.
const CARRIER: usize = 150;

impl Composer<'_> {
    /// All honest accounts, `people` of them who chat.
    pub(super) fn everybody(&mut self, people: usize) -> Result<(), ArenaError> {
        type Customer<'a> = fn(&mut Composer<'a>, usize) -> Result<(), ArenaError>;
        let share = |part: f64| ((people as f64 * part).round() as usize).max(1);
        let kinds: [(usize, Customer<'_>); 14] = [
            (people, |this, people| this.person(people)),
            (1, |this, people| this.campus(((people as f64 * 0.08).round() as usize).max(1))),
            (share(0.1), |this, _| this.application(1)),
            (share(0.06), |this, _| {
                let templates = 2 + this.random.below(5);
                this.application(templates)
            }),
            (share(0.008), |this, _| this.key_pool()),
            (share(0.05), |this, _| this.harness()),
            (share(0.03), |this, _| this.labelling()),
            (share(0.05), |this, _| this.timer()),
            (share(0.06), |this, _| this.agent()),
            (share(0.05), |this, _| this.retrieval()),
            (share(0.008), |this, _| this.seats()),
            (share(0.025), |this, _| this.farm()),
            (share(0.006), |this, _| {
                this.reseller(Class::Reseller)?;
                this.reseller(Class::Infested)
            }),
            (share(0.006), |this, _| this.licensed()),
        ];
        for (count, customer) in kinds {
            for _ in 0..count {
                customer(self, people)?;
            }
        }
        Ok(())
    }

    /// As many times what somebody does in a world of five days as fit into this one, at least once.
    fn times_over(&self, count: usize) -> usize {
        count * ((self.days / 5.0) as usize).max(1)
    }

    fn awake(&mut self) -> Rhythm {
        Rhythm {
            peak: 24.0 * self.random.unit(),
            width: 2.5 + 2.5 * self.random.unit(),
            night: 0.02,
            weekend: 0.5 + self.random.unit(),
        }
    }

    fn office(&mut self) -> Rhythm {
        Rhythm::office(7.0 + 12.0 * self.random.unit())
    }

    fn steady() -> Rhythm {
        Rhythm { peak: 12.0, width: 6.0, night: 0.8, weekend: 1.0 }
    }

    /// Moments with the gaps of real arrivals, each with the tokens that came with it.
    pub(super) fn times(&mut self, rhythm: &Rhythm, caller: Caller, count: usize, from: f64) -> Vec<(i64, Arrival)> {
        let arrivals = self.arrivals.take(caller, count, &mut self.random);
        let places = rhythm.place(&arrivals, from, 24.0 * self.days);
        places.into_iter().zip(arrivals).collect()
    }

    /// Tokens of an answer to a person.
    pub(super) fn answer(&mut self, arrival: &Arrival) -> u32 {
        let drawn = 60 + self.random.below(300) as u32;
        arrival.tokens.map_or(drawn, |(_, output)| output).clamp(10, 1_500)
    }

    /// Puts an account on the software side: a cloud, a library.
    fn software(&mut self, face: &mut Face, cloud: Option<Keyed>) {
        let number = self.random.below(CLOUDS);
        face.networks = vec![cloud.unwrap_or_else(|| self.common("cloud", number))];
        let library = LIBRARIES + self.skewed(12);
        face.agents = vec![self.common("program", library)];
    }

    fn person(&mut self, people: usize) -> Result<(), ArenaError> {
        let operator = self.operator();
        let opened = self.long_ago();
        let card = self.own();
        let mut face = self.open(Class::Chat, operator, opened, card)?;
        let carrier = self.random.below(people.div_ceil(CARRIER));
        face.networks = vec![self.own(), self.common("carrier", carrier)];
        self.chat(&mut face, None);
        Ok(())
    }

    /// Lets an account chat: sessions of some turns in waking hours.
    fn chat(&mut self, face: &mut Face, sessions_a_day: Option<f64>) {
        if face.agents.is_empty() {
            let program = self.skewed(PROGRAMS);
            face.agents = vec![self.common("program", program)];
        }
        let a_day = sessions_a_day.unwrap_or_else(|| (0.8 + 0.7 * self.random.normal()).exp());
        let rhythm = self.awake();
        let count = ((a_day * self.days).round() as usize).clamp(2, self.times_over(400));
        for (at, arrival) in self.times(&rhythm, Caller::Person, count, 0.0) {
            let turns = self.phrases.session(&mut self.random);
            let output = self.answer(&arrival);
            self.converse(face, at, turns, output, 90_000.0);
        }
    }

    fn campus(&mut self, accounts: usize) -> Result<(), ArenaError> {
        let network = self.own();
        let begun = self.long_ago();
        for _ in 0..accounts {
            let operator = self.operator();
            let (opened, card) = (begun + 24.0 * 7.0 * self.random.unit(), self.own());
            let mut face = self.open(Class::Campus, operator, opened.min(-1.0), card)?;
            face.networks = if self.random.chance(0.5) { vec![network, self.own()] } else { vec![network] };
            self.chat(&mut face, None);
        }
        Ok(())
    }

    /// Calls that fill templates.
    fn fill(&mut self, face: &Face, times: Vec<(i64, Arrival)>, templates: &[usize], outputs: (u32, usize)) {
        for (at, _) in times {
            let template = self.random.pick(templates).copied().unwrap_or(0);
            let text = self.phrases.fill(template, &mut self.random);
            // Whoever is refused waits and tries again.
            if self.random.chance(REFUSED) {
                let waited = 500 + self.random.below(20_000) as i64;
                self.refuse(face, at - waited);
            }
            let output = outputs.0 + self.random.below(outputs.1) as u32;
            self.say(face, at, text, &Said { output, ..Said::default() });
        }
    }

    fn some_templates(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.random.below(self.phrases.templates.len())).collect()
    }

    fn application(&mut self, templates: usize) -> Result<(), ArenaError> {
        let class = if templates == 1 { Class::Application } else { Class::Applications };
        let operator = self.operator();
        let (opened, card) = (self.long_ago(), self.own());
        let mut face = self.open(class, operator, opened, card)?;
        self.software(&mut face, None);
        let rhythm = if self.random.chance(0.5) { self.office() } else { Self::steady() };
        let count = (self.days * 20.0 * (1.0 + 2.0 * self.random.exponential())) as usize;
        let times = self.times(&rhythm, Caller::Program, count.min(self.times_over(1_500)), 0.0);
        let (templates, most) = (self.some_templates(templates), 10 + self.random.below(200));
        self.fill(&face, times, &templates, (3, most));
        Ok(())
    }

    fn key_pool(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (begun, card, cloud) = (self.long_ago(), self.own(), self.own());
        let (keys, templates) = (6 + self.random.below(10), 2 + self.random.below(5));
        let templates = self.some_templates(templates);
        let most = 20 + self.random.below(200);
        let (mut agents, renews) = (None, self.renews());
        let mut faces = Vec::new();
        // Whoever deals out requests in turn keeps all keys at one rate; each pool has its own.
        let rate = 26.0 * (0.5 * self.random.normal()).exp();
        for key in 0..keys {
            let mut face = self.open(Class::KeyPool, operator, begun + key as f64 * 0.1, card)?;
            self.software(&mut face, Some(cloud));
            face.agents = agents.get_or_insert(face.agents).clone();
            face.renews = renews;
            faces.push(face);
        }
        for (key, face) in faces.iter().enumerate() {
            let count = (self.days * rate * (0.05 * self.random.normal()).exp()) as usize;
            let times = self.times(&Self::steady(), Caller::Program, count, 0.0);
            self.fill(face, times, &templates, (10, most));
            // The next key goes on where one is refused.
            for _ in 0..(REFUSED * count as f64) as usize {
                let at = (24.0 * self.days * self.random.unit() * HOUR) as i64;
                self.refuse(face, at);
                let next = faces[(key + 1 + self.random.below(keys - 1)) % keys].clone();
                let at = at + 300 + self.random.below(1_500) as i64;
                let arrival = Arrival { gap: 1.0, long: false, tokens: None };
                self.fill(&next, vec![(at, arrival)], &templates, (10, most));
            }
        }
        Ok(())
    }

    /// A list of items, once or several times over.
    fn harness(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (opened, card) = (self.long_ago(), self.own());
        let mut face = self.open(Class::Harness, operator, opened, card)?;
        self.software(&mut face, None);
        let benchmark = self.random.below(self.phrases.benchmarks.len());
        let mut items = self.phrases.benchmarks[benchmark].clone();
        self.random.shuffle(&mut items);
        items.truncate(80 + self.random.below(400));
        let rounds = 1 + self.random.below(4);
        let rounds = self.times_over(rounds);
        for _ in 0..rounds {
            let mut at = (24.0 * self.days * 0.9 * self.random.unit() * HOUR) as i64;
            for item in &items {
                at += 300 + self.random.below(8_000) as i64;
                let output = 5 + self.random.below(200) as u32;
                self.say(&face, at, item.as_str(), &Said { output, ..Said::default() });
            }
        }
        Ok(())
    }

    fn labelling(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (opened, card, cloud) = (self.long_ago(), self.own(), self.own());
        let template = self.some_templates(1);
        for seat in 0..1 + self.random.below(3) {
            let mut face = self.open(Class::Labelling, operator, opened + seat as f64, card)?;
            self.software(&mut face, Some(cloud));
            let batches = 1 + self.random.below(3);
            for _ in 0..self.times_over(batches) {
                let begin = 24.0 * self.days * 0.9 * self.random.unit();
                let count = 80 + self.random.below(300);
                let gap = 2_000.0 + 30_000.0 * self.random.unit();
                let times = (0..count).map(|item| {
                    let at = (begin * HOUR + item as f64 * gap) as i64;
                    (at, Arrival { gap: 1.0, long: false, tokens: None })
                });
                self.fill(&face, times.collect(), &template, (1, 3));
            }
        }
        Ok(())
    }

    /// What a timer starts: at a round rate that other customers have as well, whatever the hour.
    fn timer(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (opened, card) = (self.long_ago(), self.own());
        let mut face = self.open(Class::Timer, operator, opened, card)?;
        self.software(&mut face, None);
        let minutes = [15.0, 30.0, 60.0, 60.0, 120.0][self.random.below(5)];
        let (phase, late) = (minutes * self.random.unit(), 0.02 * minutes);
        let count = (self.days * 24.0 * 60.0 / minutes) as usize;
        let times = (0..count).map(|run| {
            let at = phase + run as f64 * minutes + late * self.random.exponential();
            ((at / 60.0 * HOUR) as i64, Arrival { gap: 1.0, long: false, tokens: None })
        });
        let times = times.collect();
        let (some, most) = (1 + self.random.below(3), 20 + self.random.below(300));
        let templates = self.some_templates(some);
        self.fill(&face, times, &templates, (5, most));
        Ok(())
    }

    /// Long conversations about code, with files and the outputs of tools in them.
    fn agent(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (opened, card) = (self.long_ago(), self.own());
        let mut face = self.open(Class::Agent, operator, opened, card)?;
        let agent = 2 * LIBRARIES + self.skewed(5);
        face.networks = vec![self.own()];
        face.agents = vec![self.common("program", agent)];
        let rhythm = self.office();
        let count = ((2.0 + 3.0 * self.random.unit()) * self.days) as usize;
        for (at, arrival) in self.times(&rhythm, Caller::Program, count, 0.0) {
            let turns = (0..4 + self.random.below(14)).map(|_| self.phrases.programming(&mut self.random)).collect();
            let output = arrival.tokens.map_or(80, |(_, output)| output).clamp(8, 800);
            self.converse(&face, at, turns, output, 25_000.0);
        }
        Ok(())
    }

    fn retrieval(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (opened, card) = (self.long_ago(), self.own());
        let mut face = self.open(Class::Retrieval, operator, opened, card)?;
        self.software(&mut face, None);
        let rhythm = self.awake();
        let count = (self.days * 25.0 * (1.0 + 2.0 * self.random.exponential())) as usize;
        let template = self.some_templates(1)[0];
        for (at, arrival) in self.times(&rhythm, Caller::Person, count.min(self.times_over(1_500)), 0.0) {
            let passage = self.phrases.fill(template, &mut self.random);
            let question = self.phrases.session(&mut self.random).swap_remove(0);
            let text = format!("Answer the question from the passage alone. Passage: {passage} Question: {question}");
            let (output, prompt) = (self.answer(&arrival), 400 + self.random.below(3_000) as u32);
            self.say(&face, at, text, &Said { prompt, output, ..Said::default() });
        }
        Ok(())
    }

    fn seats(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (begun, card, office) = (self.long_ago(), self.own(), self.own());
        let (seats, program) = (8 + self.random.below(30), self.skewed(PROGRAMS));
        // In some firms everybody gets the new model on one morning.
        let together = if self.random.chance(0.5) { self.renews() } else { None };
        for _ in 0..seats {
            let opened = begun + 3.0 * self.random.unit();
            let mut face = self.open(Class::Seats, operator, opened, card)?;
            face.networks = if self.random.chance(0.5) { vec![office, self.own()] } else { vec![office] };
            face.agents = vec![self.common("program", program)];
            face.renews = together.or(face.renews);
            self.chat(&mut face, None);
            if self.random.chance(0.3) {
                let turns = (0..10).map(|_| self.phrases.programming(&mut self.random)).collect();
                let at = (24.0 * self.days * self.random.unit() * HOUR) as i64;
                self.converse(&face, at, turns, 120, 120_000.0);
            }
        }
        Ok(())
    }

    /// One account after another, each until its credit is used up.
    fn farm(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (home, card) = (self.own(), self.own());
        let program = self.skewed(PROGRAMS);
        let accounts = 3 + self.random.below(6);
        let sharing = self.random.chance(0.5);
        for number in 0..accounts {
            let opened = 24.0 * self.days * 0.8 * number as f64 / accounts as f64 - 1.0;
            let card = if sharing { card } else { self.own() };
            let mut face = self.open(Class::Farm, operator, opened, card)?;
            face.networks = vec![home];
            face.agents = vec![self.common("program", program)];
            let rhythm = self.awake();
            let until = 24.0 * self.days * 0.8 / accounts as f64;
            let count = 4 + self.random.below(6);
            let arrivals = self.arrivals.take(Caller::Person, count, &mut self.random);
            let from = opened.max(0.0);
            for (at, arrival) in rhythm.place(&arrivals, from, from + until.max(4.0)).into_iter().zip(arrivals) {
                let turns = self.phrases.session(&mut self.random);
                let output = self.answer(&arrival);
                self.converse(&face, at, turns, output, 90_000.0);
            }
        }
        Ok(())
    }

    /// Many people behind few accounts.
    fn reseller(&mut self, class: Class) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (begun, card, cloud) = (self.long_ago(), self.own(), self.own());
        for number in 0..1 + self.random.below(3) {
            let mut face = self.open(class, operator, begun + 24.0 * number as f64, card)?;
            self.software(&mut face, Some(cloud));
            let sessions = 40.0 + 40.0 * self.random.unit();
            self.chat(&mut face, Some(sessions));
            if class == Class::Infested {
                let family = self.random.below(super::phrases::FAMILIES);
                let count = (self.days * 20.0) as usize;
                let list = self.phrases.harvest(family, count, &mut self.random);
                for ((at, _), text) in self.times(&Self::steady(), Caller::Program, count, 0.0).into_iter().zip(list) {
                    let output = 100 + self.random.below(300) as u32;
                    self.say(&face, at, text, &Said { output, harvested: true, ..Said::default() });
                }
            }
        }
        Ok(())
    }

    fn licensed(&mut self) -> Result<(), ArenaError> {
        let operator = self.operator();
        let (begun, card, cloud) = (self.long_ago(), self.own(), self.own());
        let family = self.random.below(super::phrases::FAMILIES);
        for number in 0..1 + self.random.below(3) {
            let mut face = self.open(Class::Licensed, operator, begun + number as f64, card)?;
            self.software(&mut face, Some(cloud));
            let count = (self.days * 80.0) as usize;
            let list = self.phrases.harvest(family, count, &mut self.random);
            for ((at, _), text) in self.times(&Self::steady(), Caller::Program, count, 0.0).into_iter().zip(list) {
                let output = 100 + self.random.below(300) as u32;
                let said = Said { output, granted: true, harvested: true, ..Said::default() };
                self.say(&face, at, text, &said);
            }
        }
        Ok(())
    }
}
