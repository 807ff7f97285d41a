//! An admitted request, until its response is there.

use std::fmt;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, VARY};
use http::{HeaderMap, Response, request, response};

use crate::clock::unix;
use crate::event::Event;
use crate::gate::Gate;
use crate::grant::Grant;
use crate::ledger::{Debit, OnDrop, Reservation};

type ChargeFn = Arc<dyn Fn(&response::Parts) -> bool + Send + Sync>;

/// When a counted use is charged.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum ChargeOn {
    /// When the response is no server error: neither 5xx nor a gRPC status of
    /// 2, 4, 8, 13, 14 or 15 in its head. A failure of the service, and a client that
    /// leaves before the head, cost nothing; a single use is spent when the
    /// client leaves.
    #[default]
    NotServerError,
    /// When the request is admitted, whatever becomes of it.
    Admission,
    /// When the closure says so of the response's head; otherwise as
    /// [`NotServerError`](Self::NotServerError).
    Response(ChargeFn),
}

impl ChargeOn {
    /// Charges when the closure says so of the response's head.
    pub fn response(charge: impl Fn(&response::Parts) -> bool + Send + Sync + 'static) -> Self {
        Self::Response(Arc::new(charge))
    }

    fn charges(&self, head: &response::Parts) -> bool {
        match self {
            Self::NotServerError => !is_server_error(head),
            Self::Admission => true,
            Self::Response(charge) => charge(head),
        }
    }
}

impl fmt::Debug for ChargeOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotServerError => "NotServerError",
            Self::Admission => "Admission",
            Self::Response(_) => "Response(..)",
        })
    }
}

pub(crate) fn is_server_error(head: &response::Parts) -> bool {
    let grpc = head.headers.get("grpc-status").map(HeaderValue::as_bytes);
    let failed: [&[u8]; 6] = [b"2", b"4", b"8", b"13", b"14", b"15"];
    head.status.is_server_error() || grpc.is_some_and(|code| failed.contains(&code))
}

/// An admitted request: its grant, and the use it has reserved.
///
/// [Settle](Self::settle) it with the response. Dropped, the use stays spent.
#[must_use = "a dropped admission stays spent; settle it with the response"]
#[derive(Debug)]
pub struct Admission {
    grant: Grant,
    settlement: Settlement,
}

impl Admission {
    pub(crate) fn new(gate: &Gate, grant: Grant, reserved: Option<(Reservation, Debit)>) -> Self {
        let settlement = Settlement {
            gate: gate.clone(),
            // What is free by the request may cost the next client.
            is_private: grant.basis().is_private() || gate.0.is_priced_by_request(),
            #[cfg(feature = "page")]
            by_cookie: grant.presented.as_ref().is_some_and(crate::credential::Presented::is_cookie),
            remaining: grant.remaining(),
            use_: reserved.map(|(mut reservation, debit)| {
                reservation.on_drop(OnDrop::Commit);
                let watched = gate.0.issuer.0.events.are_watched().then(|| gate.clone());
                Use { watched, reservation, debit }
            }),
        };
        Self { grant, settlement }
    }

    /// What the request was granted. A handler finds it in the extensions of
    /// its request, if whoever called the gate puts it there.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Charges the use or gives it back, as the response and the gate's
    /// [`ChargeOn`] say, and marks the response as paid: `Cache-Control:
    /// private`, `Vary: Authorization`, no header that invites a shared cache,
    /// and for a counted use that is charged the IETF `RateLimit` fields.
    pub fn settle<B>(self, response: Response<B>) -> Response<B> {
        self.settlement.settle(response)
    }

    /// Gives the use back, where the ledger still allows it.
    pub fn release(self) {
        self.settlement.release();
    }

    /// Puts the credential back into the headers, if the gate is to forward it.
    pub(crate) fn forward_credential(&self, head: &mut request::Parts) {
        if let (true, Some(presented)) = (self.settlement.gate.0.forward_credential, &self.grant.presented) {
            presented.put_back(&mut head.headers);
        }
    }

