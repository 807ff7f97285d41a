//! The route behind the page: whether an invoice was paid, and the form that
//! opens what it paid for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use zeroize::Zeroizing;

use super::answer::document;
use super::form::Submitted;
use super::html::Rejection;
use super::{Page, Texts};
use crate::accounts::Unpaid;
use crate::caveat;
use crate::clock::unix;
use crate::credential::{self, cookie_name};
use crate::entropy::random;
use crate::error::{Error, ErrorKind};
use crate::issuer::Issuer;
use crate::macaroon::{self, MAX_MACAROON};
use crate::payment::Unconfirmed;
use crate::refusal::{Malformed, Refusal};

/// Longest form that is read, in bytes.
const MAX_FORM: usize = 16 * 1024;
/// Longest cookie that browsers keep, in bytes, with room for its attributes.
const MAX_COOKIE: usize = 3900;

/// Whether the text is a path that a form can have as its action.
pub(crate) fn validate_route(route: &str) -> Result<(), Error> {
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    if route.starts_with('/') && !route.contains("//") && route.bytes().all(is_path) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Page,
        format!("the route of the page is a path such as `/l402`, and not {route:?}"),
    ))
}

/// What a token was found to be.
struct Checked {
    /// The services that it opens, each until a unix second.
    services: Vec<(String, u64)>,
    is_particular: bool,
    /// `token:preimage`, as the cookie has it.
    value: Zeroizing<String>,
}

/// What has to be asked of a payment.
enum Payment {
    /// Whether an invoice was paid, where that is not known.
    Invoice(Option<Unconfirmed>),
    /// Whether an account was.
    Account(Unpaid),
}

impl Issuer {
    /// Answers at the route of the [page](crate::page), for a framework of your
    /// own; [`page_router`](Self::page_router) does it for axum. Read up to 16
    /// KiB of the body. 404 where the issuer has no page.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it has changed nothing.
    #[cfg_attr(docsrs, doc(cfg(feature = "page")))]
    pub async fn serve_page(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (mut head, body) = request.into_parts();
        let Some((route, page)) = &self.0.page else { return empty(StatusCode::NOT_FOUND) };
        match head.method {
            Method::GET | Method::HEAD => self.tell(&mut head).await,
            Method::POST => self.open(&head, &body, route, page).await,
            _ => {
                let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
                response
            }
        }
    }

