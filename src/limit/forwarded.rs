//! The client behind proxies, as their headers tell.
//!
//! Each proxy appends whom it talks to, on the right. What stands on the left
//! the client may have written itself, so the header is read from the right,
//! as far as the addresses are those of trusted proxies; the first that is not
//! is the client. An entry that is no address ends the reading too: then the
//! proxy that wrote it stands for its clients.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, ErrorKind};

/// Most entries that are read: more proxies than stand in any row.
const MAX_HOPS: usize = 16;

/// The header in which proxies say whom they forward. It has to be one that
/// every trusted proxy writes: another one comes from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: 203.0.113.7, 10.0.0.1`, as most proxies write it.
    XForwardedFor,
    /// `Forwarded: for=203.0.113.7;proto=https, for="[2001:db8::1]:4711"`
    /// ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)).
    Forwarded,
}

/// Proxies whose header is believed.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    header: ForwardedHeader,
    trusted: Vec<Range>,
}

impl Proxies {
    pub(crate) fn new(header: ForwardedHeader, ranges: &[&str]) -> Result<Self, Error> {
        let trusted = ranges.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
        Ok(Self { header, trusted })
    }

    /// The client of a request that came from this peer.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let mut entries = self.entries(headers).take(MAX_HOPS);
        while self.trusts(client) {
            match entries.next() {
                Some(Some(ip)) => client = ip,
                Some(None) | None => break,
            }
        }
        client
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|range| range.contains(ip))
    }

    /// What the proxies wrote, the last one first; `None` for what is no address.
    fn entries<'h>(&self, headers: &'h HeaderMap) -> Box<dyn Iterator<Item = Option<IpAddr>> + 'h> {
        let lines = |name: &'static str| {
            let lines = headers.get_all(HeaderName::from_static(name)).iter().rev();
            lines.map(HeaderValue::as_bytes).map(|line| std::str::from_utf8(line).unwrap_or_default())
        };
        match self.header {
            ForwardedHeader::XForwardedFor => Box::new(
                lines("x-forwarded-for").flat_map(|line| line.rsplit(',')).map(|entry| node(entry.trim())),
            ),
            ForwardedHeader::Forwarded => {
                Box::new(lines("forwarded").flat_map(|line| unquoted_rsplit(line, ',')).map(forwarded_for))
            }
        }
    }
}

/// The members of a list, the last one first. A separator within quotes
/// separates nothing.
fn unquoted_rsplit(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.rsplit(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

/// The address in `for=` of one element of a `Forwarded` header.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    // An address has nothing to escape. What has may be split in the wrong place.
    if element.contains('\\') {
        return None;
    }
    let pairs = unquoted_rsplit(element, ';').filter_map(|pair| pair.trim().split_once('='));
    let mut named = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, value)| value);
    let (value, None) = (named.next()?, named.next()) else { return None };
    node(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// An address, with or without a port.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

/// Addresses that begin with the same bits: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    base: IpAddr,
    bits: u8,
}

impl Range {
    fn contains(self, ip: IpAddr) -> bool {
        match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                (base.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits.into()
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                (base.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits.into()
            }
            _ => false,
        }
    }
}

impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |what: &str| {
            let message = format!("trusted proxies `{}` {what}", text.escape_debug());
            Err(Error::new(ErrorKind::Proxies, message))
        };
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let Ok(base) = base.parse::<IpAddr>() else {
            return error("are not of the form `10.0.0.0/8`, `fd00::/8` or `192.0.2.1`");
        };
        let most = if base.is_ipv4() { 32 } else { 128 };
        let Some(bits) = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))
        else {
            return error(&format!("have a prefix that is not 1 to {most} bits long"));
        };
        if bits == 0 {
            return error("are all addresses: then whoever likes writes any client into the header");
        }
        if base.to_canonical() != base {
            return error("are IPv4 addresses: write them as `10.0.0.0/8`");
        }
        let last = match base {
            IpAddr::V4(base) => base.to_bits().trailing_zeros(),
            IpAddr::V6(base) => base.to_bits().trailing_zeros(),
        };
        if last < u32::from(most - bits) {
            return error("name an address beyond their prefix: write its first address");
        }
        Ok(Self { base, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ForwardedHeader::{Forwarded, XForwardedFor};

    fn client(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let proxies = Proxies::new(header, &["10.0.0.0/8", "192.0.2.1", "fd00::/8"]).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            for name in ["x-forwarded-for", "forwarded"] {
                headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_first_address_from_the_right_that_is_no_trusted_proxy_is_the_client() {
        for (peer, lines, expected) in [
            // Nobody trusted sent it: the header is the client's own.
            ("203.0.113.7", &["198.51.100.1"][..], "203.0.113.7"),
            ("192.0.2.2", &["198.51.100.1"], "192.0.2.2"),
            ("192.0.2.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            // What the client wrote stands on the left.
            ("10.0.0.1", &["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6,10.6.6.6 , 198.51.100.1,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            // Ports, brackets, addresses of IPv4 in IPv6.
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711, fd00::2"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            // All trusted, none at all, or none that is an address.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.1.5"], "10.0.0.1"),
            ("10.0.0.1", &["6.6.6.6,"], "10.0.0.1"),
            ("10.0.0.1", &["6.6.6.6", "\u{e9}"], "10.0.0.1"),
        ] {
            assert_eq!(client(XForwardedFor, peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_header_of_rfc_7239_is_read_in_the_same_way() {
        for (lines, expected) in [
            (&["for=198.51.100.1"][..], "198.51.100.1"),
            (&["For=\"198.51.100.1:80\";proto=https;by=10.0.0.1"], "198.51.100.1"),
            (&["proto=http ; FOR=198.51.100.1"], "198.51.100.1"),
            (&["for=\"[2001:db8::1]:4711\", for=10.0.0.2"], "2001:db8::1"),
            (&["for=6.6.6.6, for=198.51.100.1"], "198.51.100.1"),
            (&["for=6.6.6.6", "for=198.51.100.1, for=\"[fd00::9]\""], "198.51.100.1"),
            // A quote that the client leaves open does not swallow what follows.
            (&["for=\"6.6.6.6, for=198.51.100.1"], "198.51.100.1"),
            (&["host=\", for=198.51.100.1;host=\"a,b\""], "198.51.100.1"),
            // Nor does what a proxy repeats of the client's, escaped.
            (&[r#"for=198.51.100.1;host="a\",for=6.6.6.6,x=\"""#], "10.0.0.1"),
            (&[r#"for=198.51.100.1;host="a\",for=6.6.6.6;x=\"""#], "10.0.0.1"),
            (&["for=198.51.100.1;host=\"a,for=6.6.6.6\""], "198.51.100.1"),
            (&["for=unknown"], "10.0.0.1"),
            (&["for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=6.6.6.6;for=198.51.100.1"], "10.0.0.1"),
            (&["proto=https"], "10.0.0.1"),
            (&["198.51.100.1"], "10.0.0.1"),
        ] {
            assert_eq!(client(Forwarded, "10.0.0.1", lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_long_row_of_trusted_addresses_is_read_in_part() {
        let row = vec!["10.0.0.2"; 5000].join(",");
        assert_eq!(client(XForwardedFor, "10.0.0.1", &[&format!("6.6.6.6,{row}")]), "10.0.0.2");
    }

    #[test]
    fn ranges_that_say_something_else_than_was_meant_do_not_build() {
        for bad in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "example.com",
            "10.0.0.1/8",
            "fd00::1/64",
            "0.0.0.0/0",
            "::/0",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/-1",
            "10.0.0.0 /8",
        ] {
            let error = Proxies::new(XForwardedFor, &["10.0.0.0/8", bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Proxies, "{bad}");
        }
        for good in ["10.0.0.0/8", "10.0.0.1/32", "128.0.0.0/1", "::1", "fd00::/8", "2001:db8::1/128"] {
            assert!(good.parse::<Range>().is_ok(), "{good}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_header_says_only_a_trusted_peers_is_believed(line in "[ -~]{0,200}", last in 0_u8..) {
            let trusted = |ip: &str| client(XForwardedFor, ip, &[&line]);
            proptest::prop_assert_eq!(trusted("203.0.113.7"), "203.0.113.7");
            for (header, name) in [(XForwardedFor, ""), (Forwarded, "for=")] {
                let line = format!("{line}, {name}203.0.113.{last}");
                proptest::prop_assert_eq!(client(header, "10.0.0.1", &[&line]), format!("203.0.113.{}", last));
            }
        }
    }
}
