//! Where an answer leads to: within the origin, or nowhere.

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, HeaderName, LOCATION,
    TRANSFER_ENCODING,
};
use http::{Method, Request, Response, StatusCode, Uri};

use super::body::Body;
use super::error::{Error, ErrorKind};
use super::origin::Origin;

/// What describes a body, and goes with it.
const OF_BODY: [HeaderName; 6] =
    [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, TRANSFER_ENCODING];

/// The URL that an answer redirects to; `None` where it does not.
pub(super) fn target(origin: &Origin, from: &Uri, response: &Response<Bytes>) -> Result<Option<Uri>, Error> {
    let is_redirect = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let Some(location) = response.headers().get(LOCATION).filter(|_| is_redirect) else { return Ok(None) };
    let uri = location.to_str().ok().and_then(|location| resolve(from, location));
    let found = uri.as_ref().and_then(Origin::of);
    match uri {
        Some(uri) if found.as_ref() == Some(origin) => Ok(Some(uri)),
        uri => {
            // Without its query, which may hold a secret, and without a password.
            let to = match (found, uri) {
                (Some(origin), Some(uri)) => format!("{origin}{}", uri.path()),
                _ => "what is no URL of a web server".to_owned(),
            };
            let what = format!(
                "{origin} redirects to {to}: no token goes to another origin; ask there, if you trust it"
            );
            Err(Error::new(ErrorKind::Redirect, what))
        }
    }
}

/// Whether the method that follows is GET, without a body (RFC 9110, section
/// 15.4); then makes the request so.
pub(super) fn becomes_get(response: &Response<Bytes>, next: &mut Request<Body>) -> bool {
    let is_get = match response.status() {
        StatusCode::SEE_OTHER => next.method() != Method::HEAD,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => next.method() == Method::POST,
        _ => false,
    };
    if is_get {
        *next.method_mut() = Method::GET;
        for name in &OF_BODY {
            next.headers_mut().remove(name);
        }
    }
    is_get
}

/// Resolves a reference against the URL that it was found at (RFC 3986, section 5).
fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.trim().split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let text = if path.split('/').next().is_some_and(|first| first.contains(':')) {
        reference.to_owned()
    } else if path.starts_with("//") {
        format!("{scheme}:{reference}")
    } else {
        let (path, query) = match path {
            "" => (base.path().to_owned(), query.or(base.query().filter(|_| query.is_none()))),
            _ if path.starts_with('/') => (without_dots(path), query),
            _ => {
                let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                (without_dots(&format!("{folder}/{path}")), query)
            }
        };
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        format!("{scheme}://{authority}{path}{query}")
    };
    text.parse().ok()
}

/// A path from the root without `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<_> = path.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: StatusCode, location: &str) -> Response<Bytes> {
        Response::builder().status(status).header(LOCATION, location).body(Bytes::new()).unwrap()
    }

    #[test]
    fn a_reference_is_resolved_against_its_url() {
        let base = "https://api.example:8443/a/b/c?q".parse().unwrap();
        for (reference, expected) in [
            ("d", "https://api.example:8443/a/b/d"),
            ("d?x=/../y", "https://api.example:8443/a/b/d?x=/../y"),
            ("./d/", "https://api.example:8443/a/b/d/"),
            ("../d", "https://api.example:8443/a/d"),
            ("../../../../d", "https://api.example:8443/d"),
            ("..", "https://api.example:8443/a/"),
            ("/d/./e#f", "https://api.example:8443/d/e"),
            ("?x", "https://api.example:8443/a/b/c?x"),
            ("#f", "https://api.example:8443/a/b/c?q"),
            ("//other.example/d", "https://other.example/d"),
            ("http://other.example", "http://other.example/"),
        ] {
            assert_eq!(resolve(&base, reference).unwrap().to_string(), expected, "{reference}");
        }
    }

    #[test]
    fn only_what_stays_within_the_origin_is_followed() {
        let base: Uri = "https://api.example/a?secret".parse().unwrap();
        let origin = Origin::of(&base).unwrap();
        let to = |location: &str| target(&origin, &base, &response(StatusCode::FOUND, location));
        assert_eq!(to("https://API.example:443/b").unwrap().unwrap().path(), "/b");
        assert_eq!(to("/b").unwrap().unwrap(), "https://api.example/b");
        for (location, shown) in [
            ("https://other.example/b?secret", "https://other.example/b:"),
            ("http://api.example/b", "http://api.example/b:"),
            ("https://api.example:444/b", "https://api.example:444/b:"),
            ("https://secret@api.example/b", "what is no URL"),
            ("javascript:secret", "what is no URL"),
            ("//", "what is no URL"),
        ] {
            let error = to(location).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Redirect, "{location}");
            assert!(error.to_string().contains(shown), "{location}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let not_one = Response::builder().status(201).header(LOCATION, "/b").body(Bytes::new()).unwrap();
        assert!(target(&origin, &base, &not_one).unwrap().is_none());
    }

    #[test]
    fn a_post_becomes_a_get_as_everywhere() {
        for (status, method, becomes) in [
            (StatusCode::SEE_OTHER, Method::POST, Method::GET),
            (StatusCode::SEE_OTHER, Method::HEAD, Method::HEAD),
            (StatusCode::FOUND, Method::POST, Method::GET),
            (StatusCode::FOUND, Method::PUT, Method::PUT),
            (StatusCode::MOVED_PERMANENTLY, Method::GET, Method::GET),
            (StatusCode::TEMPORARY_REDIRECT, Method::POST, Method::POST),
            (StatusCode::PERMANENT_REDIRECT, Method::POST, Method::POST),
        ] {
            let mut next = Request::new(Body::default());
            *next.method_mut() = method.clone();
            next.headers_mut().insert(CONTENT_TYPE, "text/plain".parse().unwrap());
            let changed = becomes_get(&response(status, "/"), &mut next);
            assert_eq!(next.method(), becomes, "{status} {method}");
            assert_eq!(next.headers().contains_key(CONTENT_TYPE), !changed);
        }
    }
}