    /// The route of the [page](crate::page), to be merged into the router. It is
    /// at the path that [`with_page`](crate::IssuerBuilder::with_page) was given;
    /// a router without a route, where there is no page.
    #[cfg(feature = "axum")]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "axum", feature = "page"))))]
    pub fn page_router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        let router = axum::Router::new();
        let Some((route, _)) = &self.0.page else { return router };
        let issuer = self.clone();
        let serve = move |request: axum::extract::Request| async move {
            let (head, body) = request.into_parts();
            let Ok(body) = axum::body::to_bytes(body, MAX_FORM).await else {
                return empty(StatusCode::PAYLOAD_TOO_LARGE).map(axum::body::Body::from);
            };
            issuer.serve_page(Request::from_parts(head, body)).await.map(axum::body::Body::from)
        };
        router.route(route, axum::routing::any(serve))
    }

    /// `{"paid": true}` once the invoice of the token in `Authorization` was paid.
    async fn tell(&self, head: &mut Parts) -> Response<Bytes> {
        // Without these, a token opens nothing without its preimage.
        if !self.0.payments.policy.admit_settled && self.0.accounts.is_none() {
            return empty(StatusCode::NOT_FOUND);
        }
        let checked = match head.headers.remove(AUTHORIZATION) {
            Some(value) => {
                let token = value.as_bytes().strip_prefix(b"L402 ").unwrap_or_default();
                self.check(head, token).await.map(drop)
            }
            None => Err(Refusal::MissingCredential),
        };
        let (status, paid) = match &checked {
            Ok(()) => (StatusCode::OK, true),
            Err(Refusal::PaymentPending { .. } | Refusal::NotPaid) => (StatusCode::OK, false),
            Err(refusal) => (status(refusal), false),
        };
        let mut response = Response::new(Bytes::from(format!(r#"{{"paid":{paid}}}"#)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let (true, Some(wait)) =
            (status != StatusCode::OK, checked.err().and_then(|refusal| refusal.retry_after()))
        {
            headers.insert(RETRY_AFTER, wait.as_secs().clamp(1, 3600).into());
        }
        response
    }

    /// Gives the browser what it paid for, as a cookie, and sends it back.
    async fn open(&self, head: &Parts, body: &[u8], route: &str, page: &Page) -> Response<Bytes> {
        let texts = &page.texts;
        let reject = |status, reason: &str, again| {
            let nonce = URL_SAFE_NO_PAD.encode(random::<16>(&*self.0.entropy));
            document(status, &nonce, Rejection { texts, reason, again }.to_html(&nonce, &page.style))
        };
        let from_here = head.headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
        let is_form = head.headers.get(CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
        });
        if !from_here {
            return reject(StatusCode::FORBIDDEN, &texts.unusable, None);
        }
        if !is_form || body.len() > MAX_FORM {
            return reject(StatusCode::BAD_REQUEST, &texts.unusable, None);
        }
        let Some(submitted) = Submitted::parse(body) else {
            return reject(StatusCode::BAD_REQUEST, &texts.unusable, None);
        };

        let checked = match self.check(head, submitted.credential().as_bytes()).await {
            Ok(checked) => checked,
            Err(refusal) => {
                let (reason, can_mend) = explain(&refusal, texts);
                let sees_payment = self.0.payments.policy.admit_settled;
                return reject(
                    status(&refusal),
                    reason,
                    can_mend.then_some((route, &submitted, sees_payment)),
                );
            }
        };
        let Some(cookies) = cookies(&checked, &submitted, unix(self.0.clock.now())) else {
            return reject(StatusCode::BAD_REQUEST, &texts.unusable, None);
        };
        let mut response = empty(StatusCode::SEE_OTHER);
        let headers = response.headers_mut();
        headers.insert(LOCATION, submitted.back.parse().expect("a local path is visible ASCII"));
        for cookie in cookies {
            let mut cookie = HeaderValue::try_from(&*cookie).expect("a cookie is visible ASCII");
            cookie.set_sensitive(true);
            headers.append(SET_COOKIE, cookie);
        }
        response
    }

    /// Whether `token[:preimage]` is of this server and paid for. Its caveats are
    /// the gate's to judge.
    async fn check(&self, head: &Parts, pair: &[u8]) -> Result<Checked, Refusal> {
        let issuer = &*self.0;
        let (checked, payment) = {
            let mut buffer = Zeroizing::new([0; MAX_MACAROON]);
            let credential = credential::read_pair(pair, &mut buffer)?;
            let preimage = credential.preimage.as_ref();
            let token = macaroon::verify(
                &credential.macaroon,
                preimage,
                &issuer.keys.load(),
                issuer.accounts.is_some(),
            )?;
            let is_seen = issuer.payments.policy.admit_settled || token.account().is_some();
            if preimage.is_none() && !is_seen {
                return Err(Malformed::NoPreimage.into());
            }
            let opens = caveat::opens(&token, &issuer.caveats, head);
            let client = || issuer.limits.client(head);
            let payment = match token.account() {
                Some(account) => Payment::Account(Unpaid {
                    account,
                    asked_at: token.token_id().issued_at(),
                    client: client(),
                }),
                None => Payment::Invoice(issuer.payments.unconfirmed(
                    token.payment_hash(),
                    opens.handle,
                    preimage.is_some(),
                    client,
                )),
            };
            let mut value = Zeroizing::new(URL_SAFE_NO_PAD.encode(credential.macaroon.as_bytes()));
            if let Some(preimage) = preimage {
                value.push(':');
                value.push_str(&Zeroizing::new(preimage.to_hex()));
            }
            let services = opens.services.iter().map(|(name, until)| ((*name).to_owned(), *until)).collect();
            (Checked { services, is_particular: opens.is_particular, value }, payment)
        };
        let confirmed = match (payment, &issuer.accounts) {
            (Payment::Invoice(Some(payment)), _) => issuer.confirm(&payment).await,
            (Payment::Account(unpaid), Some(accounts)) => accounts.confirm(&unpaid, issuer).await.map(drop),
            (Payment::Account(_), None) => Err(Refusal::NotPaid.into()),
            (Payment::Invoice(None), _) => Ok(()),
        };
        confirmed.map_err(|refused| refused.refusal)?;
        Ok(checked)
    }
}

impl Submitted {
    fn credential(&self) -> Zeroizing<String> {
        let token = self.token.trim();
        Zeroizing::new(if self.preimage.is_empty() {
            token.to_owned()
        } else {
            format!("{token}:{}", *self.preimage)
        })
    }
}

/// As the gate answers, but that nothing is sold here and no scheme is asked for.
fn status(refusal: &Refusal) -> StatusCode {
    if refusal.concerns_token() { StatusCode::BAD_REQUEST } else { refusal.status() }
}

/// What the person is told, and whether another try with the same form may do.
fn explain<'t>(refusal: &Refusal, texts: &'t Texts) -> (&'t str, bool) {
    match refusal {
        Refusal::Malformed(Malformed::NoPreimage | Malformed::Preimage) => (&texts.not_a_preimage, true),
        Refusal::WrongPreimage => (&texts.wrong_preimage, true),
        Refusal::PaymentPending { .. } => (&texts.not_paid, true),
        Refusal::NotPaid => (&texts.expired, false),
        _ if refusal.retry_after().is_some() => (&texts.unavailable, true),
        _ => (&texts.unusable, false),
    }
}

/// A cookie for each service that the token opens. `None` where it opens none
/// any more, or a browser would not keep it.
fn cookies(checked: &Checked, submitted: &Submitted, now: u64) -> Option<Vec<Zeroizing<String>>> {
    // What a path cannot hold in a cookie is kept for all of them.
    let here = Some(submitted.path()).filter(|path| !path.contains(';')).unwrap_or("/");
    let path = if checked.is_particular { here } else { "/" };
    let mut cookies = Vec::new();
    for (service, until) in checked.services.iter().filter(|(_, until)| *until > now) {
        let name = cookie_name(service);
        if name.len() + checked.value.len() > MAX_COOKIE {
            return None;
        }
        let attributes = "Secure; HttpOnly; SameSite=Lax";
        let (value, age) = (&*checked.value, until - now);
        cookies.push(Zeroizing::new(format!("{name}={value}; Path={path}; Max-Age={age}; {attributes}")));
        if path != here {
            // One that was kept for this path alone would come before it.
            cookies.push(Zeroizing::new(format!("{name}=; Path={here}; Max-Age=0; {attributes}")));
        }
    }
    (!cookies.is_empty()).then_some(cookies)
}

fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
