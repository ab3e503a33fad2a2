//! Budgets of keys, accounts and operators, in money and tokens, over windows of time.

use anbiq_domain::{KeyId, OperatorId, Window};

use super::*;

on_every_database![
    a_window_ends_and_another_begins,
    the_keys_of_a_row_share_their_budgets,
    the_accounts_of_an_operator_share_its_budgets,
    the_next_way_to_pay_is_tried_where_a_grant_ends,
    budgets_are_listed_changed_and_taken_away,
    random_histories_keep_every_limit,
    no_limit_is_passed_by_many_at_once_or_by_crashes,
];

const HOUR: i64 = 60 * MINUTE;

fn operator() -> OperatorId {
    OperatorId::new("group").unwrap()
}

fn other() -> AccountId {
    AccountId::new("other").unwrap()
}

fn account(name: AccountId) -> Holder {
    Holder::Account(name)
}

fn money(holder: Holder, window: Window, limit: i64) -> Budget {
    Budget { holder, window, limit: Measure::Money(nanos(limit)) }
}

fn tokens(holder: Holder, window: Window, limit: u64) -> Budget {
    Budget { holder, window, limit: Measure::Tokens(limit) }
}

fn asking(account: AccountId, key: Option<KeyId>, money: i64, tokens: u64, at: Timestamp) -> Reserve {
    let most = Cost { money: nanos(money), tokens, completion_tokens: 0 };
    Reserve { exchange: exchange(), account, key, ways: vec![Way { grant: None, most }], at, ttl_ms: HOUR }
}

async fn hold(ledger: &Ledger, reserve: Reserve) -> Result<ExchangeId, LedgerError> {
    let exchange = reserve.exchange;
    ledger.reserve(reserve).await.map(|_| exchange)
}

fn paid(money: i64, tokens: u64) -> Cost {
    Cost { money: nanos(money), tokens, completion_tokens: 0 }
}

/// A ledger with two accounts of one operator.
async fn group(place: &Place) -> Ledger {
    let ledger = place.fresh().await;
    let second = NewAccount { id: other(), plan: plan().id, payment: None, opened: NOW };
    ledger.open_account(&second).await.unwrap();
    for account in [acme(), other()] {
        ledger.set_operator(&account, Some(&operator()), NOW).await.unwrap();
    }
    ledger
}

/// Spent and reserved of every budget that is listed.
async fn standing(ledger: &Ledger, at: Timestamp) -> Vec<(String, i64, i64)> {
    let count = |measure: Measure| measure.count().unwrap();
    let uses = ledger.budgets(None, at, &Page::default()).await.unwrap();
    uses.iter().map(|one| (one.cursor(), count(one.spent), count(one.reserved))).collect()
}

async fn a_window_ends_and_another_begins(place: &Place) {
    let ledger = place.fresh().await;
    ledger.put_budget(&money(account(acme()), Window::Day, 100)).await.unwrap();
    let (begins, ends) = Window::Day.around(NOW);
    let ends = ends.unwrap();
    let last = ends.plus_milliseconds(-1);
    let take = async |amount, at| hold(&ledger, asking(acme(), None, amount, 0, at)).await;
    let held = take(70, begins).await.unwrap();
    let refused = take(40, last).await.unwrap_err();
    assert_eq!((refused.code(), refused.who()), ("account_budget_exceeded", Who::Customer));
    assert!(refused.retryable(), "the other may cost less");
    assert_eq!(
        refused.to_string(),
        "the account's budget of $0.0000001 a day does not hold $0.00000004 more: $0.00 spent, $0.00000007 reserved"
    );
    let LedgerError::InsufficientBudget(short) = &refused else { panic!("{refused}") };
    assert_eq!(short.resets, Some(ends));
    let LedgerError::InsufficientBudget(short) = take(101, last).await.unwrap_err() else { panic!() };
    assert_eq!(short.resets, None, "no window will ever hold it");
    // What began yesterday is paid from yesterday, though it ends today.
    let next = take(40, ends).await.unwrap();
    settle(&ledger, held, paid(65, 0)).await.unwrap();
    let cursor = "account:acme money day".to_owned();
    assert_eq!(standing(&ledger, last).await, [(cursor.clone(), 65, 0)]);
    assert_eq!(standing(&ledger, ends).await, [(cursor.clone(), 0, 40)]);
    let refused = take(36, last).await.unwrap_err();
    assert!(!refused.retryable(), "it is spent");
    take(35, last).await.unwrap();
    ledger.release(next).await.unwrap();
    assert_eq!(standing(&ledger, ends).await, [(cursor.clone(), 0, 0)]);
    // Old windows are forgotten, unless something is under way in them.
    let month_later = ends.plus_milliseconds(36 * 24 * HOUR);
    sqlx::query("UPDATE holds SET expires = $1").bind(i64::MAX).execute(&ledger.writers).await.unwrap();
    ledger.expire(month_later).await.unwrap();
    assert_eq!(standing(&ledger, last).await, [(cursor.clone(), 65, 35)]);
    sqlx::query("UPDATE holds SET expires = $1").bind(0_i64).execute(&ledger.writers).await.unwrap();
    ledger.expire(month_later).await.unwrap();
    assert_eq!(standing(&ledger, last).await, [(cursor, 0, 0)]);
    assert_eq!(ledger.budget(&acme()).await.unwrap().unwrap().spent, nanos(65));
}

