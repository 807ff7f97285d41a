//! What the operator says of limits, and what holds where nothing is said.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use super::{ClientId, Clients, ForwardedHeader, Proxies, Quota, Reuse};
use crate::clock::MINUTE;
use crate::error::Error;
use crate::issuer_builder::IssuerBuilder;

#[derive(Debug)]
pub(crate) struct Config {
    pub(super) in_flight: usize,
    pub(super) time_limit: Duration,
    pub(super) client: Quota,
    pub(super) server: Quota,
    pub(super) clients: Result<Clients, Error>,
    pub(super) reuse: Option<Reuse>,
}

/// A purchase takes one challenge, or two; the rest of a client's burst is for
/// the office or the mobile network that shares an address. What the server
/// makes a second is what a small node does without falling behind.
impl Default for Config {
    fn default() -> Self {
        Self {
            in_flight: 64,
            time_limit: Duration::from_secs(10),
            client: Quota::new(60, MINUTE),
            server: Quota::new(100, Duration::from_secs(1)),
            clients: Ok(Clients::default()),
            reuse: None,
        }
    }
}

/// # Limits
impl IssuerBuilder {
    /// How many invoices may be asked for at once, and how long each may take:
    /// 64 and 10 seconds unless set. Beyond either a request is answered 503. As
    /// many unpaid requests at once may wait for a price or a rate.
    pub fn with_invoice_limits(mut self, in_flight: usize, time_limit: Duration) -> Self {
        self.limits.in_flight = in_flight;
        self.limits.time_limit = time_limit;
        self
    }

    /// How many challenges one client may ask for in such a time, with a burst
    /// of `n`: 60 in a minute unless set. Beyond it the answer is 429 with
    /// Retry-After, and neither the backend nor a [`Pricer`](crate::Pricer) is
    /// asked. A purchase takes one or two;
    /// the rest is room for those who share an address. 0 counts as 1, and
    /// `u64::MAX` lifts the limit.
    ///
    /// A client is a network, /24 or /48 of IPv6, by the address of the
    /// connection. **That address the server has to give**: in axum by
    /// `into_make_service_with_connect_info::<SocketAddr>()` (feature `axum`),
    /// elsewhere as a [`PeerAddr`](crate::PeerAddr) in the request's
    /// extensions. Where it does not, all clients share what
    /// [`with_server_challenges`](Self::with_server_challenges) allows. Behind a
    /// proxy use [`with_trusted_proxies`](Self::with_trusted_proxies), or all
    /// clients are one. Each process counts for itself.
    pub fn with_client_challenges(mut self, n: u64, per: Duration) -> Self {
        self.limits.client = Quota::new(n, per);
        self
    }

    /// How many invoices the backend is asked for in such a time, for all
    /// clients and gates together, with a burst of `n`: 100 in a second unless
    /// set. Beyond it the answer is 429 with Retry-After. Set it to what your
    /// node makes without falling behind. 0 counts as 1, and `u64::MAX` lifts
    /// the limit, as a test may want whose clock stands still.
    pub fn with_server_challenges(mut self, n: u64, per: Duration) -> Self {
        self.limits.server = Quota::new(n, per);
        self
    }

    /// Takes the client's address from this header, for requests that come from
    /// a proxy in these ranges (`10.0.0.0/8`, `fd00::/8`, `192.0.2.1`); a
    /// request from elsewhere is its sender's. The header is read from the
    /// right, to the first address that is no trusted proxy; what stands left
    /// of it the client may have written.
    ///
    /// Choose the header that **your proxies write**: one that they only pass
    /// on names whatever client its sender likes. Name no range from which
    /// others than proxies reach the server. The server has to give the address
    /// of the connection, as for
    /// [`with_client_challenges`](Self::with_client_challenges). A range that
    /// cannot be read, or that is all addresses, does not build.
    ///
    /// ```
    /// # #[cfg(feature = "dev")] {
    /// # use l402::{DevBackend, ForwardedHeader, Issuer, KeyRing, Network, RootKey};
    /// # let builder = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new());
    /// # let builder = builder.with_network(Network::Regtest);
    /// let issuer = builder.with_trusted_proxies(ForwardedHeader::XForwardedFor, &["10.0.0.0/8"]).build()?;
    /// # }
    /// # Ok::<(), l402::Error>(())
    /// ```
    pub fn with_trusted_proxies(mut self, header: ForwardedHeader, ranges: &[&str]) -> Self {
        self.limits.clients = Proxies::new(header, ranges).map(Clients::Proxies);
        self
    }

    /// Who the client is, by the head of its request (without the credential),
    /// in place of its address. For `None`, and where the closure panics, the
    /// server's limit counts alone, and nothing is free.
    ///
    /// **Not by what a client can choose**, such as a header that nobody
    /// checked: it would be another client in each request, and never limited.
    pub fn with_client(
        mut self,
        client: impl Fn(&Parts) -> Option<ClientId> + Send + Sync + 'static,
    ) -> Self {
        self.limits.clients = Ok(Clients::Closure(Arc::new(client)));
        self
    }

    /// Answers a client that asks again before it has paid with the same
    /// challenge, for up to 60 seconds and half of the time to pay, in place of
    /// having another invoice made. Such an answer is counted neither for the
    /// client nor for the server.
    ///
    /// **The closure has to name one client and nobody else**: an account, an
    /// API key that was checked; not an address, behind which are many. All
    /// whom it names alike get one token, which one of them pays for and any
    /// of them uses. For `None` every challenge is fresh, as without this.
    ///
    /// A challenge is answered again only for the same service, offer, price
    /// and bound conditions, and not after its token was presented to this
    /// process or revoked, nor after the keys have changed. At most 1,024 are
    /// kept, in 7 MiB at most; beyond that they are fresh.
    pub fn reuse_challenge(
        mut self,
        client: impl Fn(&Parts) -> Option<ClientId> + Send + Sync + 'static,
    ) -> Self {
        self.limits.reuse = Some(Reuse::new(Arc::new(client)));
        self
    }
}
