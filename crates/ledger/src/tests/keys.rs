//! Keys, users and the lists of what there is.

use super::*;

on_every_database![
    a_key_is_good_for_its_scopes,
    a_rotated_key_ends_after_its_grace,
    a_user_goes_with_the_keys,
    lists_come_in_pages,
    one_look_serves_a_whole_request,
];

fn new_key() -> NewKey {
    NewKey { account: acme(), name: None, user: None, scopes: Scopes::default(), expires: None, issued: NOW }
}

async fn a_key_is_good_for_its_scopes(place: &Place) {
    let ledger = place.fresh().await;
    let scopes = Scopes { routes: Some(vec![Scope::Chat]), models: Some(vec!["small".to_owned()]) };
    let new = NewKey { name: Some("ci".to_owned()), scopes: scopes.clone(), ..new_key() };
    let (id, key) = ledger.issue(&new).await.unwrap();
    let session = ledger.authenticate(key.expose(), NOW).await.unwrap();
    assert_eq!(session.scopes, scopes);
    assert!(session.scopes.allow(Scope::Chat) && !session.scopes.allow(Scope::Models));
    assert!(session.scopes.allow_model("small") && !session.scopes.allow_model("large"));
    let state = ledger.key(&id).await.unwrap().unwrap();
    assert_eq!((state.name.as_deref(), state.scopes, &state.root), (Some("ci"), scopes, &id));
    let (_, all) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    let session = ledger.authenticate(all.expose(), NOW).await.unwrap();
    assert!(Scope::ALL.into_iter().all(|scope| session.scopes.allow(scope)) && session.scopes.allow_model("large"));
}

async fn a_rotated_key_ends_after_its_grace(place: &Place) {
    let ledger = place.fresh().await;
    let holds = async |key: &anbiq_secret::Secret<String>, at| {
        ledger.authenticate(key.expose(), at).await.map(|session| session.root).map_err(|error| error.code())
    };
    let new = NewKey { name: Some("ci".to_owned()), expires: Some(later(100 * MINUTE)), ..new_key() };
    let (first, first_key) = ledger.issue(&new).await.unwrap();
    assert_eq!(holds(&first_key, later(50 * MINUTE)).await, Ok(first.clone()));
    let (second, second_key) = ledger.rotate_key(&first, 10 * MINUTE, later(MINUTE)).await.unwrap();
    assert_eq!(holds(&first_key, later(11 * MINUTE - 1)).await, Ok(first.clone()));
    assert_eq!(holds(&first_key, later(11 * MINUTE)).await, Err("key_expired"));
    assert_eq!(holds(&second_key, later(99 * MINUTE)).await, Ok(first.clone()), "the row goes on");
    assert_eq!(holds(&second_key, later(100 * MINUTE)).await, Err("key_expired"), "the end stays");
    assert_eq!(ledger.key(&second).await.unwrap().unwrap().name.as_deref(), Some("ci"));
    // A longer grace does not lengthen what ends sooner; none ends the key at once.
    let (third, third_key) = ledger.rotate_key(&second, 1_000 * MINUTE, later(MINUTE)).await.unwrap();
    assert_eq!(holds(&second_key, later(100 * MINUTE)).await, Err("key_expired"));
    let (_, fourth_key) = ledger.rotate_key(&third, 0, later(2 * MINUTE)).await.unwrap();
    assert_eq!(holds(&third_key, later(2 * MINUTE)).await, Err("key_expired"));
    assert_eq!(holds(&fourth_key, later(2 * MINUTE)).await, Ok(first.clone()));
    for (key, code) in [(&third, "key_expired"), (&anbiq_domain::KeyId::new("nobody").unwrap(), "unknown_key")] {
        assert_eq!(ledger.rotate_key(key, 0, later(3 * MINUTE)).await.unwrap_err().code(), code);
    }
    ledger.revoke_key(&second, NOW).await.unwrap();
    assert_eq!(ledger.rotate_key(&second, 0, NOW).await.unwrap_err().code(), "key_revoked");
}

