//! Who a client is, as far as its challenges are counted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use sha2::{Digest, Sha256};

use super::forwarded::Proxies;
use crate::panics::unless_panics;
use crate::warn::warn;

/// The first this many requests in a row from one address make one warning.
const SUSPICIOUS: u64 = 1000;

/// One client, of whom no more is kept than 16 bytes of a hash.
///
/// ```
/// use std::net::IpAddr;
/// use l402::ClientId;
///
/// let ip = |text: &str| ClientId::from(text.parse::<IpAddr>().unwrap());
/// assert_eq!(ip("192.0.2.1"), ip("192.0.2.200"));
/// assert_eq!(ip("192.0.2.1"), ip("::ffff:192.0.2.1"));
/// assert_eq!(ip("2001:db8:7::1"), ip("2001:db8:7:ffff::1"));
/// assert_ne!(ip("192.0.2.1"), ClientId::new("192.0.2.1"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId([u8; 16]);

impl ClientId {
    /// The client of this name: an account, an API key, a certificate. Take one
    /// that the client cannot choose: whoever can, is never limited.
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        Self::hash(*b"name", name.as_ref())
    }

    fn hash(kind: [u8; 4], name: &[u8]) -> Self {
        let hash = Sha256::new().chain_update(kind).chain_update(name).finalize();
        Self(hash[..16].try_into().expect("16 of 32 bytes"))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The network of an address: its /24, or of an IPv6 address its /48, since
/// that is what one customer has. An IPv4 address mapped into IPv6 is an IPv4
/// address.
impl From<IpAddr> for ClientId {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::hash(*b"ipv4", &ip.octets()[..3]),
            IpAddr::V6(ip) => Self::hash(*b"ipv6", &ip.octets()[..6]),
        }
    }
}

/// Says nothing of the client: a name may be a secret.
impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientId(..)")
    }
}

/// Whom the server talks to: an extension that it puts into every request, so
/// that challenges are counted for each client. With feature `axum` the gate
/// also reads axum's `ConnectInfo<SocketAddr>`, which a server has that is made
/// with `into_make_service_with_connect_info::<SocketAddr>()`.
///
/// ```
/// use l402::PeerAddr;
/// # let (mut request, peer) = (http::Request::new(()), ([192, 0, 2, 1], 4711).into());
/// // `peer` is from `listener.accept()`
/// request.extensions_mut().insert(PeerAddr(peer));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// The address of whoever opened the connection, where the server tells.
fn peer(head: &Parts) -> Option<IpAddr> {
    let peer = head.extensions.get::<PeerAddr>().map(|peer| peer.0);
    #[cfg(feature = "axum")]
    let peer = peer.or_else(|| {
        use axum::extract::ConnectInfo;
        head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
    });
    Some(peer?.ip().to_canonical())
}

pub(crate) type ClientFn = Arc<dyn Fn(&Parts) -> Option<ClientId> + Send + Sync>;

/// How a client is known.
pub(crate) enum Clients {
    /// By the address of the connection.
    Peer(Watch),
    /// By what these proxies say.
    Proxies(Proxies),
    /// By what the closure says.
    Closure(ClientFn),
}

impl Clients {
    /// The client that sent this request; `None` where nobody can tell.
    pub(crate) fn of(&self, head: &Parts) -> Option<ClientId> {
        match self {
            Self::Peer(_) => peer(head).map(ClientId::from),
            Self::Proxies(proxies) => Some(proxies.client(peer(head)?, &head.headers).into()),
            Self::Closure(client) => unless_panics(|| client(head)).flatten(),
        }
    }

    /// Notes a request for a challenge: where all come from one address, the
    /// operator is told once.
    pub(crate) fn watch(&self, head: &Parts) {
        let (Self::Peer(watch), Some(ip)) = (self, peer(head)) else { return };
        if watch.is_suspicious(ip) {
            warn(format_args!(
                "the last {SUSPICIOUS} requests without a token came from one address, {ip}: if that is a proxy, \
                 name it with `IssuerBuilder::with_trusted_proxies`, for until then all clients behind it share \
                 one limit"
            ));
        }
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self::Peer(Watch::default())
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(_) => f.write_str("by the address of the connection"),
            Self::Proxies(proxies) => proxies.fmt(f),
            Self::Closure(_) => f.write_str("by a closure"),
        }
    }
}

/// How many requests in a row came from one address.
pub(crate) struct Watch {
    last: Mutex<IpAddr>,
    run: AtomicU64,
}

impl Watch {
    /// Whether this is the one request that makes a warning.
    fn is_suspicious(&self, ip: IpAddr) -> bool {
        if self.run.load(Ordering::Relaxed) >= SUSPICIOUS {
            return false; // said already
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let run = if *last == ip { self.run.load(Ordering::Relaxed) + 1 } else { 1 };
        *last = ip;
        self.run.store(run, Ordering::Relaxed);
        run == SUSPICIOUS
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self { last: Mutex::new(Ipv6Addr::UNSPECIFIED.into()), run: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_a_network_of_256_addresses_or_a_48() {
        for (a, b, same) in [
            ("192.0.2.0", "192.0.2.255", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("192.0.2.1", "::ffff:192.0.2.9", true),
            ("192.0.2.1", "::ffff:192.0.3.1", false),
            ("192.0.2.1", "::192.0.2.1", false),
            ("2001:db8:1::", "2001:db8:1:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1::", "2001:db8:2::", false),
        ] {
            assert_eq!(ClientId::from(ip(a)) == ClientId::from(ip(b)), same, "{a} {b}");
        }
    }

    #[test]
    fn a_name_is_no_address_and_is_not_shown() {
        assert_ne!(ClientId::new([192, 0, 2]), ClientId::from(ip("192.0.2.1")));
        assert_eq!(format!("{:?}", ClientId::new("secret")), "ClientId(..)");
    }

    #[test]
    fn one_address_alone_makes_one_warning() {
        let watch = Watch::default();
        let warnings = |watch: &Watch, ip, n| (0..n).filter(|_| watch.is_suspicious(ip)).count();
        assert_eq!(warnings(&watch, ip("10.0.0.1"), SUSPICIOUS - 1), 0);
        assert_eq!(warnings(&watch, ip("10.0.0.2"), 1), 0, "there is another");
        assert_eq!(warnings(&watch, ip("10.0.0.1"), SUSPICIOUS - 1), 0);
        assert_eq!(warnings(&watch, ip("10.0.0.1"), 1), 1);
        assert_eq!(warnings(&watch, ip("10.0.0.1"), 5 * SUSPICIOUS), 0, "once");
    }
}
