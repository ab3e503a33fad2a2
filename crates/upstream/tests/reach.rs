//! What may be reached: hostile addresses, names that lead astray, and what reaches a server of what a client sent.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anbiq_domain::Prompt;
use anbiq_model::{Fault, Model, Request};
use anbiq_upstream::{Client, ClientConfig, ErrorKind, Reach, Upstream, UpstreamConfig};

const HOSTILE: &str = include_str!("hostile_urls.txt");

fn code(reach: Reach, url: &str) -> String {
    let config = ClientConfig { reach: Arc::new(reach), ..ClientConfig::new(url, None) };
    match Client::new(config) {
        Ok(_) => "fine".to_owned(),
        Err(error) => {
            assert_eq!((error.kind, error.retryable()), (ErrorKind::Setup, false));
            error.code.unwrap()
        }
    }
}

#[test]
fn hostile_addresses_are_refused() {
    let mut count = 0;
    for line in HOSTILE.lines().filter(|line| !line.starts_with('#')) {
        let (expected, url) = line.split_once(' ').unwrap();
        let url = url.replace("\\r", "\r").replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0");
        assert_eq!(code(Reach::default(), &url), expected, "{url:?}");
        count += 1;
    }
    assert!(count >= 60, "{count}");
}

#[test]
fn usual_addresses_are_fine() {
    for url in [
        "https://api.openai.com/v1",
        "https://name.openai.azure.com",
        "http://127.0.0.1:8000/v1",
        "http://localhost:11434/v1/",
        "http://[::1]:8000/v1",
        "http://10.1.2.3/v1",
        "http://192.168.0.7:8000/v1",
        "http://[fd12:3456::7]/v1",
        "http://8.8.8.8/v1",
        "http://[2606:4700::1111]/v1",
        "http://vllm-0.vllm:8000/v1",
        "http://xn--bcher-kva.example/v1",
        "http://host_with_underscore/v1",
        "http://0x7f.example.com/v1",
    ] {
        assert_eq!(code(Reach::default(), url), "fine", "{url}");
    }
}

#[test]
fn a_list_opens_what_it_names_and_nothing_else() {
    let list = |entries: &[&str]| Reach::only(entries).unwrap();
    for (entries, url, expected) in [
        (&["169.254.169.254"][..], "http://169.254.169.254/v1", "fine"),
        (&["169.254.0.0/16"], "http://169.254.1.1/v1", "fine"),
        (&["169.254.0.0/17"], "http://169.254.169.254/v1", "address_refused"),
        (&["fe80::/10"], "http://[fe80::1]/v1", "fine"),
        (&["::/0"], "http://[ff02::1]/v1", "address_refused"),
        (&["0.0.0.0/0"], "http://0.0.0.0/v1", "address_refused"),
        (&["0.0.0.0/0"], "http://8.8.8.8/v1", "fine"),
        (&["10.0.0.0/8"], "http://8.8.8.8/v1", "address_refused"),
        (&["public"], "http://8.8.8.8/v1", "fine"),
        (&["8.8.8.8/32"], "http://8.8.8.9/v1", "address_refused"),
    ] {
        assert_eq!(code(list(entries), url), expected, "{entries:?} {url}");
    }
    for wrong in ["10.0.0.0/33", "http://x", "a b", "::/129", "*", "", "10.0.0.0/", "0177.0.0.1"] {
        assert_eq!(Reach::only(&[wrong]).unwrap_err().code(), "allow_list_invalid", "{wrong}");
    }
}

/// What becomes of a request to `name`, which has `addresses`, and how often anybody was connected to.
async fn connect(reach: Reach, name: &str, addresses: &[&str]) -> (String, usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connected = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connected);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let reach = Arc::new(reach.with_names(BTreeMap::from([(name.to_ascii_lowercase(), addresses)])));
    let mut config = UpstreamConfig::new("m", format!("http://{name}:{port}/v1"), None);
    config.client.reach = reach;
    let error = Upstream::new(config).unwrap().generate(Request::new(Prompt::user("hi"), 9)).await.unwrap_err();
    if error.code == "upstream_forbidden" {
        assert_eq!(error.fault, Fault::Setup);
        assert!(error.message.contains("upstream_allow"), "{}", error.message);
    }
    (error.code.to_owned(), connected.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_followed() {
    for address in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "fd12::1",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "64:ff9b::7f00:1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        let seen = connect(Reach::default(), "rebound.example", &[address]).await;
        assert_eq!(seen, ("upstream_forbidden".to_owned(), 0), "{address}");
    }
    let special = connect(Reach::only(&["rebound.example"]).unwrap(), "rebound.example", &["169.254.169.254"]).await;
    assert_eq!(special.0, "upstream_forbidden", "naming a host opens no metadata service");
    let public = connect(Reach::only(&["10.0.0.0/8"]).unwrap(), "api.example", &["8.8.8.8"]).await;
    assert_eq!(public.0, "upstream_forbidden", "a list without `public` opens nothing public");
}

#[tokio::test]
async fn a_name_is_followed_inside_where_the_list_says_so() {
    for entry in ["vllm.internal", "127.0.0.0/8", "127.0.0.1"] {
        let seen = connect(Reach::only(&[entry]).unwrap(), "VLLM.internal", &["127.0.0.1"]).await;
        assert_eq!(seen, ("upstream_unreachable".to_owned(), 1), "{entry}: connected to, and then hung up on");
    }
    let local = connect(Reach::default(), "localhost", &["127.0.0.1"]).await;
    assert_eq!(local, ("upstream_unreachable".to_owned(), 1), "`localhost` names itself");
    let astray = connect(Reach::default(), "localhost", &["10.0.0.1"]).await;
    assert_eq!(astray.0, "upstream_forbidden", "but it is this machine and no other");
    let mixed = connect(Reach::only(&["127.0.0.1"]).unwrap(), "mixed.example", &["10.0.0.1", "127.0.0.1"]).await;
    assert_eq!(mixed.1, 1, "of several addresses those that are allowed");
}