async fn the_keys_of_a_row_share_their_budgets(place: &Place) {
    let ledger = place.fresh().await;
    let (first, _) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    let (second, key) = ledger.rotate_key(&first, HOUR, NOW).await.unwrap();
    ledger.put_budget(&tokens(Holder::Key(second.clone()), Window::Total, 100)).await.unwrap();
    let root = ledger.authenticate(key.expose(), NOW).await.unwrap().root;
    let take = async |key: Option<KeyId>, tokens| {
        hold(&ledger, asking(acme(), key, 1, tokens, NOW)).await.map(drop).map_err(|error| error.code())
    };
    assert_eq!(take(Some(root.clone()), 60).await, Ok(()));
    assert_eq!(take(Some(root), 60).await, Err("key_budget_exceeded"));
    assert_eq!(take(None, 60).await, Ok(()), "another key of the account");
    let listed = ledger.budgets(Some(&Holder::Key(second)), NOW, &Page::default()).await.unwrap();
    assert_eq!(listed[0].budget.holder, Holder::Key(first));
    assert_eq!((listed.len(), listed[0].reserved), (1, Measure::Tokens(60)));
    assert_eq!(state(&ledger).await, (0, 2), "what one budget refuses no other holds");
}

async fn the_accounts_of_an_operator_share_its_budgets(place: &Place) {
    let ledger = group(place).await;
    ledger.put_budget(&money(Holder::Operator(operator()), Window::Month, 100)).await.unwrap();
    let take = async |account, amount| {
        hold(&ledger, asking(account, None, amount, 0, NOW)).await.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(take(acme(), 60).await, Ok(()));
    assert_eq!(
        take(other(), 60).await.unwrap_err(),
        "the operator's budget of $0.0000001 a month does not hold $0.00000006 more",
        "what others spent is not told"
    );
    assert_eq!(take(other(), 40).await, Ok(()));
    ledger.set_operator(&other(), None, NOW).await.unwrap();
    assert_eq!(take(other(), 60).await, Ok(()));
}

async fn the_next_way_to_pay_is_tried_where_a_grant_ends(place: &Place) {
    let ledger = place.fresh().await;
    ledger.put_budget(&money(account(acme()), Window::Day, 1_000)).await.unwrap();
    for (name, volume) in [("small", 10), ("large", 100)] {
        ledger.give_grant(&grant(name, Some(volume), None)).await.unwrap();
    }
    let way = |name: Option<&str>, money| Way {
        grant: name.map(|name| GrantId::new(name).unwrap()),
        most: Cost { money: nanos(money), tokens: 60, completion_tokens: 60 },
    };
    let take = async |ways: Vec<Way>| {
        let reserve = Reserve { exchange: exchange(), account: acme(), key: None, ways, at: NOW, ttl_ms: MINUTE };
        ledger.reserve(reserve).await.map_err(|error| error.code())
    };
    let ways = [way(Some("small"), 5), way(Some("large"), 5), way(None, 7)];
    assert_eq!(take(ways.to_vec()).await.unwrap(), 1);
    assert_eq!(take(ways.to_vec()).await.unwrap(), 2);
    assert_eq!(take(ways[..2].to_vec()).await, Err("grant_used_up"));
    assert_eq!(
        take(vec![way(None, 2_000), way(None, 1)]).await,
        Err("account_budget_exceeded"),
        "a budget has no way round"
    );
    assert_eq!(take(Vec::new()).await, Err("amount_out_of_range"));
    assert_eq!(standing(&ledger, NOW).await, [("account:acme money day".to_owned(), 0, 12)]);
}

async fn budgets_are_listed_changed_and_taken_away(place: &Place) {
    let ledger = group(place).await;
    let (key, _) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    for budget in [
        money(account(acme()), Window::Total, 500),
        tokens(account(acme()), Window::Hours(6), 40),
        money(Holder::Operator(operator()), Window::Week, 900),
        tokens(Holder::Key(key.clone()), Window::Total, 7),
    ] {
        ledger.put_budget(&budget).await.unwrap();
    }
    let key_cursor = format!("key:{key} tokens total");
    let cursors = async |page| {
        let uses = ledger.budgets(None, NOW, &page).await.unwrap();
        uses.iter().map(crate::BudgetUse::cursor).collect::<Vec<_>>()
    };
    let all = ["account:acme money total", "account:acme tokens 6h", &key_cursor, "operator:group money week"];
    assert_eq!(cursors(Page::default()).await, all);
    assert_eq!(cursors(Page { after: Some(all[0].to_owned()), limit: 2 }).await, all[1..3]);
    let of_acme = ledger.budgets(Some(&account(acme())), NOW, &Page::default()).await.unwrap();
    assert_eq!(of_acme.iter().map(|one| one.ends.is_some()).collect::<Vec<_>>(), [false, true]);

    let take = async |tokens| hold(&ledger, asking(acme(), None, 1, tokens, NOW)).await;
    let held = take(40).await.unwrap();
    settle(&ledger, held, paid(1, 40)).await.unwrap();
    assert_eq!(take(1).await.unwrap_err().code(), "account_budget_exceeded");
    ledger.put_budget(&tokens(account(acme()), Window::Hours(6), 41)).await.unwrap();
    let held = take(1).await.unwrap();
    ledger.remove_budget(&account(acme()), Unit::Tokens, Window::Hours(6)).await.unwrap();
    settle(&ledger, held, paid(1, 1)).await.unwrap();
    take(1_000).await.unwrap();
    ledger.remove_budget(&account(acme()), Unit::Money, Window::Total).await.unwrap();
    assert_eq!(ledger.budget(&acme()).await.unwrap().unwrap().limit, None);
    for (holder, unit, code) in [
        (account(acme()), Unit::Tokens, "unknown_budget"),
        (account(acme()), Unit::Money, "unknown_budget"),
        (account("nobody".parse().unwrap()), Unit::Money, "unknown_account"),
        (Holder::Key("nobody".parse().unwrap()), Unit::Money, "unknown_key"),
        (Holder::Operator("nobody".parse().unwrap()), Unit::Money, "unknown_operator"),
    ] {
        assert_eq!(ledger.remove_budget(&holder, unit, Window::Total).await.unwrap_err().code(), code);
    }
    for budget in [money(account(acme()), Window::Day, -1), tokens(account(acme()), Window::Day, u64::MAX)] {
        assert_eq!(ledger.put_budget(&budget).await.unwrap_err().code(), "amount_out_of_range");
    }
}

/// One reservation as the reference keeps it.
#[derive(Debug, Clone)]
struct Entry {
    payer: usize,
    money: i64,
    tokens: i64,
    at: Timestamp,
    ends: Timestamp,
}

/// The limits as the reference keeps them: a plain list of everything that is held and everything that was paid.
#[derive(Default)]
struct Reference {
    /// Of each budget, in the order in which they are looked at, and by which payers it is shared.
    budgets: Vec<(Budget, Vec<usize>)>,
    held: BTreeMap<usize, Entry>,
    paid: Vec<Entry>,
}

impl Reference {
    fn sum<'a>(&self, entries: impl Iterator<Item = &'a Entry>, budget: usize, at: Timestamp) -> i64 {
        let (Budget { window, limit, .. }, payers) = &self.budgets[budget];
        let counted =
            |entry: &&Entry| payers.contains(&entry.payer) && window.around(entry.at).0 == window.around(at).0;
        let amount = |entry: &Entry| if limit.unit() == Unit::Money { entry.money } else { entry.tokens };
        entries.filter(counted).map(amount).sum()
    }

    fn standing(&self, budget: usize, at: Timestamp) -> (i64, i64) {
        (self.sum(self.paid.iter(), budget, at), self.sum(self.held.values(), budget, at))
    }

    /// The first budget that does not hold it.
    fn refuses(&self, entry: &Entry) -> Option<&Budget> {
        (0..self.budgets.len()).find_map(|number| {
            let (budget, payers) = &self.budgets[number];
            let (spent, reserved) = self.standing(number, entry.at);
            let asked = if budget.limit.unit() == Unit::Money { entry.money } else { entry.tokens };
            let holds = spent + reserved + asked <= budget.limit.count().unwrap();
            (payers.contains(&entry.payer) && !holds).then_some(budget)
        })
    }
}

