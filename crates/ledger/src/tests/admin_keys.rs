//! Keys of administrators, claims and declarations.

use super::*;
use crate::{AdminRole, NewAdminKey};

on_every_database![admin_keys_open_the_desk_alone, a_name_is_claimed_once_a_day, a_declaration_is_remembered];

fn new(role: AdminRole) -> NewAdminKey {
    NewAdminKey { role, account: None, note: None, expires: None }
}

async fn admin_keys_open_the_desk_alone(place: &Place) {
    let ledger = place.fresh().await;
    let of_acme = NewAdminKey {
        account: Some(acme()),
        note: Some("their office".to_owned()),
        expires: Some(later(MINUTE)),
        ..new(AdminRole::Viewer)
    };
    let (id, key) = ledger.issue_admin_key(&of_acme, NOW).await.unwrap();
    let session = ledger.authenticate_admin(key.expose(), NOW).await.unwrap();
    assert_eq!((session.key, session.role, session.account), (id.clone(), AdminRole::Viewer, Some(acme())));
    let refused = async |presented: &str, at| ledger.authenticate_admin(presented, at).await.unwrap_err().code();
    assert_eq!(refused(key.expose(), later(MINUTE)).await, "key_expired");
    ledger.revoke_admin_key(&id, NOW).await.unwrap();
    ledger.revoke_admin_key(&id, later(1)).await.unwrap();
    assert_eq!(refused(key.expose(), NOW).await, "key_revoked");
    assert_eq!(ledger.admin_key(&id).await.unwrap().unwrap().revoked, Some(NOW));

    let (_, owner) = ledger.issue_admin_key(&new(AdminRole::Owner), NOW).await.unwrap();
    let wrong = [&owner.expose()[..owner.expose().len() - 1], "~"].concat();
    let (_, api_key) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    for presented in [&wrong, api_key.expose(), "", &owner.expose().replace("ak-", "sk-")] {
        assert_eq!(refused(presented, NOW).await, "invalid_api_key", "{presented}");
    }
    // The key that stands in for malformed ones must not be one.
    assert_eq!(refused(&format!("ak-anbiq-{}-{}", "0".repeat(12), "0".repeat(48)), NOW).await, "invalid_api_key");
    assert_eq!(ledger.authenticate(owner.expose(), NOW).await.unwrap_err().code(), "invalid_api_key");
    assert!(!place.holds(&ledger, owner.expose().rsplit('-').next().unwrap()).await, "no secret is stored");

    let first = ledger.admin_keys(&Page { after: None, limit: 1 }).await.unwrap();
    let second = ledger.admin_keys(&Page { after: Some(first[0].id.to_string()), limit: 5 }).await.unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    let nobody = NewAdminKey { account: Some(AccountId::new("nobody").unwrap()), ..new(AdminRole::Viewer) };
    assert_eq!(ledger.issue_admin_key(&nobody, NOW).await.unwrap_err().code(), "unknown_account");
}

async fn a_name_is_claimed_once_a_day(place: &Place) {
    let ledger = place.fresh().await;
    let claims = join_all((0..8).map(|_| ledger.claim("one", NOW))).await;
    assert_eq!(claims.into_iter().filter(|claim| *claim.as_ref().unwrap()).count(), 1);
    assert!(ledger.claim("two", NOW).await.unwrap());
    ledger.unclaim("two").await.unwrap();
    assert!(ledger.claim("two", NOW).await.unwrap());
    assert!(!ledger.claim("one", later(24 * 60 * MINUTE - 1)).await.unwrap());
    assert!(ledger.claim("one", later(24 * 60 * MINUTE)).await.unwrap());
}

async fn a_declaration_is_remembered(place: &Place) {
    let ledger = place.fresh().await;
    assert_eq!(ledger.declared("plan standard").await.unwrap(), None);
    for value in ["one", "two"] {
        ledger.declare("plan standard", Digest::of(value.as_bytes())).await.unwrap();
        assert_eq!(ledger.declared("plan standard").await.unwrap(), Some(Digest::of(value.as_bytes())));
    }
    assert_eq!(ledger.declared("prices standard").await.unwrap(), None);
}