    pub(crate) fn into_parts(self) -> (Grant, Settlement) {
        (self.grant, self.settlement)
    }
}

/// What is left to do once the response is there.
#[derive(Debug)]
pub(crate) struct Settlement {
    gate: Gate,
    is_private: bool,
    #[cfg(feature = "page")]
    by_cookie: bool,
    remaining: Option<u64>,
    use_: Option<Use>,
}

#[derive(Debug)]
struct Use {
    /// The gate, if anybody is told.
    watched: Option<Gate>,
    reservation: Reservation,
    debit: Debit,
}

impl Use {
    fn end(mut self, end: OnDrop) {
        self.reservation.on_drop(end);
    }
}

/// However it ends, it is told of here.
impl Drop for Use {
    fn drop(&mut self) {
        let Some(Gate(gate)) = &self.watched else { return };
        let (units, charged) = (self.debit.units, self.reservation.is_charged());
        gate.issuer.0.events.tell(|| Event::Settlement { service: &gate.service, units, charged });
    }
}

impl Settlement {
    /// From here on, dropping means that the client left before the response:
    /// the use is given back, but not a single one, and not where admission
    /// is what costs.
    pub(crate) fn until_response(&mut self) {
        self.on_drop(|gate, debit| {
            let spent = debit.sold == 1 || matches!(gate.0.charge_on, ChargeOn::Admission);
            if spent { OnDrop::Commit } else { OnDrop::Release }
        });
    }

    /// From here on, dropping means that the inner service panicked.
    pub(crate) fn until_inner_returns(&mut self) {
        self.on_drop(|gate, _| match gate.0.charge_on {
            ChargeOn::Admission => OnDrop::Commit,
            ChargeOn::NotServerError | ChargeOn::Response(_) => OnDrop::Release,
        });
    }

    fn on_drop(&mut self, decide: impl FnOnce(&Gate, &Debit) -> OnDrop) {
        if let Some(used) = &mut self.use_ {
            used.reservation.on_drop(decide(&self.gate, &used.debit));
        }
    }

    /// The inner service gave an error in place of a response.
    pub(crate) fn fail(self) {
        match self.gate.0.charge_on {
            ChargeOn::Admission => {}
            ChargeOn::NotServerError | ChargeOn::Response(_) => self.release(),
        }
    }

    pub(crate) fn release(self) {
        if let Some(used) = self.use_ {
            used.end(OnDrop::Release);
        }
    }

    pub(crate) fn settle<B>(self, response: Response<B>) -> Response<B> {
        let (mut head, body) = response.into_parts();
        if let Some(used) = self.use_ {
            if self.gate.0.charge_on.charges(&head) {
                rate_limit(&mut head.headers, &self.gate, &used.debit, self.remaining.unwrap_or_default());
                used.end(OnDrop::Commit);
            } else {
                // What is left, the ledger decides: the next answer says it.
                used.end(OnDrop::Release);
            }
        }
        if self.is_private {
            keep_private(&mut head.headers);
        }
        #[cfg(feature = "page")]
        if self.by_cookie {
            vary(&mut head.headers, "Cookie");
        }
        Response::from_parts(head, body)
    }
}

