//! What a wallet makes of a server that fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::fault_server::{FAULTS, Fault, FaultServer, MOST_READ, SILENCES, said};
use crate::client::{PayError, PayErrorKind, Payment, PaymentRequest, PaymentStatus, Wallet};

/// Most requests that one call makes: the payment, and a look at what became of it.
const MOST_REQUESTS: usize = 4;
/// How long a payment may be tried here, and how much later its call has ended.
const TRIED_FOR: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(20);

/// Checks a wallet that speaks HTTP against a server on loopback that fails in
/// every way: it refuses, closes, hangs, answers errors, redirects, garbage,
/// and answers without end. Once a payment may have been sent no failure is
/// [definite](PayError::is_definite), and no error and no `Debug` holds one of
/// `secrets`.
///
/// `build` makes the wallet of this base URL, `http://127.0.0.1:PORT`.
/// `payment` is for an invoice of the wallet's network that could be paid; it is
/// never sent anywhere else. `secrets` are the wallet's credentials as they stand
/// in its requests, in hex or base64 if they do there, and any other form that
/// must not be shown; where there are some, at least one has to be in the
/// requests. Time is not paused; where the server is silent, the time limits of
/// the wallet are waited for.
///
/// # Panics
/// A rule is broken.
pub async fn check_faults(
    build: impl Fn(&str) -> Arc<dyn Wallet>,
    payment: &PaymentRequest,
    secrets: &[&str],
) {
    let payment = payment.clone().with_time_limit(TRIED_FOR);
    refused(&build, &payment, secrets).await;
    for fault in FAULTS {
        let server = FaultServer::start(fault).await;
        let subject = Subject { wallet: build(&server.base_url()), secrets, name: format!("{fault:?}") };
        let error = subject.pay(&payment).await;
        let kind = error.kind();
        assert!(fits(fault, kind), "{fault:?}: pay gives an error of a kind that fits, not {kind:?}");
        subject.bounds(&server, "pay");
        if matches!(fault, Fault::Echo(_)) && !secrets.is_empty() {
            let request = server.last_request();
            assert!(
                secrets.iter().any(|secret| request.contains(secret)),
                "one of `secrets` is in the requests: name the credential as it stands there"
            );
        }

        let server = FaultServer::start(fault).await;
        let subject = Subject { wallet: build(&server.base_url()), secrets, name: format!("{fault:?}") };
        subject.status(&payment, fault == Fault::Status(404)).await;
        subject.bounds(&server, "status");
    }
    // All at once: each takes the time limits of the wallet.
    let mut silent = JoinSet::new();
    for silence in SILENCES {
        let server = FaultServer::start(silence).await;
        let (wallet, payment) = (build(&server.base_url()), payment.clone());
        silent.spawn(async move {
            let paid = timeout(TRIED_FOR + LATER, wallet.pay(&payment)).await;
            drop(server);
            (silence, wallet, paid)
        });
    }
    for (silence, wallet, paid) in silent.join_all().await {
        let subject = Subject { wallet, secrets, name: format!("{silence:?}") };
        let kind = subject.failure(paid).kind();
        assert_eq!(kind, PayErrorKind::Uncertain, "{silence:?}: a payment that is not answered may be made");
    }
}

/// Nothing listens at the address.
async fn refused(build: &impl Fn(&str) -> Arc<dyn Wallet>, payment: &PaymentRequest, secrets: &[&str]) {
    // Bound, so that nobody else gets the port.
    let socket = TcpSocket::new_v4().expect("the system has sockets");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback has a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    let name = "connection refused".to_owned();
    let subject = Subject { wallet: build(&format!("http://{address}")), secrets, name };
    let kind = subject.pay(payment).await.kind();
    assert_eq!(kind, PayErrorKind::NotSent, "where nobody listens, nothing was sent");
    subject.status(payment, false).await;
}

/// What kind of error fits a fault: a server that does not take the credentials
/// or the request did nothing, and whatever else it answers leaves doubt.
fn fits(fault: Fault, kind: PayErrorKind) -> bool {
    use PayErrorKind::{Failed, NotSent, Uncertain};
    match fault {
        Fault::ClosedAtOnce => matches!(kind, NotSent | Uncertain),
        Fault::Status(401 | 403) | Fault::SlowBytes => kind == NotSent,
        Fault::Status(400 | 404) | Fault::Echo(400) => matches!(kind, NotSent | Failed | Uncertain),
        _ => kind == Uncertain,
    }
}

struct Subject<'a> {
    wallet: Arc<dyn Wallet>,
    secrets: &'a [&'a str],
    name: String,
}

impl Subject<'_> {
    async fn pay(&self, payment: &PaymentRequest) -> PayError {
        self.failure(timeout(TRIED_FOR + LATER, self.wallet.pay(payment)).await)
    }

    fn failure(&self, paid: Result<Result<Payment, PayError>, Elapsed>) -> PayError {
        let name = &self.name;
        let paid =
            paid.unwrap_or_else(|_| panic!("{name}: pay ends soon after the time that it may be tried"));
        let error = paid.map(drop).expect_err("a server that fails has paid nothing");
        self.holds_no_secret(&format!("{:?} {:#?}", self.wallet, self.wallet), "Debug of the wallet");
        self.holds_no_secret(&said(&error), "an error");
        error
    }

    async fn status(&self, payment: &PaymentRequest, unknown_fits: bool) {
        let name = &self.name;
        let status = timeout(LATER, self.wallet.status(payment.payment_hash))
            .await
            .unwrap_or_else(|_| panic!("{name}: status answers within {} s", LATER.as_secs()));
        match status {
            Ok(PaymentStatus::Unknown) if unknown_fits => {}
            Ok(status) => panic!("{name}: status is an error, not {status:?}"),
            Err(error) => self.holds_no_secret(&said(&error), "an error"),
        }
    }

    fn bounds(&self, server: &FaultServer, call: &str) {
        let (name, requests, sent) = (&self.name, server.requests(), server.sent());
        assert!(
            requests <= MOST_REQUESTS,
            "{name}: {call} asks {MOST_REQUESTS} times at most, not {requests} times"
        );
        let most = MOST_READ * u64::try_from(requests).unwrap_or(u64::MAX);
        assert!(sent <= most, "{name}: {call} stops reading an answer without end, not after {sent} bytes");
        assert!(!server.was_followed(), "{name}: {call} follows no redirect");
    }

    fn holds_no_secret(&self, text: &str, place: &str) {
        for secret in self.secrets {
            assert!(!text.contains(secret), "{}: {place} holds no secret", self.name);
        }
    }
}
