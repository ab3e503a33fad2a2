//! The OpenAPI document that is committed is the one that the program gives.

use std::fs;
use std::path::Path;

use crate::house::House;

#[test]
fn the_committed_document_is_not_stale() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let present = serde_json::to_string_pretty(&anbiq_desk::openapi()).unwrap() + "\n";
    if std::env::var_os("ANBIQ_RENEW").is_some() {
        fs::write(&path, &present).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == present,
        "`crates/desk/openapi.json` is stale\nhint: ANBIQ_RENEW=1 cargo test -p anbiq-desk --test it document"
    );
}

#[tokio::test]
async fn the_document_is_served() {
    let house = House::new().await;
    assert_eq!(house.owner("GET", "/openapi.json", None).await.good(), anbiq_desk::openapi());
}

#[test]
fn every_reference_leads_somewhere() {
    let document = anbiq_desk::openapi();
    let text = document.to_string();
    let mut seen = 0;
    for rest in text.split("\"$ref\":\"#").skip(1) {
        let pointer = rest.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("schemas/{name}\"")), "nothing uses the schema `{name}`");
    }
}
