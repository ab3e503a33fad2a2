//! Which addresses may be reached: the allow-list against requests that a server would forge for somebody else.
//!
//! Addresses of upstreams stand in the operator's configuration, but what a *name* means is said by whoever answers for
//! it, and may change between two requests. So there are two gates. An address as written is checked once, by rules
//! stricter than those of URLs: a spelling that two programs could read differently is refused. What a name resolves to
//! is checked at every connection, on the very addresses that are then connected to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use anbiq_secret::redact_url;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// Longest name of a host (RFC 1035).
const NAME_BYTES: usize = 253;

/// The word that stands for every address of the public internet.
const PUBLIC: &str = "public";

/// What may be reached.
///
/// By default that is the public internet. An address of a private network or of this machine may be reached where it
/// stands in the configuration as a number or as `localhost`; a *name* may lead there only where the list names the
/// name or the network. Addresses that are special to a machine or a cloud (link-local ones, those of metadata services)
/// need a network of the list, and groups, broadcasts and the unspecified address are never reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    public: bool,
    hosts: BTreeSet<String>,
    networks: Vec<Network>,
    names: Option<BTreeMap<String, Vec<IpAddr>>>,
}

/// Why an address is not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It is not an address, or one that programs read differently.
    #[error(
        "`{address}` is not an address: {why}\nhint: write `http://HOST:PORT/v1`, with a name or a usual number for HOST"
    )]
    Spelling {
        /// The address, without what may be secret.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operator did not allow it.
    #[error(
        "`{host}` is {what}, which is not allowed\nhint: where it is meant, name it or its network in `[serve] upstream_allow`"
    )]
    Forbidden {
        /// The host.
        host: String,
        /// What kind of address it is, or leads to.
        what: String,
    },
    /// An entry of the list is neither a host nor a network.
    #[error("`{0}` is neither a host, nor a network such as `10.0.0.0/8`, nor `public`")]
    Entry(String),
}

impl Unreachable {
    /// A stable name of what is wrong.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Spelling { .. } => "address_invalid",
            Self::Forbidden { .. } => "address_refused",
            Self::Entry(_) => "allow_list_invalid",
        }
    }
}

impl Default for Reach {
    fn default() -> Self {
        Self { public: true, hosts: BTreeSet::new(), networks: Vec::new(), names: None }
    }
}

impl Reach {
    /// A list of hosts, of networks such as `10.0.0.0/8` or `fd00::/8`, and of the word `public` for the public internet,
    /// which may be reached only where it is listed.
    ///
    /// # Errors
    /// [`Unreachable::Entry`] names the first entry that is none of these.
    pub fn only<S: AsRef<str>>(entries: &[S]) -> Result<Self, Unreachable> {
        let mut reach = Self { public: false, ..Self::default() };
        for entry in entries.iter().map(AsRef::as_ref) {
            if entry == PUBLIC {
                reach.public = true;
            } else if let Ok(network) = entry.parse() {
                reach.networks.push(network);
            } else if check_name(entry).is_ok() {
                reach.hosts.insert(entry.to_ascii_lowercase());
            } else {
                return Err(Unreachable::Entry(entry.to_owned()));
            }
        }
        Ok(reach)
    }

    /// The same, with a fixed table in place of the system's resolver: for machines without one, and for tests.
    #[must_use]
    pub fn with_names(self, names: BTreeMap<String, Vec<IpAddr>>) -> Self {
        Self { names: Some(names), ..self }
    }

    /// May a client be made for `base_url`? Nothing is connected or resolved.
    ///
    /// # Errors
    /// The address is not spelled as it must be, or is a number that may not be reached.
    pub fn check(&self, base_url: &str) -> Result<(), Unreachable> {
        let host = match split(base_url) {
            Ok(host) => host,
            Err(why) => return Err(Unreachable::Spelling { address: redact_url(base_url), why }),
        };
        let forbidden = |what: &str| Err(Unreachable::Forbidden { host: host.to_string(), what: what.to_owned() });
        match &host {
            // As written by the operator, a number names itself.
            Host::Number(address) => match Kind::of(*address) {
                Kind::Public if self.public || self.listed(*address) => Ok(()),
                Kind::Public => forbidden("an address that is not in the list"),
                Kind::Private => Ok(()),
                Kind::Special if self.listed(*address) => Ok(()),
                kind @ (Kind::Special | Kind::Never) => forbidden(kind.name()),
            },
            // What a name means is looked at when it is connected to.
            Host::Name(_) => Ok(()),
        }
    }

    /// Of the addresses that `name` has, those that may be connected to.
    fn filter(&self, name: &str, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Unreachable> {
        let named = self.hosts.contains(name);
        let mut first_refused = None;
        let allowed: Vec<IpAddr> = addresses
            .into_iter()
            .map(|address| address.to_canonical())
            .filter(|&address| {
                let kind = Kind::of(address);
                let allowed = match kind {
                    Kind::Public => self.public || named || self.listed(address),
                    Kind::Private if name == "localhost" => address.is_loopback(),
                    Kind::Private => named || self.listed(address),
                    Kind::Special => self.listed(address),
                    Kind::Never => false,
                };
                if !allowed {
                    first_refused.get_or_insert((address, kind));
                }
                allowed
            })
            .collect();
        match (allowed.is_empty(), first_refused) {
            (true, Some((address, kind))) => {
                let what = format!("at `{address}`, {}", kind.name());
                Err(Unreachable::Forbidden { host: name.to_owned(), what })
            }
            _ => Ok(allowed),
        }
    }

    fn listed(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.holds(address))
    }
}

