//! Who is in the world, and what each of them does.

use std::collections::HashSet;

use anbiq_domain::{AccountId, Message, PlanId, Role, Seeded};

use super::arrivals::Caller;
use super::rhythm::Rhythm;
use super::{AccountSpec, Call, Composer, Group, host, network};
use crate::LabError;
use crate::corpus::{Kind, system};

/// Hours in the world: three weeks.
const END: f64 = 24.0 * 21.0;

/// Long enough for nearly every answer.
const LONGEST: u32 = 112;

/// What people talk about when they want something short, and something long.
const SHORT: [Kind; 7] =
    [Kind::Chat, Kind::Chat, Kind::Chat, Kind::Arithmetic, Kind::Opposite, Kind::Comparison, Kind::Sorting];
const LONG: [Kind; 5] = [Kind::Chat, Kind::Story, Kind::Story, Kind::Letter, Kind::Description];

/// The programs that people chat with.
const CHAT_AGENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 15_1) AppleWebKit/605.1 Version/18.1 Safari/605.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "OpenAI/JS 6.9.0",
    "OpenAI/Python 2.8.0",
    "ChatBox/1.17",
];

/// An account that has just been added.
struct Entrant {
    index: usize,
    random: Seeded,
}

impl Composer<'_> {
    /// Adds an account that was opened `opened` hours after the beginning of the world.
    fn enter(
        &mut self,
        name: String,
        group: Group,
        payment: String,
        opened: f64,
        agent: &str,
    ) -> Result<Entrant, LabError> {
        let mut random = self.random.fork(&name);
        let address = host(network(&mut random), &mut random);
        let plan = if group == Group::Licensee { "licensed" } else { "standard" };
        self.accounts.push(AccountSpec {
            id: AccountId::new(name)?,
            group,
            plan: PlanId::new(plan)?,
            payment: Some(payment),
            opened: self.after(opened),
            address,
            agent: agent.to_owned(),
            side_by_side: 1,
        });
        Ok(Entrant { index: self.accounts.len() - 1, random })
    }

    /// A usual call of account `account`, `at` milliseconds after the beginning.
    fn call(&self, account: usize, at: i64, kind: Kind, messages: Vec<Message>) -> Call {
        let address = self.accounts[account].address;
        Call {
            at: self.start.plus_milliseconds(at),
            account,
            kind,
            messages,
            continues: false,
            address,
            max_tokens: LONGEST,
            temperature: 1.0,
            stream: false,
            logprobs: None,
            declared: false,
        }
    }
}

/// Ten people who chat, two of them on one campus network.
pub(super) fn people(composer: &mut Composer<'_>) -> Result<(), LabError> {
    let campus = network(&mut composer.random.fork("campus"));
    for person in 0..10 {
        let opened = -24.0 * 60.0 + 24.0 * 6.0 * person as f64;
        let agent = CHAT_AGENTS[person % CHAT_AGENTS.len()];
        let mut entrant = composer.enter(
            format!("person-{:02}", person + 1),
            Group::Person,
            format!("card-{person:04}"),
            opened,
            agent,
        )?;
        if person < 2 {
            composer.accounts[entrant.index].address = host(campus, &mut entrant.random);
        }
        talk(composer, &mut entrant);
    }
    Ok(())
}

/// Sessions of one to four turns, in the hours that suit this person.
fn talk(composer: &mut Composer<'_>, Entrant { index, random }: &mut Entrant) {
    let rhythm = Rhythm {
        peak: random.unit() * 24.0,
        width: 2.5 + 2.0 * random.unit(),
        night: 0.02,
        weekend: 0.5 + random.unit(),
    };
    let sessions = composer.scale.of(15, 6) + random.below(composer.scale.of(10, 4));
    let from = 24.0 * 2.0 * random.unit();
    let arrivals = composer.arrivals.take(Caller::Person, sessions, random);
    let stream = random.chance(0.7);
    for (place, arrival) in rhythm.place(&arrivals, from, END).into_iter().zip(arrivals) {
        let kinds: &[Kind] = if arrival.long { &LONG } else { &SHORT };
        let kind = random.pick(kinds).copied().unwrap_or(Kind::Chat);
        let document = composer.corpus.document(kind, random);
        let said = Message::new(Role::User, document.prompt);
        composer.calls.push(Call { stream, ..composer.call(*index, place, kind, vec![said]) });
        let mut at = place;
        for _ in 0..2 {
            if !random.chance(0.35) {
                break;
            }
            at += 15_000 + random.below(120_000) as i64;
            let said = Message::new(Role::User, composer.corpus.follow_up(random));
            let call = composer.call(*index, at, Kind::Chat, vec![said]);
            composer.calls.push(Call { stream, continues: true, ..call });
        }
    }
}

