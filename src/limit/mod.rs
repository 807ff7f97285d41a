//! What is limited: the challenges of a client and of the whole server, the
//! invoices that are made at once and the time of each, payment hashes to one
//! sale, free requests, and the rate of a pass.
//!
//! | file | what |
//! |---|---|
//! | `bucket` | a rate, as one number |
//! | `table` | such numbers for many, in bounded memory |
//! | `client`, `forwarded` | who a client is |
//! | `config` | what the operator says, and the defaults |
//! | `free` | free requests |
//! | `pool` | invoices that are ready |
//! | `reuse` | challenges that are pending |
//!
//! An unpaid request is counted for its client first, then for the server, and
//! what the server refuses is given back to the client. So a client keeps a
//! place in the table only for what it was sold, and nobody can fill the table
//! faster than the server sells: by default with some 200 of 65,536 clients.

mod bucket;
mod client;
mod config;
mod forwarded;
mod free;
mod pool;
mod reuse;
mod table;

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::request::Parts;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Error;
use crate::offer::Rate;
use crate::preimage::PaymentHash;
use crate::recent::Recent;
use crate::refusal::Refusal;

use bucket::Bucket;
use bucket::{Quota, nanos};
use client::{ClientFn, Clients};
pub use client::{ClientId, PeerAddr};
pub(crate) use config::Config;
pub use forwarded::ForwardedHeader;
use forwarded::Proxies;
pub(crate) use free::FreeRequests;
pub(crate) use pool::{Level, Pool, Ready, Refill};
use reuse::Reuse;
use table::Table;

#[derive(Debug)]
pub(crate) struct Limits {
    in_flight: Semaphore,
    pricing: Semaphore,
    pub(crate) time_limit: Duration,
    /// Who asks for a challenge.
    clients: Clients,
    client_quota: Quota,
    by_client: Table,
    server: Bucket,
    passes: Table,
    free: Table,
    /// Challenges to be answered again, where that is wanted.
    pub(crate) reuse: Option<Reuse>,
}

impl Limits {
    /// # Errors
    /// The ranges of proxies cannot be read.
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        let places = config.in_flight.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            in_flight: Semaphore::new(places),
            pricing: Semaphore::new(places),
            time_limit: config.time_limit,
            clients: config.clients?,
            client_quota: config.client,
            by_client: Table::new(),
            server: Bucket::new(config.server),
            passes: Table::new(),
            free: Table::new(),
            reuse: config.reuse,
        })
    }

    /// A place among the invoices that are made at once; `None` where all are taken.
    pub(crate) fn enter(&self) -> Option<SemaphorePermit<'_>> {
        self.in_flight.try_acquire().ok()
    }

    /// A place among those who have paid nothing and ask for a price: as many as
    /// for invoices, and beside them, so that a pricer that is slow holds up no
    /// gate of a fixed price.
    pub(crate) fn enter_pricing(&self) -> Option<SemaphorePermit<'_>> {
        self.pricing.try_acquire().ok()
    }

    /// The client that sent this request; `None` where nobody can tell.
    pub(crate) fn client(&self, head: &Parts) -> Option<ClientId> {
        self.clients.of(head)
    }

    /// Counts a challenge for its client.
    pub(crate) fn take_client(&self, head: &Parts, now: SystemTime) -> Result<Option<ClientId>, Refusal> {
        self.clients.watch(head);
        let client = self.clients.of(head);
        self.take_known(client, now)?;
        Ok(client)
    }

    /// Counts a question for a price as a challenge of its client, while the
    /// server makes any.
    pub(crate) fn take_question(&self, head: &Parts, now: SystemTime) -> Result<Option<ClientId>, Refusal> {
        self.server.check(nanos(now)).map_err(|retry_after| Refusal::TooManyChallenges { retry_after })?;
        let client = self.clients.of(head);
        self.take_known(client, now)?;
        Ok(client)
    }

    fn take_known(&self, client: Option<ClientId>, now: SystemTime) -> Result<(), Refusal> {
        let (Some(client), now) = (client, nanos(now)) else { return Ok(()) };
        check(&self.by_client, client, self.client_quota, now)
            .map_err(|retry_after| Refusal::TooManyChallenges { retry_after })
    }

    /// Counts a call of the backend for the server, and gives the client back
    /// what was counted for it where the server has had enough.
    pub(crate) fn take_server(&self, client: Option<ClientId>, now: SystemTime) -> Result<(), Refusal> {
        self.server.take(nanos(now)).map_err(|retry_after| {
            self.give_back(client);
            Refusal::TooManyChallenges { retry_after }
        })
    }

    /// As if the client had not asked.
    pub(crate) fn give_back(&self, client: Option<ClientId>) {
        if let Some(client) = client {
            self.by_client.change(client, |place| place.until = self.client_quota.give_back(place.until));
        }
    }

    /// Counts a look-up that anybody can cause, like a challenge.
    pub(crate) fn take_look_up(&self, client: Option<ClientId>, now: SystemTime) -> Result<(), Refusal> {
        self.take_known(client, now)?;
        self.take_server(client, now)
    }

    /// Counts a request of a rated pass, or says how long to wait.
    pub(crate) fn take_pass(&self, token: PaymentHash, rate: Rate, now: SystemTime) -> Result<(), Duration> {
        check(&self.passes, token.as_bytes(), rate.into(), nanos(now))
    }

    /// Counts a free request of the service; `false` where the client has had
    /// them all, is not known, or there is no place to count it in.
    pub(crate) fn take_free(&self, free: FreeRequests, service: &str, head: &Parts, now: SystemTime) -> bool {
        let Some(client) = self.clients.of(head) else { return false };
        free.take(&self.free, (service, client), nanos(now))
    }
}