async fn a_user_goes_with_the_keys(place: &Place) {
    let ledger = place.fresh().await;
    let user = User { account: acme(), id: "nour".parse().unwrap(), name: Some("Nour".to_owned()), added: NOW };
    let of_user = || NewKey { user: Some(user.id.clone()), ..new_key() };
    assert_eq!(ledger.issue(&of_user()).await.unwrap_err().code(), "unknown_user");
    ledger.add_user(&user).await.unwrap();
    assert_eq!(ledger.add_user(&user).await.unwrap_err().code(), "user_exists");
    let (_, key) = ledger.issue(&of_user()).await.unwrap();
    let (_, other) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    assert_eq!(ledger.authenticate(key.expose(), NOW).await.unwrap().user, Some(user.id.clone()));
    assert_eq!(ledger.users(&acme(), &Page::default()).await.unwrap(), std::slice::from_ref(&user));
    assert_eq!(ledger.remove_user(&acme(), &user.id, NOW).await.unwrap(), 1);
    assert_eq!(ledger.authenticate(key.expose(), NOW).await.unwrap_err().code(), "key_revoked");
    assert!(ledger.authenticate(other.expose(), NOW).await.is_ok());
    assert_eq!(ledger.remove_user(&acme(), &user.id, NOW).await.unwrap_err().code(), "unknown_user");
    assert_eq!(ledger.issue(&of_user()).await.unwrap_err().code(), "unknown_user");
    assert_eq!(ledger.users(&acme(), &Page::default()).await.unwrap(), []);
    ledger.add_user(&user).await.unwrap();
    let nobody = User { account: AccountId::new("nobody").unwrap(), ..user };
    assert_eq!(ledger.add_user(&nobody).await.unwrap_err().code(), "unknown_account");
}

async fn lists_come_in_pages(place: &Place) {
    let ledger = place.fresh().await;
    let operator = "group".parse().unwrap();
    for name in ["b", "c", "d"] {
        let account = NewAccount { id: name.parse().unwrap(), plan: plan().id, payment: None, opened: NOW };
        ledger.open_account(&account).await.unwrap();
        ledger.set_operator(&account.id, Some(&operator), NOW).await.unwrap();
        ledger.put_prices(name, PriceList::default(), NOW).await.unwrap();
    }
    ledger.put_prices("b", PriceList { input: nanos(1), ..PriceList::default() }, later(1)).await.unwrap();
    ledger.put_terms(&terms(2), NOW).await.unwrap();
    let page = |after: &str, limit| Page { after: Some(after.to_owned()), limit };
    let names = async |operator: Option<&_>, page| {
        let accounts = ledger.accounts(operator, &page).await.unwrap();
        accounts.into_iter().map(|account| account.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None, Page::default()).await, ["acme", "b", "c", "d"]);
    assert_eq!(names(None, page("acme", 2)).await, ["b", "c"]);
    assert_eq!(names(Some(&operator), page("b", 9)).await, ["c", "d"]);
    assert_eq!(ledger.operators(&Page::default()).await.unwrap(), [operator]);
    assert_eq!(ledger.plans(&Page::default()).await.unwrap(), [plan()]);
    assert_eq!(ledger.all_terms(&Page::default()).await.unwrap(), [terms(2)]);
    let lists = ledger.price_lists(&page("a", 2)).await.unwrap();
    assert_eq!(lists[0], ("b".to_owned(), PriceList { input: nanos(1), ..PriceList::default() }));
    assert_eq!((lists.len(), lists[1].0.as_str()), (2, "c"));
    let history = ledger.price_history("b").await.unwrap();
    assert_eq!(history.iter().map(|(since, _)| *since).collect::<Vec<_>>(), [later(1), NOW]);
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(ledger.issue_key(&acme(), None, NOW).await.unwrap().0);
    }
    keys.sort();
    let listed = ledger.keys(Some(&acme()), &page(keys[0].as_str(), 9)).await.unwrap();
    assert_eq!(listed.iter().map(|key| &key.id).collect::<Vec<_>>(), [&keys[1], &keys[2]]);
    ledger.accept_terms(&acme(), &terms(2).reference(), later(3)).await.unwrap();
    assert_eq!(ledger.acceptances(&acme()).await.unwrap(), [(terms(2).reference(), later(3))]);
}

/// What a request sees of a model holds as of the look at its key, however late it asks.
async fn one_look_serves_a_whole_request(place: &Place) {
    let ledger = place.fresh().await;
    let other = place.open().await;
    let price = |dollars| PriceList { input: Money::from_dollars(dollars), ..PriceList::default() };
    ledger.put_prices("teacher", price(1), NOW).await.unwrap();
    let (_, key) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    let old = ledger.authenticate(key.expose(), NOW).await.unwrap();
    assert_eq!(ledger.teacher(&old, "teacher").await.unwrap().prices, Some(price(1)));
    other.put_prices("teacher", price(2), later(1)).await.unwrap();
    assert_eq!(ledger.teacher(&old, "teacher").await.unwrap().prices, Some(price(1)), "the request is under way");
    let new = ledger.authenticate(key.expose(), NOW).await.unwrap();
    assert_eq!(ledger.teacher(&new, "teacher").await.unwrap().prices, Some(price(2)));
    assert_eq!(ledger.teacher(&old, "teacher").await.unwrap().prices, Some(price(2)), "never forgotten for remembered");
    assert_eq!(ledger.teacher(&new, "teacher").await.unwrap().terms, Some(terms(1)));
    assert_eq!(*ledger.teacher(&new, "nobody").await.unwrap(), crate::Teacher::default());
}
