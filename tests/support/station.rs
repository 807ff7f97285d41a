//! A gRPC service that counts its calls, on loopback, and clients of it.

#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "../../examples/weather/mod.rs"]
pub mod weather;

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use l402::{Challenge, Grant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap};
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::transport::Channel;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Layer, Service};
use weather::weather_client::WeatherClient;
use weather::weather_server::{Weather, WeatherServer};
use weather::{Empty, Place, Report, Summary};

/// What a handler saw of a request.
pub struct Seen {
    pub grant: Option<Grant>,
    /// The metadata in which credentials stand.
    pub secrets: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Station {
    calls: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Told when a call begins that never ends.
    pub hangs: Arc<Notify>,
}

type Reports = Pin<Box<dyn Stream<Item = Result<Report, Status>> + Send>>;

impl Station {
    pub fn server(&self) -> WeatherServer<Self> {
        WeatherServer::new(self.clone())
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn last_seen(&self) -> Seen {
        self.seen.lock().unwrap().pop().expect("a call")
    }

    fn note<T>(&self, request: &Request<T>) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let secrets = ["authorization", "macaroon", "token"].into_iter();
        let secrets = secrets.flat_map(|name| request.metadata().get_all(name));
        self.seen.lock().unwrap().push(Seen {
            grant: request.extensions().get().cloned(),
            secrets: secrets.map(|value| value.to_str().unwrap().to_owned()).collect(),
        });
    }

    /// `code N` fails with this code, in the head.
    async fn obey(&self, place: &Place) -> Result<(), Status> {
        if place.name == "nowhere, ever" {
            self.hangs.notify_one();
            std::future::pending::<()>().await;
        }
        match place.name.strip_prefix("code ") {
            Some(code) => Err(Status::new(Code::from_i32(code.parse().unwrap()), "as asked")),
            None => Ok(()),
        }
    }
}

fn report(place: &Place) -> Report {
    Report { text: format!("{}: sun", place.name) }
}

#[tonic::async_trait]
impl Weather for Station {
    type WeekStream = Reports;
    type FollowStream = Reports;

    async fn today(&self, request: Request<Place>) -> Result<Response<Report>, Status> {
        self.note(&request);
        self.obey(request.get_ref()).await?;
        Ok(Response::new(report(request.get_ref())))
    }

    /// Seven reports; `late` fails after the first.
    async fn week(&self, request: Request<Place>) -> Result<Response<Reports>, Status> {
        self.note(&request);
        let place = request.into_inner();
        self.obey(&place).await?;
        let reports: Vec<_> = if place.name == "late" {
            vec![Ok(report(&place)), Err(Status::unavailable("later"))]
        } else {
            (0..7).map(|_| Ok(report(&place))).collect()
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(reports))))
    }

    async fn observe(&self, request: Request<Streaming<Report>>) -> Result<Response<Summary>, Status> {
        self.note(&request);
        let (mut stream, mut reports) = (request.into_inner(), 0);
        while let Some(report) = stream.message().await? {
            self.obey(&Place { name: report.text }).await?;
            reports += 1;
        }
        Ok(Response::new(Summary { reports }))
    }

    async fn follow(&self, request: Request<Streaming<Place>>) -> Result<Response<Reports>, Status> {
        self.note(&request);
        let mut places = request.into_inner();
        // The head goes out when the first place is there.
        let first = places.message().await?.ok_or_else(|| Status::invalid_argument("no place"))?;
        self.obey(&first).await?;
        let all = tokio_stream::once(Ok(first)).chain(places);
        Ok(Response::new(Box::pin(all.map(|place| place.map(|place| report(&place))))))
    }

    async fn ping(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.note(&request);
        Ok(Response::new(Empty {}))
    }
}

/// The four kinds of call.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Unary,
    FromServer,
    ToServer,
    BothWays,
}

pub const KINDS: [Kind; 4] = [Kind::Unary, Kind::FromServer, Kind::ToServer, Kind::BothWays];

/// Metadata that go with every call.
#[derive(Clone, Default)]
pub struct With(Vec<(&'static str, String)>);

impl Interceptor for With {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            request.metadata_mut().append(MetadataKey::<Ascii>::from_static(name), value.parse().unwrap());
        }
        Ok(request)
    }
}

pub type Client = WeatherClient<InterceptedService<Channel, With>>;

/// A server on an ephemeral port of loopback, until the test ends.
pub struct Site {
    pub address: SocketAddr,
    pub channel: Channel,
    task: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a router, whatever its layers are.
pub async fn serve<L, B>(router: Router<L>) -> Site
where
    L: Layer<Routes> + Send + 'static,
    L::Service: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    L::Service: Clone + Send + 'static,
    <L::Service as Service<http::Request<Body>>>::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let task = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    Site { address, channel: endpoint.connect().await.unwrap(), task }
}

impl Site {
    pub fn client(&self, metadata: &[(&'static str, String)]) -> Client {
        WeatherClient::with_interceptor(self.channel.clone(), With(metadata.to_vec()))
    }
}

/// Makes a call of this kind, reads it to its end, and gives the head's
/// metadata and how many messages came.
pub async fn call(client: &mut Client, kind: Kind, name: &str) -> Result<(MetadataMap, u32), Status> {
    let place = Place { name: name.into() };
    let count = async |response: Response<Streaming<Report>>| {
        let (metadata, mut stream, _) = response.into_parts();
        let mut messages = 0;
        while stream.message().await?.is_some() {
            messages += 1;
        }
        Ok((metadata, messages))
    };
    match kind {
        Kind::Unary => {
            let response = client.today(place).await?;
            assert_eq!(response.get_ref().text, format!("{name}: sun"));
            Ok((response.into_parts().0, 1))
        }
        Kind::FromServer => count(client.week(place).await?).await,
        Kind::ToServer => {
            let reports = vec![Report { text: name.into() }; 3];
            let response = client.observe(tokio_stream::iter(reports)).await?;
            assert_eq!(response.get_ref().reports, 3);
            Ok((response.into_parts().0, 1))
        }
        Kind::BothWays => count(client.follow(tokio_stream::iter(vec![place; 2])).await?).await,
    }
}

/// The challenge that a refused call carries.
pub fn challenge(status: &Status) -> Challenge {
    let lines: Vec<_> = status.metadata().get_all("www-authenticate").iter().collect();
    assert_eq!(lines.len(), 1, "{status:?}");
    lines[0].to_str().unwrap().parse().unwrap()
}
