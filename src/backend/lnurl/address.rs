//! The ways to write an LNURL-pay address, and which URLs it leads to.

use std::net::IpAddr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use http::Uri;

use crate::backend::config::names_host;
use crate::error::{Error, ErrorKind};

/// The endpoint that an address names: a Lightning address (LUD-16), `lnurl1…`
/// (LUD-01), `lnurlp://…` (LUD-17) or the URL itself.
pub(super) fn endpoint(text: &str) -> Result<Uri, Error> {
    let text = text.trim();
    let text = after_prefix(text, "lightning:").unwrap_or(text);
    if after_prefix(text, "lnurl1").is_some() {
        return url(&decoded(text)?);
    }
    if let Some(rest) = after_prefix(text, "lnurlp://") {
        return url(&format!("{}://{rest}", scheme_of(rest)));
    }
    match text.split_once('@') {
        Some((user, domain)) if !user.contains("://") => well_known(user, domain),
        _ => url(text),
    }
}

/// Whether two URLs have scheme, host and port in common.
pub(super) fn is_same_origin(a: &Uri, b: &Uri) -> bool {
    a.scheme() == b.scheme() && port(a) == port(b) && is_same_host(a, b)
}

/// Whether two URLs have the host in common.
pub(super) fn is_same_host(a: &Uri, b: &Uri) -> bool {
    matches!((a.host(), b.host()), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
}

/// Reads an absolute URL without a password.
pub(super) fn absolute(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_password = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    (is_web && names_host(&uri) && !has_password).then_some(uri)
}

fn error(what: &str) -> Error {
    Error::new(ErrorKind::Backend, format!("LNURL address {what}"))
}

fn after_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn decoded(text: &str) -> Result<String, Error> {
    let broken = || error("begins with `lnurl1` and is not whole: copy it again");
    let read = CheckedHrpstring::new::<Bech32>(text).map_err(|_| broken())?;
    if read.hrp() != Hrp::parse_unchecked("lnurl") {
        return Err(broken());
    }
    String::from_utf8(read.byte_iter().collect()).map_err(|_| broken())
}

fn well_known(user: &str, domain: &str) -> Result<Uri, Error> {
    let (user, domain) = (user.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if user.is_empty() || !user.bytes().all(is_allowed) {
        return Err(error("has a name before the `@` of other characters than a-z, 0-9, `-`, `_`, `.`, `+`"));
    }
    if domain.contains(['/', '?', '#', '@']) {
        return Err(error("has more than a domain behind the `@`"));
    }
    url(&format!("{}://{domain}/.well-known/lnurlp/{user}", scheme_of(&domain)))
}

/// What the LUDs put before a host that is written without a scheme.
fn scheme_of(rest: &str) -> &'static str {
    let is_own = format!("http://{rest}").parse().is_ok_and(|uri| is_own(&uri));
    if is_own { "http" } else { "https" }
}

fn url(text: &str) -> Result<Uri, Error> {
    let uri = absolute(text).ok_or_else(|| {
        error("is no Lightning address, `lnurl1…`, `lnurlp://…` or `https://…` without a password")
    })?;
    if uri.scheme_str() == Some("http") && !is_own(&uri) {
        return Err(error("is `http://`, which is for loopback and .onion: use `https://`"));
    }
    Ok(uri)
}

/// Whether nobody on the way can read or change what is sent there: this
/// machine, or an onion service.
fn is_own(uri: &Uri) -> bool {
    let Some(host) = uri.host() else { return false };
    let host = host.to_ascii_lowercase();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost"
        || host.rsplit_once('.').is_some_and(|(_, last)| last == "onion")
        || literal.is_ok_and(|address| address.is_loopback())
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_each_of_its_forms() {
        for (text, url) in [
            ("bob@pay.example", "https://pay.example/.well-known/lnurlp/bob"),
            (" Bob_1+tag@Pay.Example ", "https://pay.example/.well-known/lnurlp/bob_1+tag"),
            ("bob@pay.example:8443", "https://pay.example:8443/.well-known/lnurlp/bob"),
            ("bob@127.0.0.1:5000", "http://127.0.0.1:5000/.well-known/lnurlp/bob"),
            ("bob@[::1]:5000", "http://[::1]:5000/.well-known/lnurlp/bob"),
            ("bob@localhost", "http://localhost/.well-known/lnurlp/bob"),
            ("bob@hidden.onion", "http://hidden.onion/.well-known/lnurlp/bob"),
            ("bob@notonion", "https://notonion/.well-known/lnurlp/bob"),
            ("https://pay.example/p?id=1", "https://pay.example/p?id=1"),
            ("https://pay.example/p?to=a@b", "https://pay.example/p?to=a@b"),
            ("http://hidden.onion/p", "http://hidden.onion/p"),
            ("lnurlp://pay.example/p?id=1", "https://pay.example/p?id=1"),
            ("LNURLP://hidden.onion/p", "http://hidden.onion/p"),
            ("lightning:bob@pay.example", "https://pay.example/.well-known/lnurlp/bob"),
            // The example of LUD-01, in both cases.
            (
                "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEXEJXXEPNXSCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS",
                "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df",
            ),
            (
                "lightning:lnurl1dp68gurn8ghj7um9wfmxjcm99e3k7mf0v9cxj0m385ekvcenxc6r2c35xvukxefcv5mkvv34x5ekzd3ev56nyd3hxqurzepexejxxepnxscrvwfnv9nxzcn9xq6xyefhvgcxxcmyxymnserxfq5fns",
                "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df",
            ),
        ] {
            assert_eq!(endpoint(text).unwrap(), url, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let plain = bech32::encode::<Bech32>(Hrp::parse_unchecked("lnurl"), b"http://pay.example/p").unwrap();
        let other =
            bech32::encode::<Bech32>(Hrp::parse_unchecked("lnurl1x"), b"https://pay.example/p").unwrap();
        let bech32m =
            bech32::encode::<bech32::Bech32m>(Hrp::parse_unchecked("lnurl"), b"https://pay.example/p")
                .unwrap();
        for text in [
            "",
            "bob",
            "@pay.example",
            "bob@",
            "bo b@pay.example",
            "böb@pay.example",
            "bob/../x@pay.example",
            "bob@pay.example/path",
            "bob@pay.example?x",
            "bob@evil@pay.example",
            "http://pay.example/p",
            "http://127.0.0.1.pay.example/p",
            "ftp://pay.example/p",
            "https://bob:secret@pay.example/p",
            "https:///p",
            "https://pay.example:/p",
            "https://pay.example:99999/p",
            "bob@pay.example:x",
            "bob@pay.example:99999",
            "bob@:8443",
            "lnurlp://",
            "lnurlw://pay.example/p",
            "lnurl1dp68gurn8ghj7um9wfmxjcm99e3k7mf0v9cxj0m385ekvcenxc6r2c35",
            &plain,
            &other,
            &bech32m,
        ] {
            assert_eq!(endpoint(text).unwrap_err().kind(), ErrorKind::Backend, "{text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let is_same = |a: &str, b: &str| is_same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(is_same("https://pay.example/a", "https://PAY.example:443/b?c"));
        for other in ["http://pay.example/", "https://pay.example:8443/", "https://pay.example.org/"] {
            assert!(!is_same("https://pay.example/", other), "{other}");
        }
    }
}
