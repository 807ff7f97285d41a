//! What a token has left, for its holder.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response};
use serde::Serialize;

use crate::answer::{self, Refused};
use crate::credential;
use crate::gate::Gate;
use crate::refusal::Refusal;

#[derive(Serialize)]
struct Left<'a> {
    service: &'a str,
    offer: &'a str,
    /// Unix seconds.
    expires_at: u64,
    /// Left out where uses are not counted.
    #[serde(flatten)]
    units: Option<Units>,
}

#[derive(Serialize)]
struct Units {
    limit: u64,
    used: u64,
    left: u64,
}

impl Gate {
    /// Tells the holder of a token what is left of it, without using it: for a
    /// route of its own, outside the gate. The answer is JSON: `service`,
    /// `offer`, `expires_at` (unix seconds), and for counted tokens `limit`,
    /// `used` and `left`. A token that the gate would not admit is answered
    /// as the gate answers it, with 401 in place of 402, for nothing is sold here.
    ///
    /// ```
    /// # #[cfg(all(feature = "dev", feature = "axum"))] {
    /// use axum::{Router, extract::Request, routing::get};
    /// use l402::{Access, DevBackend, Gate, Issuer, L402Layer, Offer, Price};
    ///
    /// let issuer = Issuer::dev(&DevBackend::new());
    /// let gate = Gate::new(&issuer, "api", Offer::new(Price::sat(21), Access::uses(100)))?;
    /// let account = gate.clone();
    /// let app: Router = Router::new()
    ///     .route("/api", get(|| async { "paid" }).route_layer(L402Layer::new(gate)))
    ///     .route("/account", get(async move |request: Request| {
    ///         account.account(&mut request.into_parts().0).await.map(axum::body::Body::from)
    ///     }));
    /// # }
    /// # Ok::<(), l402::Error>(())
    /// ```
    pub async fn account(&self, head: &mut Parts) -> Response<Bytes> {
        match self.left(head).await {
            Ok(response) => response,
            Err(refused) => answer::respond(&self.0, head, refused, None),
        }
    }

    async fn left(&self, head: &mut Parts) -> Result<Response<Bytes>, Refused> {
        let presented = credential::take(&mut head.headers, self.0.issuer.takes_bearers())?;
        let mut ruling = self.0.rule(presented.as_ref(), head)?;
        self.0.confirm(&mut ruling).await?;
        let (token, debit) = ruling.into_token();
        let token = token.ok_or(Refusal::MissingCredential)?;
        let units = match debit {
            None => None,
            Some(debit) => {
                let account = self.0.issuer.account(token.payment_hash).await;
                let account = account.map_err(|error| Refused::because(Refusal::LedgerUnavailable, error))?;
                let (limit, used) = account.map_or((debit.limit, 0), |account| (account.limit, account.used));
                let limit = limit.min(debit.ceiling);
                Some(Units { limit, used, left: limit.saturating_sub(used) })
            }
        };
        let left =
            Left { service: &self.0.service, offer: &token.offer, expires_at: token.valid_until, units };
        let json = serde_json::to_vec(&left).expect("strings and numbers serialize");
        let mut response = Response::new(json.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}
