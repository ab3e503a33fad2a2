//! The ledger over an encrypted connection, where a PostgreSQL server that offers one is there.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail, and says what it skips")]

use anbiq_ledger::Ledger;

#[tokio::test]
async fn a_connection_is_encrypted_and_the_server_is_known() {
    let server = std::env::var("ANBIQ_TEST_POSTGRES_TLS").ok().zip(std::env::var("ANBIQ_TEST_POSTGRES_CA").ok());
    let Some((url, authority)) = server else {
        eprintln!("SKIPPED the ledger over TLS: `ANBIQ_TEST_POSTGRES_TLS` and `ANBIQ_TEST_POSTGRES_CA` name no server");
        return;
    };
    for (parameters, opens) in [
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=verify-full&sslrootcert={authority}"), true),
        // Nobody that this program trusts by itself has signed for the server.
        ("sslmode=verify-full".to_owned(), false),
        ("sslmode=verify-ca".to_owned(), false),
    ] {
        let opened = Ledger::open(&format!("{url}?{parameters}")).await;
        assert_eq!(opened.is_ok(), opens, "{parameters}: {:?}", opened.err());
        if let Ok(ledger) = opened {
            ledger.close().await;
        }
    }
}
