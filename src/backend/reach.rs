//! To which addresses a client may be sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiFuture, GaiResolver, Name};
use tower_service::Service;

/// Whom the client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Any address: the operator chose it.
    Any,
    /// Public addresses alone: somebody else chose it.
    Public,
}

impl Reach {
    pub(super) fn resolver(self) -> Resolver {
        Resolver { dns: GaiResolver::new(), reach: self }
    }

    /// Whether the address may be connected to that stands in place of a name:
    /// nothing is resolved then.
    pub(super) fn check(self, uri: &Uri) -> Result<(), NotPublic> {
        let is_refused = |address: IpAddr| self == Self::Public && !is_public(address);
        if literal_address(uri).is_some_and(is_refused) { Err(NotPublic) } else { Ok(()) }
    }
}

/// Resolves names, to public addresses alone where the reach is that.
#[derive(Clone)]
pub(crate) struct Resolver {
    dns: GaiResolver,
    reach: Reach,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.dns.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (lookup, reach): (GaiFuture, _) = (self.dns.call(name), self.reach);
        Box::pin(async move {
            let found: GaiAddrs = lookup.await?;
            let addresses: Vec<_> =
                found.filter(|address| reach == Reach::Any || is_public(address.ip())).collect();
            if addresses.is_empty() && reach == Reach::Public {
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, NotPublic));
            }
            Ok(addresses.into_iter())
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("host has no public address")]
pub(super) struct NotPublic;

/// The address that stands in place of a name.
fn literal_address(uri: &Uri) -> Option<IpAddr> {
    uri.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether an address is one that anybody may be sent to: not of this machine,
/// a private network, a link, a carrier's network, a test or a multicast group
/// (the IANA special-purpose registries; RFC 6890).
fn is_public(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V6(v6) => v6.to_canonical(),
        v4 @ IpAddr::V4(_) => v4,
    };
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || (a == 192 && b == 0 && c == 0))
        }
        // Global unicast is 2000::/3. Of it: tunnels that end in an IPv4
        // address of anybody's choice (6to4, Teredo), and documentation.
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            segments[0] & 0xe000 == 0x2000
                && segments[0] != 0x2002
                && !(segments[0] == 0x2001 && segments[1] < 0x0200)
                && !(segments[0] == 0x2001 && segments[1] == 0x0db8)
                && segments[0] != 0x3fff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_machines_and_networks_of_ones_own_are_not_public() {
        for address in [
            "127.0.0.1",
            "127.8.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "64:ff9b::7f00:1",
            "3fff::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
