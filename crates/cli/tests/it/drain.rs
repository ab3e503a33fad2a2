//! How a gateway stops: nothing new, everything under way to its end, all of it on the disk, and 0.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anbiq_lab::mock::{Fault, Mock};

use crate::served::{Served, ask};
use crate::support::Place;

const PLAN: &str = "\n[[plan]]\nid = \"standard\"\n";

/// A gateway in front of the server at `url`, with an account `acme`; gives its key.
pub(crate) fn furnish(url: &str) -> (Place, String) {
    let place = Place::empty();
    place.write(
        "anbiq.toml",
        &format!(
            "secrets = \"secrets\"\n[journal]\npath = \"journal\"\nid = \"drain\"\n[ledger]\npath = \"ledger.db\"\n\
             [serve]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[[model]]\nname = \"teacher\"\nurl = \"{url}\"\n\
             prices = {{ input = \"0.50\", output = \"2.00\" }}\n{PLAN}"
        ),
    );
    let opened = place.run("account open acme --plan standard --budget 1.00");
    assert_eq!(opened.code, 0, "{}", opened.err);
    let key = place.run("key issue acme").out.trim().to_owned();
    (place, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_end_and_all_is_settled() {
    let mock = Mock::start().await.unwrap();
    let (place, key) = furnish(&mock.base_url);
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut words = [0; 64];
        let length = manager.recv(&mut words).unwrap();
        String::from_utf8_lossy(&words[..length]).into_owned()
    };
    let notify = place.path("notify").display().to_string();
    let gateway = Served::start(&place, "serve", &[("NOTIFY_SOCKET", &notify)]);
    assert_eq!(told(), "READY=1");

    mock.fail_always(Some(Fault::Slow(Duration::from_millis(1500))));
    let headers = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
    let under_way: Vec<_> = [true, false, true, true]
        .map(|stream| {
            let (door, headers) = (gateway.doors[0].clone(), headers.clone());
            let body = format!(
                r#"{{"model": "teacher", "stream": {stream}, "messages": [{{"role": "user", "content": "two and two"}}]}}"#
            );
            std::thread::spawn(move || ask(&door, "POST /v1/chat/completions", &headers, &body))
        })
        .into();
    while mock.requests().len() < under_way.len() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gateway.signal("-TERM");
    assert_eq!(told(), "STOPPING=1");
    let door = gateway.doors[0].clone();
    for answer in under_way {
        let answer = answer.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("[DONE]") || answer.contains("\"usage\""), "it came to its end: {answer}");
    }
    let (code, said) = gateway.ended();
    assert_eq!(code, 0, "{said}");
    assert!(std::net::TcpStream::connect(door).is_err(), "nobody listens any more");
    let shown = place.run("journal show journal").out;
    assert_eq!(shown.matches(r#""entry":"exchange""#).count(), 4, "{shown}");
    assert_eq!(place.run("journal verify journal").code, 0);
    let budget = place.run("account budget acme");
    assert_eq!(budget.code, 0);
    assert!(budget.out.contains(r#""reserved": "0.00""#), "{}", budget.out);
}

#[test]
fn the_unit_for_systemd_is_one() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contrib/anbiq.service");
    let text = std::fs::read_to_string(unit).unwrap();
    let seconds = text.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let drain = anbiq_serve::Config::default().drain_ms / 1000;
    assert!(seconds.parse::<u64>().unwrap() > drain + 10, "longer than a gateway takes to stop");
    let place = Place::empty();
    // It looks for the program, which is not installed here.
    place.write("anbiq.service", &text.replace("/usr/local/bin/anbiq", env!("CARGO_BIN_EXE_anbiq")));
    let verified =
        std::process::Command::new("systemd-analyze").arg("verify").arg(place.path("anbiq.service")).output();
    match verified {
        Err(why) => eprintln!("SKIPPED systemd-analyze verify: {why}"),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success() && !said.contains("anbiq.service:"), "{said}");
        }
    }
}