/// Two shops whose software fills one template each, in office hours.
pub(super) fn applications(composer: &mut Composer<'_>) -> Result<(), LabError> {
    let shops = [
        ("delivery-app", "write the delivery note.", Kind::Delivery, 9.5, "anvil-shop/4.2 (java)"),
        ("orders-app", "which town? order:", Kind::Extraction, 16.0, "stockroom/1.9 okhttp/5.1"),
    ];
    for (place, (name, ask, kind, peak, agent)) in shops.into_iter().enumerate() {
        let opened = -24.0 * (200.0 - 35.0 * place as f64);
        let Entrant { index, mut random } =
            composer.enter(name.to_owned(), Group::Application, format!("invoice-{name}"), opened, agent)?;
        let count = composer.scale.of(100, 40);
        let arrivals = composer.arrivals.take(Caller::Program, count, &mut random);
        for at in Rhythm::office(peak).place(&arrivals, 0.0, END) {
            let content = composer.corpus.about_order(ask, &mut random);
            let messages = vec![system(kind), Message::new(Role::User, content)];
            let call = composer.call(index, at, kind, messages);
            composer.calls.push(Call { temperature: 0.2, max_tokens: 48, ..call });
        }
    }
    Ok(())
}

/// An evaluation harness: one list of items, several times, fast.
pub(super) fn harness(composer: &mut Composer<'_>) -> Result<(), LabError> {
    let agent = "lm-eval/0.4.9 aiohttp/3.13";
    let Entrant { index, mut random } =
        composer.enter("eval-lab".into(), Group::Harness, "invoice-eval-lab".into(), -24.0 * 90.0, agent)?;
    composer.accounts[index].side_by_side = 4;
    let (items, rounds) = (composer.scale.of(30, 16), composer.scale.of(4, 3));
    let list: Vec<_> = composer.corpus.tasks().take(items).collect();
    for round in 0..rounds {
        let day = 2.0 + 17.0 * round as f64 / rounds as f64;
        let mut at = ((day * 24.0 + 8.0 + 10.0 * random.unit()) * 3_600_000.0) as i64;
        for item in &list {
            at += 800 + random.below(1_500) as i64;
            let call = composer.call(index, at, item.kind, item.messages());
            composer.calls.push(Call { temperature: 0.0, max_tokens: 64, ..call });
        }
    }
    Ok(())
}

/// A firm that labels reviews in batches: two accounts, one payment, one template, one office.
pub(super) fn labellers(composer: &mut Composer<'_>) -> Result<(), LabError> {
    let office = network(&mut composer.random.fork("labelling office"));
    for seat in 1..=2 {
        let opened = -24.0 * (120.0 - 3.0 * f64::from(seat));
        let Entrant { index, mut random } = composer.enter(
            format!("labeller-{seat}"),
            Group::Labeller,
            "card-labelling-firm".into(),
            opened,
            "OpenAI/Python 2.8.0",
        )?;
        composer.accounts[index].side_by_side = 4;
        composer.accounts[index].address = host(office, &mut random);
        let (batches, size) = (composer.scale.of(4, 2), composer.scale.of(18, 14));
        for batch in 0..batches {
            let day = (1 + 5 * batch + random.below(3)) as f64;
            let mut at = ((day * 24.0 + 7.0 + 8.0 * random.unit()) * 3_600_000.0) as i64;
            for _ in 0..size {
                at += 1_500 + random.below(9_000) as i64;
                let review = composer.corpus.review(&mut random);
                let content = format!("Label the review as positive, negative or mixed. Review: {review}");
                let messages = vec![Message::new(Role::User, content)];
                let call = composer.call(index, at, Kind::Sentiment, messages);
                composer.calls.push(Call { temperature: 0.0, max_tokens: 16, ..call });
            }
        }
    }
    Ok(())
}

/// Kinds of prompts of a harvest, each as often as it comes here.
const HARVEST: [Kind; 20] = [
    Kind::Story,
    Kind::Story,
    Kind::Story,
    Kind::Story,
    Kind::Story,
    Kind::Story,
    Kind::Story,
    Kind::Story,
    Kind::Story,
    Kind::Description,
    Kind::Description,
    Kind::Description,
    Kind::Description,
    Kind::Description,
    Kind::Letter,
    Kind::Letter,
    Kind::WordProblem,
    Kind::WordProblem,
    Kind::Reasoning,
    Kind::Reasoning,
];

