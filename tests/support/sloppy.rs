//! A backend that speaks HTTP as it should, but for one flaw.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use l402::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend, PaymentHash,
};
use tokio::net::TcpStream;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    SecretInDebug,
    QuotesTheAnswer,
    SendsNoCredential,
    FollowsRedirects,
    ReadsAll,
    AsksAgain,
    AlwaysConnect,
    AuthIsBackend,
    ForgetsRetryAfter,
    AnySuccessIsOpen,
    NotFoundIsClosed,
    AlwaysHealthy,
    BusyForEver,
    AsksNothing,
}

pub struct Sloppy {
    address: String,
    flaw: Flaw,
    busy: AtomicBool,
}

impl Sloppy {
    pub fn new(base_url: &str, flaw: Flaw) -> Self {
        let address = base_url.strip_prefix("http://").unwrap().to_owned();
        Self { address, flaw, busy: AtomicBool::new(false) }
    }

    async fn ask(&self, address: &str, path: &str) -> Result<Response<Bytes>, BackendError> {
        let stream = TcpStream::connect(address).await.map_err(BackendError::connect)?;
        let broken = |cause| BackendError::new(BackendErrorKind::InvalidResponse, cause);
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the sender.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::post(path).header("host", address);
        if self.flaw != Flaw::SendsNoCredential {
            request = request.header("x-api-key", "s3cret");
        }
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let most = if self.flaw == Flaw::ReadsAll { usize::MAX } else { 10_000 };
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|cause| BackendError::new(BackendErrorKind::InvalidResponse, cause))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn call(&self, path: &str) -> Result<serde_json::Value, BackendError> {
        if self.flaw == Flaw::BusyForEver && self.busy.swap(true, Ordering::SeqCst) {
            return Err(BackendError::new(BackendErrorKind::Backend, "one at a time"));
        }
        let mut answer = self.ask(&self.address, path).await;
        if self.flaw == Flaw::AsksAgain {
            for _ in 0..5 {
                answer = self.ask(&self.address, path).await;
            }
        }
        if let (Flaw::FollowsRedirects, Ok(response)) = (self.flaw, &answer) {
            if let Some(location) = response.headers().get("location") {
                let location = location.to_str().unwrap();
                let rest = location.strip_prefix("http://");
                let (address, path) = rest.map_or((&*self.address, location), |rest| {
                    let slash = rest.find('/').unwrap();
                    (&rest[..slash], &rest[slash..])
                });
                // There is no answer: the trap accepts, and no more.
                let followed = tokio::time::timeout(Duration::from_millis(20), self.ask(address, path)).await;
                drop(followed);
            }
        }
        self.busy.store(false, Ordering::SeqCst);
        let response = answer?;
        let kind = match response.status() {
            StatusCode::OK => {
                let body = serde_json::from_slice(response.body());
                let cause = "not JSON of ours";
                let good = body.ok().filter(|body: &serde_json::Value| body["good"] == true);
                return if self.flaw == Flaw::AnySuccessIsOpen {
                    Ok(serde_json::Value::Null)
                } else {
                    good.ok_or_else(|| BackendError::new(BackendErrorKind::InvalidResponse, cause))
                };
            }
            _ if self.flaw == Flaw::AlwaysConnect => BackendErrorKind::Connect,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.flaw != Flaw::AuthIsBackend => {
                BackendErrorKind::Auth
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                let wait = (self.flaw != Flaw::ForgetsRetryAfter).then_some(Duration::from_secs(wait));
                BackendErrorKind::RateLimited { retry_after: wait }
            }
            status if status.is_redirection() => BackendErrorKind::InvalidResponse,
            _ => BackendErrorKind::Backend,
        };
        let cause = if self.flaw == Flaw::QuotesTheAnswer {
            String::from_utf8_lossy(response.body()).into_owned()
        } else {
            response.status().to_string()
        };
        Err(BackendError::new(kind, cause))
    }
}

impl fmt::Debug for Sloppy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.flaw == Flaw::SecretInDebug { "Sloppy(s3cret)" } else { "Sloppy" })
    }
}

#[async_trait]
impl PaymentBackend for Sloppy {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, _: &InvoiceRequest) -> Result<Invoice, BackendError> {
        if self.flaw == Flaw::AsksNothing {
            return Err(BackendError::connect("in a bad mood"));
        }
        self.call("/create").await.map(|_| Invoice::from_bolt11("lnbcrt1"))
    }

    async fn look_up(&self, _: PaymentHash, _: Option<&str>) -> Result<InvoiceState, BackendError> {
        let told = self.call("/state").await;
        match told {
            Err(error) if self.flaw == Flaw::NotFoundIsClosed && format!("{error:?}").contains("404") => {
                Ok(InvoiceState::Closed)
            }
            told => told.map(|_| InvoiceState::Open),
        }
    }

    async fn check_health(&self) -> Result<(), BackendError> {
        if self.flaw == Flaw::AlwaysHealthy { Ok(()) } else { self.call("/health").await.map(drop) }
    }
}
