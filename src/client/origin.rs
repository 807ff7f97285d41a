//! Whom a request is for, and whose a token is: scheme, host and port.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;

use super::error::{Error, ErrorKind};

/// An origin (RFC 6454), as in `https://api.example` or `http://127.0.0.1:8080`:
/// in lower case, without a port that is the scheme's own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin(Arc<str>);

impl Origin {
    /// The origin of a URL; `None` where it names no host, or a port that is none.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let mut text = String::new();
        write(uri, &mut text)?;
        Some(Self(text.into()))
    }

    /// Reads an origin that is configured.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let uri = text.trim().parse::<Uri>().ok();
        let uri = uri.filter(|uri| uri.path() == "/" && uri.query().is_none() && !text.contains('#'));
        uri.as_ref().and_then(Self::of).ok_or_else(|| {
            Error::new(
                ErrorKind::Origin,
                "not an origin: write it as in `https://api.example`, without a path",
            )
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a credential may be sent there: nobody between can read it.
    pub(crate) fn is_private(&self) -> bool {
        let Some(rest) = self.0.strip_prefix("http://") else { return true };
        let host = match rest.strip_prefix('[') {
            Some(v6) => v6.split(']').next(),
            None => rest.split(':').next(),
        };
        let host = host.unwrap_or_default();
        host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

/// Writes the origin of a URL behind what is there; `None` where it has none.
pub(crate) fn write(uri: &Uri, to: &mut String) -> Option<()> {
    let scheme = uri.scheme_str()?;
    let authority = uri.authority()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    let (scheme, own) = match scheme {
        _ if scheme.eq_ignore_ascii_case("https") => ("https", 443),
        _ if scheme.eq_ignore_ascii_case("http") => ("http", 80),
        _ => return None,
    };
    // `Uri` reads a port that is no number as if there were none; and whoever
    // writes a name before the host means to mislead, or has a password there.
    let port = authority.port_u16();
    if authority.as_str() != host && (port.is_none() || authority.as_str().contains('@')) {
        return None;
    }
    to.reserve(scheme.len() + 3 + authority.as_str().len());
    to.push_str(scheme);
    to.push_str("://");
    to.extend(host.chars().map(|c| c.to_ascii_lowercase()));
    if let Some(port) = port.filter(|port| *port != own) {
        to.push(':');
        to.push_str(&port.to_string());
    }
    Some(())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Option<String> {
        Some(Origin::of(&url.parse().ok()?)?.to_string())
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_in_one_form() {
        for (url, expected) in [
            ("https://API.Example/a?b", "https://api.example"),
            ("https://api.example:443/", "https://api.example"),
            ("HTTPS://api.example", "https://api.example"),
            ("https://api.example:8443", "https://api.example:8443"),
            ("http://api.example:80", "http://api.example"),
            ("http://api.example:443", "http://api.example:443"),
            ("http://[::1]:8080/x", "http://[::1]:8080"),
            ("https://api.example./", "https://api.example."),
        ] {
            assert_eq!(origin(url).as_deref(), Some(expected), "{url}");
        }
        for url in
            ["/path", "api.example", "ftp://api.example", "https://u:p@api.example", "https://api.example:x"]
        {
            assert_eq!(origin(url), None, "{url}");
        }
    }

    #[test]
    fn plain_http_is_private_on_this_machine_alone() {
        for (text, private) in [
            ("https://api.example", true),
            ("http://127.0.0.1:80", true),
            ("http://127.9.9.9", true),
            ("http://localhost:8080", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]:1", true),
            ("http://api.example", false),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
            ("http://127.0.0.1.example", false),
        ] {
            assert_eq!(Origin::parse(text).unwrap().is_private(), private, "{text}");
        }
    }

    #[test]
    fn a_configured_origin_has_no_path() {
        for text in
            ["", "api.example", "https://api.example/v1", "https://api.example?a", "https://api.example/#a"]
        {
            assert_eq!(Origin::parse(text).unwrap_err().kind(), ErrorKind::Origin, "{text}");
        }
        assert_eq!(Origin::parse(" https://api.example/ ").unwrap().as_str(), "https://api.example");
    }
}
