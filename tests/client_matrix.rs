//! The paying client against every kind of gate that the crate has, over
//! sockets, and what each costs.

#![allow(missing_docs)]

#[path = "support/wire.rs"]
mod wire;

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use l402::client::{Client, Payer};
use l402::{Access, DAY, Gate, GateBuilder, Grant, HOUR, IssuerBuilder, L402Layer, MINUTE, Offer, Price};
use wire::{Server, Shop, serve};

/// A server with one gate, and a client of it.
struct Site {
    server: Server,
    client: Client,
    shop: Shop,
}

async fn site(shop: Shop, offer: Offer, configure: impl FnOnce(GateBuilder) -> GateBuilder) -> Site {
    let gate = configure(Gate::builder(&shop.issuer, "api", offer)).build().unwrap();
    let handler = async |grant: Grant| format!("{:?}", grant.remaining());
    let app = Router::new()
        .route("/a", get(handler))
        .route("/b", get(handler))
        .route_layer(L402Layer::new(gate))
        .layer(Extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1)))));
    let client = Client::new(Payer::new(shop.wallet.clone()).with_clock(shop.clock.clone()));
    Site { server: serve(app).await, client, shop }
}

impl Site {
    /// Status, body and what was paid for it, in msat.
    async fn get(&self, path: &str) -> (u16, String, u64) {
        let url = format!("http://{}{path}", self.server.address);
        let paid = self.client.pay(url, 90_000).await.unwrap();
        let body = String::from_utf8(paid.response.body().to_vec()).unwrap();
        (paid.response.status().as_u16(), body, paid.receipt.map_or(0, |receipt| receipt.cost_msat()))
    }

    async fn gives(&self, path: &str, body: &str, cost_msat: u64) {
        assert_eq!(self.get(path).await, (200, body.to_owned(), cost_msat), "{path}");
    }
}

fn sells(access: Access) -> Offer {
    Offer::new(Price::sat(21), access)
}

#[tokio::test]
async fn what_is_metered_is_bought_when_it_is_used_up() {
    let site = site(Shop::new(), sells(Access::uses(2)), |gate| gate).await;
    for (left, cost_msat) in [(1, 21_000), (0, 0), (1, 21_000), (0, 0)] {
        site.gives("/a", &format!("Some({left})"), cost_msat).await;
    }
}

#[tokio::test]
async fn a_balance_is_drawn_on_by_each_path_until_it_is_too_small() {
    let cost = |gate: GateBuilder| gate.with_cost_fn(|head| if head.uri.path() == "/a" { 1 } else { 6 });
    let site = site(Shop::new(), sells(Access::balance(10)), cost).await;
    for (path, left, cost_msat) in [("/b", 4, 21_000), ("/a", 3, 0), ("/b", 4, 21_000), ("/a", 3, 0)] {
        site.gives(path, &format!("Some({left})"), cost_msat).await;
    }
}

#[tokio::test]
async fn a_pass_is_bought_when_it_has_expired() {
    let site = site(Shop::new(), sells(Access::pass(HOUR)), |gate| gate).await;
    for cost_msat in [21_000, 0, 0] {
        site.gives("/a", "None", cost_msat).await;
    }
    site.shop.clock.advance(HOUR + 10 * MINUTE);
    for cost_msat in [21_000, 0] {
        site.gives("/b", "None", cost_msat).await;
    }
}

#[tokio::test]
async fn a_rate_is_waited_for_and_not_bought_again() {
    let site = site(Shop::new(), sells(Access::pass(DAY).rate(1, HOUR)), |gate| gate).await;
    site.gives("/a", "None", 21_000).await;
    let (status, _, cost_msat) = site.get("/a").await;
    assert_eq!((status, cost_msat), (StatusCode::TOO_MANY_REQUESTS.as_u16(), 0));
    site.shop.clock.advance(HOUR);
    site.gives("/a", "None", 0).await;
}

#[tokio::test]
async fn of_several_offers_the_first_is_bought() {
    let more = |gate: GateBuilder| {
        gate.add_offer(Offer::new(Price::sat(80), Access::uses(100)).with_id("many"))
            .add_offer(Offer::new(Price::sat(1), Access::once()).with_id("one"))
    };
    let site = site(Shop::new(), sells(Access::uses(2)), more).await;
    let url = format!("http://{}/a", site.server.address);
    let error = Client::new(site.client.payer().clone().dry_run()).get(url).await.unwrap_err();
    let quote = error.quote().unwrap();
    assert_eq!((quote.amount_msat, quote.services.clone()), (21_000, vec!["api".to_owned()]));
    let body: serde_json::Value = serde_json::from_slice(quote.body.as_ref().unwrap()).unwrap();
    assert_eq!(body["l402"]["offers"].as_array().unwrap().len(), 3, "{body}");
    site.gives("/a", "Some(1)", 21_000).await;
}

#[tokio::test]
async fn a_capability_and_a_tier_are_bought_and_used() {
    let needs = |gate: GateBuilder| gate.require_capability("read").require_tier(2);
    let offer = sells(Access::uses(3)).with_capabilities(&["read", "write"]).with_tier(2);
    let site = site(Shop::new(), offer, needs).await;
    for (left, cost_msat) in [(2, 21_000), (1, 0)] {
        site.gives("/a", &format!("Some({left})"), cost_msat).await;
    }
}

#[tokio::test]
async fn a_price_by_the_request_is_paid_as_it_is_asked() {
    let price = |head: &http::request::Parts| Ok(Price::sat(if head.uri.path() == "/a" { 10 } else { 30 }));
    let site = site(Shop::new(), Offer::priced(price, Access::uses(9)), |gate| gate).await;
    site.gives("/a", "Some(8)", 10_000).await;
    site.gives("/b", "Some(8)", 30_000).await;
    site.gives("/a", "Some(7)", 0).await;
    site.gives("/b", "Some(7)", 0).await;
}

#[tokio::test]
async fn strict_settlement_is_asked_of_the_node_and_costs_nothing_more() {
    let shop = Shop::with(IssuerBuilder::with_strict_settlement);
    let site = site(shop, sells(Access::uses(3)), |gate| gate).await;
    for (left, cost_msat) in [(2, 21_000), (1, 0)] {
        site.gives("/a", &format!("Some({left})"), cost_msat).await;
    }
}

#[tokio::test]
async fn what_is_free_is_not_paid_and_needs_no_token() {
    let free = |gate: GateBuilder| gate.free_if(|head| head.uri.path() == "/a");
    let site = site(Shop::new(), sells(Access::uses(3)), free).await;
    site.gives("/a", "None", 0).await;
    site.gives("/b", "Some(2)", 21_000).await;
    site.gives("/a", "None", 0).await;
    site.gives("/b", "Some(1)", 0).await;
}

#[tokio::test]
async fn free_requests_come_first_and_a_token_is_not_spent_on_them() {
    let site = site(Shop::new(), sells(Access::uses(3)), |gate| gate.with_free_requests(2, HOUR)).await;
    for cost_msat in [0, 0, 21_000, 0] {
        let (status, _, paid_msat) = site.get("/a").await;
        assert_eq!((status, paid_msat), (200, cost_msat));
    }
    assert_eq!(site.client.payer().spent().await.unwrap().total_msat, 21_000);
}
