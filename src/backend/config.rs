//! What an operator tells a backend: addresses, files, credentials. All of it is
//! read and checked at start, and an error says which part is wrong and why.

use std::path::Path;
use std::str::FromStr;

use http::{HeaderValue, Uri};
use zeroize::Zeroizing;

use super::Network;
use crate::error::{Error, ErrorKind};

/// Reads the address of a backend, without a slash at its end.
pub(crate) fn base_url(text: &str) -> Result<String, Error> {
    let base = text.trim().trim_end_matches('/');
    let error = |what: &str| Err(Error::new(ErrorKind::Backend, format!("address of the backend {what}")));
    let Ok(uri) = base.parse::<Uri>() else { return error("is no URL") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return error("does not begin with `https://` or `http://`");
    }
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    if authority.contains('@') {
        return error("holds a password: give that apart");
    }
    if !names_host(&uri) {
        return error("has no host, or a port that is none");
    }
    if uri.query().is_some() || base.contains('#') {
        return error("has a query or a fragment");
    }
    Ok(base.to_owned())
}

/// Whether a URL names a host, and no port or one that is a number: `Uri` reads
/// a host that is missing, and any other port as if there were none.
pub(super) fn names_host(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let host = uri.host().unwrap_or_default();
    !host.is_empty() && (authority == host || uri.port_u16().is_some())
}

/// A header value that is never printed, or an error that does not show it.
pub(crate) fn secret_header(what: &str, value: &str) -> Result<HeaderValue, Error> {
    let mut value =
        HeaderValue::from_str(value.trim()).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
            Error::new(
                ErrorKind::Backend,
                format!("{what} is empty or has characters that no header may have"),
            )
        })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The network that this variable names, mainnet where it is not set.
pub(super) fn env_network(name: &str) -> Result<Network, Error> {
    let Some(value) = env_opt(name)? else { return Ok(Network::Bitcoin) };
    Network::from_str(value.trim())
        .map_err(|error| Error::new(ErrorKind::Backend, format!("{name} cannot be read")).with_source(error))
}

/// A variable that is `true` or `false`; `false` where it is not set.
pub(super) fn env_flag(name: &str) -> Result<bool, Error> {
    let Some(value) = env_opt(name)? else { return Ok(false) };
    let flag = value.trim().parse();
    flag.map_err(|_| Error::new(ErrorKind::Backend, format!("set {name} to `true` or `false`")))
}

/// A variable of the environment that has to be set.
pub(crate) fn env(name: &str, what: &str) -> Result<Zeroizing<String>, Error> {
    env_opt(name)?.ok_or_else(|| Error::new(ErrorKind::Backend, format!("set {name} to {what}")))
}

/// A variable of the environment; `None` where it is not set, or empty.
pub(crate) fn env_opt(name: &str) -> Result<Option<Zeroizing<String>>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(Zeroizing::new(value)).filter(|value| !value.trim().is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Error::new(ErrorKind::Backend, format!("{name} is not UTF-8")))
        }
    }
}

/// A file that is read at start.
pub(super) fn read_file(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    std::fs::read(path).map(Zeroizing::new).map_err(|cause| {
        Error::new(ErrorKind::Backend, format!("{what} cannot be read from {}", path.display()))
            .with_source(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_without_password_or_query() {
        assert_eq!(base_url(" https://node.example:8080/ ").unwrap(), "https://node.example:8080");
        for text in ["http://127.0.0.1:9740", "http://localhost", "https://[::1]", "https://[::1]:1/a/b"] {
            assert_eq!(base_url(text).unwrap(), text);
        }
        for text in [
            "",
            "node.example:8080",
            "ftp://node.example",
            "https://",
            "https://a:b@node",
            "https://node/?a",
            "https://node/#a",
            "https://:8080",
            "https://node:",
            "https://node:x",
            "https://node:99999",
            "https://[::1",
            "https://no de",
        ] {
            assert_eq!(base_url(text).unwrap_err().kind(), ErrorKind::Backend, "{text}");
        }
    }
}