/// A network of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| ())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most { Err(()) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u32| {
            // A shift by the whole width is no shift at all for the processor.
            let dropped = width - u32::from(self.bits);
            dropped >= 128 || one >> dropped == other >> dropped
        };
        match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    /// Means something to a machine or a cloud, such as its metadata service.
    Special,
    Never,
}

/// Networks of version 4 that are not public, from the register of special addresses (RFC 6890) and from what the
/// documentation of clouds says of their metadata services; the first that fits decides.
const V4: &[([u8; 4], u8, Kind)] = &[
    ([0, 0, 0, 0], 8, Kind::Never),
    ([224, 0, 0, 0], 4, Kind::Never),
    ([255, 255, 255, 255], 32, Kind::Never),
    ([240, 0, 0, 0], 4, Kind::Special),
    ([169, 254, 0, 0], 16, Kind::Special),
    ([168, 63, 129, 16], 32, Kind::Special),
    ([100, 100, 100, 200], 32, Kind::Special),
    ([192, 0, 0, 0], 24, Kind::Special),
    ([192, 0, 2, 0], 24, Kind::Special),
    ([192, 88, 99, 0], 24, Kind::Special),
    ([198, 18, 0, 0], 15, Kind::Special),
    ([198, 51, 100, 0], 24, Kind::Special),
    ([203, 0, 113, 0], 24, Kind::Special),
    ([127, 0, 0, 0], 8, Kind::Private),
    ([10, 0, 0, 0], 8, Kind::Private),
    ([172, 16, 0, 0], 12, Kind::Private),
    ([192, 168, 0, 0], 16, Kind::Private),
    ([100, 64, 0, 0], 10, Kind::Private),
];

impl Kind {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let found = V4.iter().find(|(network, bits, _)| {
            Network { address: Ipv4Addr::from(*network).into(), bits: *bits }.holds(address.into())
        });
        found.map_or(Self::Public, |(_, _, kind)| *kind)
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let words = address.segments();
        if address.is_unspecified() || address.is_multicast() {
            return Self::Never;
        }
        if address.is_loopback() {
            return Self::Private;
        }
        match words {
            // Behind a translator for version 4 stands an address of version 4.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0xffff, high, low] => {
                Self::of_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            // The metadata service of AWS, within what is otherwise private.
            [0xfd00, 0x0ec2, ..] => Self::Special,
            [first, ..] if first & 0xfe00 == 0xfc00 => Self::Private,
            // Of the rest only 2000::/3 is given to the public, and of that the tunnels and examples are not.
            [0x2001, second, ..] if second < 0x0200 || second == 0x0db8 => Self::Special,
            [0x2002 | 0x3fff, ..] => Self::Special,
            [first, ..] if first & 0xe000 == 0x2000 => Self::Public,
            _ => Self::Special,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Public => "an address of the public internet",
            Self::Private => "an address of a private network or of this machine",
            Self::Special => "a link-local, metadata or otherwise special address",
            Self::Never => "no address of one machine",
        }
    }
}

/// The host of an address, as its connector will read it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Number(IpAddr),
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The host of `url`, where there is one way to read it.
fn split(url: &str) -> Result<Host, &'static str> {
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it holds a space, a control character or a letter outside ASCII");
    }
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or("it begins neither with `http://` nor with `https://`")?;
    if rest.contains(['\\', '?', '#']) {
        return Err("it holds a backslash, a query or a fragment");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err("it holds a user name");
    }
    if path.split('/').any(|part| part == "." || part == ".." || part.contains('%')) {
        return Err("its path has `.`, `..` or an escape");
    }
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or("it holds an unclosed bracket")?;
        authority.split_at(end + 1)
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    check_port(port)?;
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| "between brackets stands no address of version 6")?;
        // Written so it is a disguise: version 4 has a form of its own.
        let embeds_v4 = address.segments()[..5] == [0; 5] && !address.is_loopback() && !address.is_unspecified();
        return if embeds_v4 {
            Err("it writes an address of version 4 as one of version 6")
        } else {
            Ok(Host::Number(address.into()))
        };
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Number(address.into()));
    }
    check_name(host)?;
    Ok(Host::Name(host.to_ascii_lowercase()))
}

/// `text` is empty or a colon and a port in its usual form.
fn check_port(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Ok(());
    }
    let digits = text.strip_prefix(':').unwrap_or_default();
    let usual = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let port = digits.parse::<u16>().ok().filter(|_| usual);
    port.map(|_| ()).ok_or("its port is not a number from 1 to 65535 in its usual form")
}

/// Is `name` a name, and not a number in disguise?
fn check_name(name: &str) -> Result<(), &'static str> {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(usual);
    if name.is_empty() || name.len() > NAME_BYTES || !name.split('.').all(label) {
        return Err("its host is not a name of letters, digits and hyphens between single dots");
    }
    // Browsers and C libraries read such a name as a number: decimal, octal, hexadecimal or with parts left out.
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err("its host is a number in an unusual form");
    }
    Ok(())
}

/// Resolves names to those of their addresses that may be reached.
#[derive(Debug, Clone)]
pub(crate) struct Resolver(pub(crate) Arc<Reach>);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = Arc::clone(&self.0);
        Box::pin(async move {
            let name = name.as_str().to_ascii_lowercase();
            let addresses = match &reach.names {
                Some(table) => table.get(&name).cloned().unwrap_or_default(),
                None => tokio::net::lookup_host((name.as_str(), 0)).await?.map(|address| address.ip()).collect(),
            };
            let refused = |why: Unreachable| std::io::Error::new(std::io::ErrorKind::PermissionDenied, why);
            let allowed = reach.filter(&name, addresses).map_err(refused)?;
            // The connector puts the port in.
            Ok(allowed.into_iter().map(|address| SocketAddr::new(address, 0)).collect::<Vec<_>>().into_iter())
        })
    }
}
