//! The page as a response: whether it is wanted, and the headers that keep it
//! to itself.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{Response, StatusCode};

use super::accept::prefers_html;
use super::html;
use super::view::View;
use crate::gate::GateInner;
use crate::sale::Sold;

/// The page of a challenge, where the gate has one and the client would rather
/// read that.
pub(crate) fn answer(gate: &GateInner, head: &Parts, sold: &Sold) -> Option<Response<Bytes>> {
    let page = gate.page.as_ref().filter(|_| prefers_html(&head.headers))?;
    let (route, _) = gate.issuer.0.page.as_ref()?;
    let view = View::new(gate, route, &page.links, head, sold);
    let html = match &page.render {
        Some(render) => render(&view),
        None => html::challenge(&view, &page.texts, &page.style),
    };
    Some(document(StatusCode::PAYMENT_REQUIRED, &view.nonce, html))
}

/// A page that loads nothing, runs nothing and is framed by nobody, but for what
/// has the nonce.
pub(super) fn document(status: StatusCode, nonce: &str, html: String) -> Response<Bytes> {
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    let mut response = Response::new(Bytes::from(html));
    *response.status_mut() = status;
    let policy = HeaderValue::try_from(policy).expect("a nonce is base64");
    let headers: [(HeaderName, HeaderValue); 6] = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // For what does not know `frame-ancestors`.
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    response.headers_mut().extend(headers);
    response
}