fn check(table: &Table, key: impl std::hash::Hash, quota: Quota, now: u64) -> Result<(), Duration> {
    table.count(key, now, |place| quota.next(place.until, now).map(|next| place.until = next))?
}

/// What this process has sold, whichever issuer did.
static SOLD: LazyLock<Mutex<Recent>> = LazyLock::new(Mutex::default);

/// Remembers a payment hash; `false` where it was sold before.
pub(crate) fn is_new(hash: PaymentHash) -> bool {
    SOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(hash)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn limits(client: u64, server: u64) -> Limits {
        let per = Duration::from_secs(10);
        let config =
            Config { client: Quota::new(client, per), server: Quota::new(server, per), ..Config::default() };
        Limits::new(config).unwrap()
    }

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_900_000_000_000 + millis)
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_one_request_a_step() {
        let (limits, rate) = (limits(1, 1), Rate::new(10, 60).unwrap());
        let check = |token: u8, millis| limits.take_pass([token; 32].into(), rate, at(millis));
        for _ in 0..10 {
            assert_eq!(check(1, 0), Ok(()));
        }
        assert_eq!(check(1, 0), Err(Duration::from_secs(6)));
        assert_eq!(check(2, 0), Ok(()), "another pass has its own rate");
        assert_eq!(check(1, 5_999), Err(Duration::from_millis(1)));
        assert_eq!(check(1, 6_000), Ok(()));
        assert!(check(1, 6_000).is_err());
    }

    #[test]
    fn a_client_gets_back_what_the_server_refused() {
        let limits = limits(4, 10);
        let clients: Vec<_> = (0..100_u32).map(|n| ClientId::new(n.to_be_bytes())).collect();
        let ask = |client: ClientId| {
            limits.take_known(Some(client), at(0))?;
            limits.take_server(Some(client), at(0))
        };
        let asked: Vec<_> = clients.iter().map(|client| ask(*client)).collect();
        assert_eq!(asked.iter().filter(|asked| asked.is_ok()).count(), 10);
        for client in &clients[10..] {
            for _ in 0..20 {
                assert!(ask(*client).is_err(), "the server has had enough");
            }
            let left = (0..9).filter(|_| limits.take_known(Some(*client), at(0)).is_ok()).count();
            assert_eq!(left, 4, "its own are all left");
        }
    }

    #[test]
    fn who_is_not_known_has_the_servers_bucket_alone() {
        let limits = limits(1, 10);
        let asked = (0..20).filter(|_| limits.take_look_up(None, at(0)).is_ok()).count();
        assert_eq!(asked, 10);
    }
}