/// Says what is left, in the `RateLimit` fields of the IETF's draft.
fn rate_limit(headers: &mut HeaderMap, gate: &Gate, debit: &Debit, left: u64) {
    let service = &gate.0.service;
    let seconds = debit.valid_until.saturating_sub(unix(gate.0.issuer.0.clock.now()));
    let fields = [
        ("ratelimit-policy", format!(r#""{service}";q={}"#, debit.sold.min(debit.ceiling).max(left))),
        ("ratelimit", format!(r#""{service}";r={left};t={seconds}"#)),
    ];
    for (name, value) in fields {
        headers.insert(
            HeaderName::from_static(name),
            value.try_into().expect("names and digits are visible ASCII"),
        );
    }
}

/// Headers that tell shared caches more than `Cache-Control` does; so does any
/// whose name ends in `cdn-cache-control`.
const SHARED_CACHE_HEADERS: [&str; 4] = ["edge-control", "expires", "surrogate-control", "x-accel-expires"];

/// Keeps what was paid for out of shared caches, which would give it away.
fn keep_private(headers: &mut HeaderMap) {
    let is_shared = |name: &&HeaderName| {
        SHARED_CACHE_HEADERS.contains(&name.as_str()) || name.as_str().ends_with("cdn-cache-control")
    };
    let shared: Vec<_> = headers.keys().filter(is_shared).cloned().collect();
    for name in shared {
        headers.remove(name);
    }
    let cache_control = if headers.contains_key(CACHE_CONTROL) {
        private(headers)
    } else {
        HeaderValue::from_static("private")
    };
    headers.insert(CACHE_CONTROL, cache_control);
    vary(headers, "Authorization");
}

/// Says that the response depends on this header.
fn vary(headers: &mut HeaderMap, on: &'static str) {
    let names = |value: &HeaderValue| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(on.as_bytes()))
    };
    if !headers.get_all(VARY).iter().any(names) {
        headers.append(VARY, HeaderValue::from_static(on));
    }
}

/// The cache directives of the inner service, without those for shared caches.
fn private(headers: &HeaderMap) -> HeaderValue {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives = lines.flat_map(split_list).map(str::trim).filter(|directive| {
        let name = directive.split('=').next().unwrap_or_default().trim_end();
        !["", "public", "private", "s-maxage", "proxy-revalidate"]
            .iter()
            .any(|shared| name.eq_ignore_ascii_case(shared))
    });
    let value = ["private"].into_iter().chain(directives).collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("private"))
}

/// The members of a list. A comma within quotes separates nothing, as in
/// `private="set-cookie, x-a"`.
fn split_list(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        keep_private(&mut headers);
        headers
    }

    #[test]
    fn a_paid_response_is_private() {
        for (line, kept) in [
            ("public, max-age=60, s-maxage=600", "private, max-age=60"),
            ("no-store", "private, no-store"),
            ("private=\"x\", Public", "private"),
            (
                "private=\"x, y\", max-age=1, no-cache=\"z, public\"",
                "private, max-age=1, no-cache=\"z, public\"",
            ),
            ("S-MaxAge = 5,, must-revalidate", "private, must-revalidate"),
        ] {
            assert_eq!(after(&[("cache-control", line)])[CACHE_CONTROL], kept, "{line}");
        }
        let headers = after(&[
            ("expires", "0"),
            ("x-accel-expires", "9"),
            ("cloudflare-cdn-cache-control", "max-age=9"),
            ("cdn-cache-control", "max-age=9"),
            ("surrogate-control", "max-age=9"),
        ]);
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers[CACHE_CONTROL], "private");
        assert_eq!(headers[VARY], "Authorization");
    }

    #[test]
    fn vary_is_said_once() {
        assert_eq!(after(&[("vary", "accept, AUTHORIZATION")]).get_all(VARY).iter().count(), 1);
        assert_eq!(after(&[("vary", "*")]).get_all(VARY).iter().count(), 1);
        assert_eq!(after(&[("vary", "accept")]).get_all(VARY).iter().count(), 2);
    }

    #[test]
    fn server_errors_are_5xx_and_the_grpc_codes_for_them() {
        let head = |status: u16, grpc: Option<&'static str>| {
            let mut builder = Response::builder().status(status);
            if let Some(grpc) = grpc {
                builder = builder.header("grpc-status", grpc);
            }
            builder.body(()).unwrap().into_parts().0
        };
        for (status, grpc, failed) in [
            (200, None, false),
            (404, None, false),
            (500, None, true),
            (503, None, true),
            (200, Some("0"), false),
            (200, Some("5"), false),
            (200, Some("13"), true),
            (200, Some("14"), true),
            (200, Some("2"), true),
        ] {
            assert_eq!(is_server_error(&head(status, grpc)), failed, "{status} {grpc:?}");
        }
    }
}