/// Accounts with their keys, and the budgets that a history meets.
async fn furnished(place: &Place) -> (Ledger, Vec<(AccountId, Option<KeyId>)>, Vec<(Budget, Vec<usize>)>) {
    let ledger = group(place).await;
    let (key, _) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    let payers = vec![(acme(), Some(key.clone())), (acme(), None), (other(), None)];
    let budgets = vec![
        (money(account(acme()), Window::Total, 12_000), vec![0, 1]),
        (money(account(acme()), Window::Day, 3_000), vec![0, 1]),
        (tokens(account(acme()), Window::Hours(6), 600), vec![0, 1]),
        (tokens(account(other()), Window::Hours(1), 150), vec![2]),
        (money(Holder::Key(key.clone()), Window::Hours(1), 700), vec![0]),
        (tokens(Holder::Key(key), Window::Total, 2_000), vec![0]),
        (money(Holder::Operator(operator()), Window::Month, 20_000), vec![0, 1, 2]),
        (money(Holder::Operator(operator()), Window::Week, 9_000), vec![0, 1, 2]),
    ];
    for (budget, _) in &budgets {
        ledger.put_budget(budget).await.unwrap();
    }
    (ledger, payers, budgets)
}

async fn random_histories_keep_every_limit(place: &Place) {
    let (mut ledger, payers, budgets) = furnished(place).await;
    let mut reference = Reference { budgets, ..Reference::default() };
    let mut random = Seeded::new(17);
    let (mut ids, mut now) = (Vec::<ExchangeId>::new(), NOW);
    let (mut refusals, mut late) = (BTreeMap::<String, u32>::new(), 0);
    let (mut closed, mut expired) = (Vec::new(), BTreeMap::<usize, (Entry, Timestamp)>::new());
    for step in 0..900 {
        now = now.plus_milliseconds(random.below(13) as i64 * MINUTE);
        match random.below(10) {
            0..=4 => {
                let payer = random.below(payers.len());
                let (money, tokens) = (random.below(400) as i64, random.below(120) as i64);
                let ttl = (random.below(90) as i64 + 1) * MINUTE;
                let entry = Entry { payer, money, tokens, at: now, ends: now.plus_milliseconds(ttl) };
                let (account, key) = payers[payer].clone();
                let ask = Reserve { ttl_ms: ttl, ..asking(account, key, money, tokens.unsigned_abs(), now) };
                match (hold(&ledger, ask).await, reference.refuses(&entry)) {
                    (Ok(reserved), None) => {
                        reference.held.insert(ids.len(), entry);
                        ids.push(reserved);
                    }
                    (Err(LedgerError::InsufficientBudget(short)), Some(budget)) => {
                        assert_eq!(&short.budget, budget, "step {step}");
                        *refusals.entry(format!("{} {}", budget.holder, budget.window)).or_default() += 1;
                    }
                    (got, expected) => panic!("step {step}: {got:?} where {expected:?} was expected"),
                }
            }
            5..=7 if !ids.is_empty() => {
                // Often a reservation of long ago: closed, or expired.
                let which = random.below(ids.len()).max(random.below(ids.len()));
                let open = reference.held.remove(&which).or_else(|| {
                    late += u32::from(expired.contains_key(&which));
                    expired.remove(&which).map(|(entry, _)| entry)
                });
                let settles = random.chance(0.7);
                let part =
                    |most: i64, random: &mut Seeded| if settles { random.below(most as usize + 1) as i64 } else { 0 };
                let Some(entry) = open else {
                    assert!(closed.contains(&which));
                    assert_eq!(settle(&ledger, ids[which], paid(1, 1)).await.unwrap_err().code(), "reservation_closed");
                    continue;
                };
                let (money, tokens) = (part(entry.money, &mut random), part(entry.tokens, &mut random));
                settle(&ledger, ids[which], paid(money, tokens.unsigned_abs())).await.unwrap();
                reference.paid.push(Entry { money, tokens, ..entry });
                closed.push(which);
            }
            8 => {
                let over: Vec<usize> =
                    reference.held.iter().filter(|(_, entry)| entry.ends <= now).map(|(which, _)| *which).collect();
                assert_eq!(ledger.expire(now).await.unwrap(), over.len() as u64, "step {step}");
                for which in over {
                    expired.insert(which, (reference.held.remove(&which).unwrap(), now));
                }
                // What expired a day ago is forgotten, and was never paid.
                expired.retain(|which, (_, since)| {
                    let kept = now.since(*since) < 24 * HOUR;
                    if !kept {
                        closed.push(*which);
                    }
                    kept
                });
            }
            // A crash: what is held outlives the program.
            _ if step % 5 == 0 => {
                drop(ledger);
                ledger = place.open().await;
            }
            _ => {}
        }
        if step % 9 == 0 {
            check(&ledger, &reference, now).await;
        }
    }
    assert!(refusals.len() >= 6 && late > 5 && closed.len() > 200, "{refusals:?} {late} {}", closed.len());
    let over = now.plus_milliseconds(2 * HOUR);
    ledger.expire(over).await.unwrap();
    reference.held.clear();
    check(&ledger, &reference, now).await;
    let (held,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM holds WHERE state = 'open'").fetch_one(&ledger.writers).await.unwrap();
    let (reserved,): (i64,) = sqlx::query_as("SELECT CAST(SUM(reserved) AS BIGINT) FROM budget_windows")
        .fetch_one(&ledger.writers)
        .await
        .unwrap();
    assert_eq!((held, reserved), (0, 0), "nothing is held when its time is over");
}

/// Everything stands as the reference says.
async fn check(ledger: &Ledger, reference: &Reference, now: Timestamp) {
    let mut expected: Vec<_> = (0..reference.budgets.len())
        .map(|number| {
            let Budget { holder, window, limit } = &reference.budgets[number].0;
            let (spent, reserved) = reference.standing(number, now);
            assert!(spent + reserved <= limit.count().unwrap());
            (format!("{holder} {} {window}", limit.unit().as_str()), spent, reserved)
        })
        .collect();
    expected.sort();
    let mut got = standing(ledger, now).await;
    got.sort();
    assert_eq!(got, expected);
}

async fn no_limit_is_passed_by_many_at_once_or_by_crashes(place: &Place) {
    let (mut ledger, payers, budgets) = furnished(place).await;
    let mut settled = 0;
    let mut now = NOW;
    for round in 0_u64..6 {
        let second = place.open().await;
        let one = |number: u64| {
            // Two programs at once.
            let ledger = if number.is_multiple_of(2) { ledger.clone() } else { second.clone() };
            let (account, key) = payers[number as usize % payers.len()].clone();
            let mut random = Seeded::new(1_000 * round + number);
            tokio::spawn(async move {
                let mut paid_money = 0;
                for _ in 0..4 {
                    let (money, tokens) = (random.below(300) as i64, random.below(50) as u64);
                    let Ok(reserved) = hold(&ledger, asking(account.clone(), key.clone(), money, tokens, now)).await
                    else {
                        continue;
                    };
                    match random.below(4) {
                        // Nobody comes back for it.
                        0 => {}
                        1 => ledger.release(reserved).await.unwrap(),
                        _ => {
                            let cost = paid(money / 2, tokens / 2);
                            // A client that is not sure asks again: it is charged once.
                            let again = random.chance(0.5);
                            settle(&ledger, reserved, cost).await.unwrap();
                            if again {
                                settle(&ledger, reserved, cost).await.unwrap_err();
                            }
                            paid_money += money / 2;
                        }
                    }
                }
                paid_money
            })
        };
        let watching = async {
            for _ in 0..20 {
                for one in ledger.budgets(None, now, &Page::default()).await.unwrap() {
                    let count = |measure: Measure| measure.count().unwrap();
                    assert!(count(one.spent) + count(one.reserved) <= count(one.budget.limit), "{one:?}");
                }
            }
        };
        let (outcomes, ()) = tokio::join!(join_all((0..24).map(one)), watching);
        settled += outcomes.into_iter().map(Result::unwrap).sum::<i64>();
        drop((ledger, second));
        ledger = place.open().await;
        ledger.expire(now.plus_milliseconds(HOUR)).await.unwrap();
        for (name, _, reserved) in standing(&ledger, now).await {
            assert_eq!(reserved, 0, "{name}");
        }
        now = now.plus_milliseconds(5 * HOUR);
    }
    let mut spent = 0;
    for account in [acme(), other()] {
        let budget = ledger.budget(&account).await.unwrap().unwrap();
        assert_eq!(budget.reserved, Money::ZERO);
        spent += budget.spent.nanos();
    }
    assert_eq!(spent, settled, "to the last nano-dollar");
    assert!(settled > 0 && budgets.len() == 8);
}
