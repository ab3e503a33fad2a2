//! Grants: asked for, approved, refused, given, used up, revoked.

use anbiq_domain::PriceClass;

use super::*;

on_every_database![
    a_grant_is_asked_for_and_decided,
    what_goes_beyond_the_terms_says_why,
    grants_are_listed_as_they_stand
];

async fn take(ledger: &Ledger, id: &str, tokens: u64) -> Result<ExchangeId, LedgerError> {
    reserve(ledger, nanos(1), Some((GrantId::new(id).unwrap(), tokens)), NOW, MINUTE).await
}

async fn a_grant_is_asked_for_and_decided(place: &Place) {
    let ledger = place.fresh().await;
    let (_, key) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    let seen = async || ledger.authenticate(key.expose(), NOW).await.unwrap().grants.len();
    let asked = grant("g", Some(100), None);
    ledger.ask_grant(&asked).await.unwrap();
    let record = ledger.grant(&asked.id, NOW).await.unwrap().unwrap();
    assert_eq!((&record.grant, record.state, record.asked), (&asked, GrantState::Asked, Some(NOW)));
    // It permits nothing.
    assert_eq!(seen().await, 0);
    assert_eq!(ledger.grant_of(&acme(), &terms(1).id, NOW).await.unwrap(), None);
    assert_eq!(take(&ledger, "g", 1).await.unwrap_err().code(), "unknown_grant");
    assert_eq!(ledger.ask_grant(&asked).await.unwrap_err().code(), "grant_exists");

    let narrower =
        Conditions { max_output_tokens: Some(50), price_class: Some(PriceClass::Batch), ..asked.conditions.clone() };
    let given = ledger.approve_grant(&asked.id, Some(&narrower), Some(later(MINUTE)), later(1)).await.unwrap();
    assert_eq!(given, Grant { conditions: narrower, given: later(1), expires: Some(later(MINUTE)), ..asked.clone() });
    assert_eq!(seen().await, 1);
    assert_eq!(take(&ledger, "g", 51).await.unwrap_err().code(), "grant_used_up");
    take(&ledger, "g", 50).await.unwrap();
    for decided in [
        ledger.approve_grant(&asked.id, None, None, NOW).await.map(drop),
        ledger.refuse_grant(&asked.id, "no", NOW).await,
    ] {
        assert_eq!(decided.unwrap_err().code(), "grant_not_asked");
    }

    let second = grant("second", None, None);
    ledger.ask_grant(&second).await.unwrap();
    ledger.refuse_grant(&second.id, "too large", NOW).await.unwrap();
    let record = ledger.grant(&second.id, NOW).await.unwrap().unwrap();
    assert_eq!((record.state, record.refused.as_deref()), (GrantState::Refused, Some("too large")));
    assert_eq!(take(&ledger, "second", 1).await.unwrap_err().code(), "unknown_grant");
    assert_eq!(ledger.approve_grant(&second.id, None, None, NOW).await.unwrap_err().code(), "grant_not_asked");

    let third = grant("third", None, None);
    ledger.ask_grant(&third).await.unwrap();
    ledger.revoke_grant(&third.id, NOW).await.unwrap();
    assert_eq!(ledger.approve_grant(&third.id, None, None, NOW).await.unwrap_err().code(), "grant_not_asked");
    let nobody = GrantId::new("nobody").unwrap();
    assert_eq!(ledger.approve_grant(&nobody, None, None, NOW).await.unwrap_err().code(), "unknown_grant");
    let unknown = Grant { terms: TermsRef { version: 9, ..terms(1).reference() }, ..grant("fourth", None, None) };
    assert_eq!(ledger.ask_grant(&unknown).await.unwrap_err().code(), "unknown_terms");
}

async fn what_goes_beyond_the_terms_says_why(place: &Place) {
    let ledger = place.fresh().await;
    let conditions = Conditions { max_output_tokens: Some(10), ..Conditions::default() };
    ledger.put_terms(&Terms { conditions, ..terms(2) }, NOW).await.unwrap();
    ledger.put_terms(&Terms { distillation: Permission::Forbidden, ..terms(3) }, NOW).await.unwrap();
    let of = |version, id: &str, volume, reason: Option<&str>| {
        let grant = grant(id, volume, None);
        let conditions = Conditions { beyond_terms: reason.map(str::to_owned), ..grant.conditions };
        Grant { terms: TermsRef { version, ..grant.terms }, conditions, ..grant }
    };
    ledger.give_grant(&of(2, "within", Some(10), None)).await.unwrap();
    for beyond in [of(2, "wide", Some(11), None), of(2, "wide", None, None), of(3, "wide", Some(1), None)] {
        assert_eq!(ledger.give_grant(&beyond).await.unwrap_err().code(), "grant_beyond_terms");
    }
    // Asking is free; approving is not.
    let wide = of(2, "wide", Some(11), None);
    ledger.ask_grant(&wide).await.unwrap();
    assert_eq!(ledger.approve_grant(&wide.id, None, None, NOW).await.unwrap_err().code(), "grant_beyond_terms");
    let reasoned = of(2, "wide", Some(11), Some("a partner")).conditions;
    let given = ledger.approve_grant(&wide.id, Some(&reasoned), None, NOW).await.unwrap();
    assert_eq!(given.conditions.beyond_terms.as_deref(), Some("a partner"));
    ledger.give_grant(&of(3, "forbidden", None, Some("written permission"))).await.unwrap();
}

async fn grants_are_listed_as_they_stand(place: &Place) {
    let ledger = place.fresh().await;
    for (id, volume, expires) in [
        ("active", None, None),
        ("expired", None, Some(later(MINUTE))),
        ("revoked", None, None),
        ("used", Some(5), None),
    ] {
        ledger.give_grant(&grant(id, volume, expires)).await.unwrap();
    }
    ledger.ask_grant(&grant("asked", None, None)).await.unwrap();
    ledger.revoke_grant(&GrantId::new("revoked").unwrap(), NOW).await.unwrap();
    let held = take(&ledger, "used", 5).await.unwrap();
    let held_of = async |id: &str| ledger.grant(&GrantId::new(id).unwrap(), NOW).await.unwrap().unwrap().reserved;
    assert_eq!(held_of("used").await, 5);
    settle(&ledger, held, cost(1, 5)).await.unwrap();
    let list = async |page: Page| {
        let grants = ledger.grants(Some(&acme()), later(MINUTE), &page).await.unwrap();
        grants.into_iter().map(|one| (one.grant.id.to_string(), one.state)).collect::<Vec<_>>()
    };
    let all = [
        ("active".to_owned(), GrantState::Active),
        ("asked".to_owned(), GrantState::Asked),
        ("expired".to_owned(), GrantState::Expired),
        ("revoked".to_owned(), GrantState::Revoked),
        ("used".to_owned(), GrantState::UsedUp),
    ];
    assert_eq!(list(Page::default()).await, all);
    assert_eq!(list(Page { after: Some("asked".to_owned()), limit: 2 }).await, all[2..4]);
    let nobody = AccountId::new("nobody").unwrap();
    assert_eq!(ledger.grants(Some(&nobody), NOW, &Page::default()).await.unwrap(), []);
}
