//! Who asks, as the network sees it.

use std::net::IpAddr;

use anbiq_domain::{Client, KeyedHasher};
use http::HeaderMap;
use http::header::USER_AGENT;

/// The keyed hashes of a client's address, network and software.
pub(crate) fn describe(hasher: &KeyedHasher, address: IpAddr, headers: &HeaderMap) -> Client {
    let agent = headers.get(USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    Client::describe(hasher, address, agent)
}

/// The client's address: the peer's, or where the peer is a trusted proxy the last one in `x-forwarded-for` that is not.
///
/// Whatever stands to the left of that was written by the client itself and means nothing.
pub(crate) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let mut address = peer.to_canonical();
    let hops: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .collect();
    for hop in hops.iter().rev() {
        if !trusted.contains(&address) {
            break;
        }
        // A hop that is no address ends the chain: nothing before it can be relied on.
        let Ok(next) = hop.parse::<IpAddr>() else { break };
        address = next.to_canonical();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = [ip("127.0.0.1"), ip("10.0.0.1")];
        for (peer, forwarded, expected) in [
            ("9.9.9.9", "1.2.3.4", "9.9.9.9"),
            ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("127.0.0.1", "1.2.3.4, 10.0.0.1", "1.2.3.4"),
            ("127.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
            ("127.0.0.1", "junk", "127.0.0.1"),
            ("127.0.0.1", "", "127.0.0.1"),
            ("::ffff:127.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            assert_eq!(address(ip(peer), &headers, &trusted), ip(expected), "{peer} {forwarded}");
        }
    }
}
