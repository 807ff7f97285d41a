//! A paid gRPC service and its client in one terminal: `cargo run --example tonic`.

mod weather;

use std::error::Error;
use std::pin::Pin;

use l402::{Access, Challenge, DevBackend, Gate, Grant, Issuer, L402Layer, Offer, Price};
use tokio_stream::{Stream, StreamExt as _};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::LayerExt as _;
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use weather::weather_client::WeatherClient;
use weather::weather_server::{Weather, WeatherServer};
use weather::{Empty, Place, Report, Summary};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Answer<T> = std::result::Result<Response<T>, Status>;
type Reports = Pin<Box<dyn Stream<Item = std::result::Result<Report, Status>> + Send>>;

struct Station;

#[tonic::async_trait]
impl Weather for Station {
    type WeekStream = Reports;
    type FollowStream = Reports;

    async fn today(&self, request: Request<Place>) -> Answer<Report> {
        // What the gate granted stands in the extensions.
        let grant = request.extensions().get::<Grant>().ok_or_else(|| Status::internal("no gate"))?;
        let left = grant.remaining().unwrap_or_default();
        match &*request.get_ref().name {
            // An error of the server gives the use back; any other answer is charged.
            "" => Err(Status::unavailable("the station does not answer")),
            name => Ok(Response::new(Report { text: format!("{name}: sun; {left} calls left") })),
        }
    }

    async fn week(&self, request: Request<Place>) -> Answer<Reports> {
        let name = request.into_inner().name;
        let days = ["sun", "rain", "wind"].map(|day| Ok(Report { text: format!("{name}: {day}") }));
        Ok(Response::new(Box::pin(tokio_stream::iter(days))))
    }

    async fn observe(&self, request: Request<Streaming<Report>>) -> Answer<Summary> {
        let (mut stream, mut reports) = (request.into_inner(), 0);
        while stream.message().await?.is_some() {
            reports += 1;
        }
        Ok(Response::new(Summary { reports }))
    }

    async fn follow(&self, request: Request<Streaming<Place>>) -> Answer<Reports> {
        let places = request.into_inner();
        Ok(Response::new(Box::pin(
            places.map(|place| place.map(|place| Report { text: format!("{}: sun", place.name) })),
        )))
    }

    async fn ping(&self, _: Request<Empty>) -> Answer<Empty> {
        Ok(Response::new(Empty {}))
    }
}

/// Serves 50 calls for 3 sat; `Ping` and the health service are free.
fn serve(wallet: &DevBackend) -> Result<String> {
    let issuer = Issuer::dev(wallet);
    let gate = Gate::builder(&issuer, "weather", Offer::new(Price::sat(3), Access::uses(50)))
        .free_if(|head| head.uri.path() == "/weather.Weather/Ping")
        .build()?;
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let url = format!("http://{}", incoming.local_addr()?);
    let server = Server::builder()
        .add_service(L402Layer::new(gate).named_layer(WeatherServer::new(Station)))
        .add_service(health)
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<()> {
    let wallet = DevBackend::new();
    let channel = Channel::from_shared(serve(&wallet)?)?.connect().await?;
    let place = |name: &str| Place { name: name.into() };

    println!("1. Without a token: what is free, and a method that is not.");
    let mut client = WeatherClient::new(channel.clone());
    client.ping(Empty {}).await?;
    println!("   Ping: OK");
    let refused = client.today(place("Lisbon")).await.expect_err("nobody paid");
    println!("   Today: {:?}, {}", refused.code(), refused.message());

    println!("2. Pay the invoice in the metadata, and send token and preimage with every call.");
    let value = refused.metadata().get("www-authenticate").ok_or("no challenge")?;
    let challenge: Challenge = value.to_str()?.parse()?;
    let preimage = wallet.pay(challenge.invoice())?;
    let mut credential = MetadataValue::try_from(challenge.token().credential(&preimage).as_bytes())?;
    credential.set_sensitive(true);
    let mut client = WeatherClient::with_interceptor(channel, move |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", credential.clone());
        Ok(request)
    });

    let answer = client.today(place("Lisbon")).await?;
    println!("   Today: {} ({})", answer.get_ref().text, left(answer.metadata()));
    let (metadata, week, _) = client.week(place("Oslo")).await?.into_parts();
    let week = week.collect::<std::result::Result<Vec<_>, _>>().await?;
    println!("   Week, a stream from the server: {} reports ({})", week.len(), left(&metadata));
    let reports = tokio_stream::iter(["fog", "hail"].map(|text| Report { text: text.into() }));
    let answer = client.observe(reports).await?;
    println!(
        "   Observe, a stream to it: {} reports ({})",
        answer.get_ref().reports,
        left(answer.metadata())
    );
    let places = tokio_stream::iter(["Rome", "Cairo"].map(place));
    let (metadata, mut sky, _) = client.follow(places).await?.into_parts();
    let first = sky.message().await?.ok_or("an empty stream")?;
    println!("   Follow, both ways: {} ({})", first.text, left(&metadata));

    println!("3. An error of the server costs nothing.");
    let failed = client.today(place("")).await.expect_err("the station does not answer");
    println!("   Today: {:?}, {}", failed.code(), failed.message());
    let answer = client.today(place("Lisbon")).await?;
    println!("   Today: {}", answer.get_ref().text);
    Ok(())
}

fn left(metadata: &MetadataMap) -> &str {
    metadata.get("ratelimit").and_then(|value| value.to_str().ok()).unwrap_or("not counted")
}
