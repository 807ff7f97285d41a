//! The credential that a browser keeps: a cookie, which the form of the page
//! sets once it has checked token and preimage.
//!
//! ```text
//! Cookie = __Secure-l402-<service>=<token, URL-safe base64>[:<preimage>]
//! ```
//!
//! A browser shows a cookie without being asked, also where another site had it
//! send the request. So it counts for less than what is shown on purpose: an
//! `Authorization` of ours comes first, a broken one is no credential at all,
//! and a request that another site may have caused does not show it.

use http::header::{COOKIE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::{Form, Presented};

/// Browsers set it over TLS alone, so that nobody on the way replaces it.
const PREFIX: &str = "__Secure-l402-";

/// The name of a service's cookie.
pub(crate) fn cookie_name(service: &str) -> String {
    format!("{PREFIX}{service}")
}

/// Takes every cookie of ours out of the headers, whichever service's it is, and
/// gives this one's where the request may show it.
pub(crate) fn take_cookie(head: &mut Parts, service: &str) -> Option<Presented> {
    let is_ours = |pair: &&[u8]| pair.starts_with(PREFIX.as_bytes());
    if !head.headers.get_all(COOKIE).iter().any(|line| pairs(line).any(|pair| is_ours(&pair))) {
        return None;
    }
    let mut lines: Vec<HeaderValue> = head.headers.get_all(COOKIE).iter().cloned().collect();
    let of_service = |pair: &[u8]| {
        let value =
            pair.strip_prefix(PREFIX.as_bytes())?.strip_prefix(service.as_bytes())?.strip_prefix(b"=")?;
        let mut value = HeaderValue::from_bytes(value).ok()?;
        value.set_sensitive(true);
        Some(value)
    };
    // Browsers send the one of the longest path first (RFC 6265, section 5.4).
    let found = lines.iter().flat_map(pairs).find_map(of_service);

    for line in lines.iter_mut().filter(|line| pairs(line).any(|pair| is_ours(&pair))) {
        let others: Vec<_> = pairs(line).filter(|pair| !is_ours(pair)).collect();
        *line = HeaderValue::from_bytes(&others.join(&b"; "[..])).expect("parts of a header value are one");
    }
    head.headers.remove(COOKIE);
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        head.headers.append(COOKIE, line);
    }
    let value = found.filter(|_| is_of_this_site(&head.method, &head.headers))?;
    Some(Presented { value, form: Form::Cookie })
}

impl Presented {
    /// Whether a browser showed it by itself.
    pub(crate) fn is_cookie(&self) -> bool {
        matches!(self.form, Form::Cookie)
    }
}

fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

/// Whether a page of this origin, or the person, sent the request (Fetch
/// Metadata). A link elsewhere opens what was paid for; it sends no form, and
/// nothing that runs elsewhere uses what was paid for up.
fn is_of_this_site(method: &Method, headers: &HeaderMap) -> bool {
    let is = |name: &str, expected: &[&str]| {
        headers.get(name).map(|value| expected.iter().any(|text| value.as_bytes() == text.as_bytes()))
    };
    let only_reads = matches!(*method, Method::GET | Method::HEAD);
    match is("sec-fetch-site", &["same-origin", "none"]) {
        Some(true) => true,
        Some(false) => {
            only_reads
                && is("sec-fetch-mode", &["navigate"]) == Some(true)
                && is("sec-fetch-dest", &["document"]) == Some(true)
        }
        // A browser that does not say. `SameSite=Lax` is its own rule.
        None => only_reads,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(method: &str, lines: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn taken(method: &str, lines: &[(&str, &str)]) -> (Option<String>, Vec<String>) {
        let mut head = head(method, lines);
        let found = take_cookie(&mut head, "svc");
        let left = head.headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap().to_owned());
        (found.map(|found| found.value.to_str().unwrap().to_owned()), left.collect())
    }

    #[test]
    fn cookies_of_ours_are_taken_out_and_no_other() {
        for (lines, found, left) in [
            (&["a=b; c=d"][..], None, &["a=b; c=d"][..]),
            (&["__Secure-l402-svc=t:p"], Some("t:p"), &[]),
            (&["a=b; __Secure-l402-svc=t:p; c=d"], Some("t:p"), &["a=b; c=d"]),
            (&["a=b;__Secure-l402-other=x;;c=d"], None, &["a=b; c=d"]),
            (&["__Secure-l402-svc2=x; __Secure-l402-svc=t"], Some("t"), &[]),
            (
                &["a=b;c=d", "__Secure-l402-svc=one; e=f", "__Secure-l402-svc=two"],
                Some("one"),
                &["a=b;c=d", "e=f"],
            ),
            (&["l402-svc=x; __secure-l402-svc=x"], None, &["l402-svc=x; __secure-l402-svc=x"]),
            (&["__Secure-l402-svc"], None, &[]),
            (&["__Secure-l402-"], None, &[]),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            let (got, kept) = taken("GET", &lines);
            assert_eq!(got.as_deref(), found, "{lines:?}");
            assert_eq!(kept, left, "{lines:?}");
        }
    }

    #[test]
    fn a_request_that_another_site_caused_shows_none() {
        let navigation = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let frame = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        let fetch = [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")];
        for (method, site, rest, shown) in [
            ("GET", None, &[][..], true),
            ("HEAD", None, &[], true),
            ("POST", None, &[], false),
            ("POST", Some("same-origin"), &fetch, true),
            ("GET", Some("none"), &navigation, true),
            ("GET", Some("cross-site"), &navigation, true),
            ("GET", Some("cross-site"), &frame, false),
            ("GET", Some("same-site"), &fetch, false),
            ("POST", Some("same-site"), &navigation, false),
            ("POST", Some("cross-site"), &navigation, false),
            ("GET", Some("something"), &fetch, false),
        ] {
            let mut lines = vec![("cookie", "__Secure-l402-svc=t")];
            lines.extend(site.map(|site| ("sec-fetch-site", site)));
            lines.extend(rest);
            let (found, left) = taken(method, &lines);
            assert_eq!(found.is_some(), shown, "{method} {site:?} {rest:?}");
            assert!(left.is_empty(), "taken out in any case");
        }
    }
}