/// `count` prompts, no two of them equal.
fn queue(composer: &Composer<'_>, count: usize, random: &mut Seeded) -> Vec<(Kind, Vec<Message>)> {
    let mut seen = HashSet::new();
    let mut prompts = Vec::with_capacity(count);
    while prompts.len() < count {
        let kind = random.pick(&HARVEST).copied().unwrap_or(Kind::Story);
        let content = composer.corpus.document(kind, random).prompt;
        if seen.insert(content.clone()) {
            prompts.push((kind, vec![Message::new(Role::User, content)]));
        }
    }
    prompts
}

/// A distiller with a grant: one account, declared, steady, with log-probabilities.
pub(super) fn licensee(composer: &mut Composer<'_>) -> Result<(), LabError> {
    let agent = "anbiq-distill/0.1";
    let Entrant { index, mut random } =
        composer.enter("licensee".into(), Group::Licensee, "invoice-licensee".into(), -24.0 * 20.0, agent)?;
    composer.accounts[index].side_by_side = 8;
    let prompts = queue(composer, composer.scale.of(800, 300), &mut random);
    // Six working days, each with one long run.
    let each = prompts.len().div_ceil(6);
    for (day, run) in prompts.chunks(each).enumerate() {
        let mut at = ((24.0 * (3.0 + 2.0 * day as f64) + 6.0 + 4.0 * random.unit()) * 3_600_000.0) as i64;
        for (kind, messages) in run {
            at += 2_000 + (random.exponential() * 20_000.0) as i64;
            let call = composer.call(index, at, *kind, messages.clone());
            composer.calls.push(Call { logprobs: Some(20), declared: true, ..call });
        }
    }
    Ok(())
}

/// Accounts of the operator.
const SEATS: usize = 40;

/// One operator behind forty quiet accounts that share out one queue of prompts.
pub(super) fn operator(composer: &mut Composer<'_>) -> Result<(), LabError> {
    let mut random = composer.random.fork("operator");
    let prompts = queue(composer, composer.scale.of(1_000, 440), &mut random);
    let proxies: Vec<[u8; 3]> = (0..14).map(|_| network(&mut random)).collect();
    let agents = ["python-httpx/0.28.1", "OpenAI/Python 2.8.0", "Go-http-client/2.0"];
    let mut names: Vec<usize> = (1_000..10_000).collect();
    random.shuffle(&mut names);

    // All accounts are opened within two days of the second week, and begin within hours of that.
    let mut opened = 24.0 * 8.0 + 5.0;
    let mut slots: Vec<(f64, usize)> = Vec::with_capacity(prompts.len());
    for (name, quota) in names.into_iter().zip(quotas(prompts.len(), &mut random)) {
        opened += 1.2 * random.exponential();
        let payment = format!("card-prepaid-{}", random.below(5));
        let agent = random.pick(&agents).copied().unwrap_or_default();
        let Entrant { index, .. } = composer.enter(format!("user-{name}"), Group::Operator, payment, opened, agent)?;
        let home = random.pick(&proxies).copied().unwrap_or_default();
        composer.accounts[index].address = host(home, &mut random);
        let mut at = opened + 2.0 + 10.0 * random.unit();
        for _ in 0..quota {
            slots.push((at, index));
            // About one an hour, never two at once.
            at += 0.35 + 0.7 * random.exponential();
        }
    }

    // The next prompt goes to whoever asks next.
    slots.sort_by(|one, other| one.0.total_cmp(&other.0));
    for ((at, index), (kind, messages)) in slots.into_iter().zip(prompts) {
        let mut call = composer.call(index, (at * 3_600_000.0) as i64, kind, messages);
        if random.chance(0.5) {
            // Proxies rotate, but an account keeps to few of them.
            let proxy = (index * 5 + random.below(3)) % proxies.len();
            call.address = host(proxies[proxy], &mut random);
        }
        composer.calls.push(call);
    }
    Ok(())
}

/// How many prompts each seat takes: nearly equal shares that add up to `count`.
fn quotas(count: usize, random: &mut Seeded) -> Vec<usize> {
    let mut quotas: Vec<usize> = (0..SEATS).map(|seat| count / SEATS + usize::from(seat < count % SEATS)).collect();
    for _ in 0..SEATS {
        let (from, to) = (random.below(SEATS), random.below(SEATS));
        // Nobody gives away more than a fifth.
        if quotas[from] * 5 > 4 * count / SEATS {
            quotas[from] -= 1;
            quotas[to] += 1;
        }
    }
    quotas
}
