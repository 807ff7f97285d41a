//! Every token at every gate: only the diagonal is admitted.

#[path = "support/wire.rs"]
mod wire;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use l402::{
    Access, Currency, DAY, DevBackend, ExchangeRate, Gate, Grant, HOUR, Issuer, KeyRing, L402Layer, MINUTE,
    MemoryLedger, Network, Offer, Paid, Price, RootKey,
};
use wire::{Paid as Token, ROOT, Shop, serve};

/// One price for all, so that no token is refused for what it cost.
const PRICE: Price = Price::sat(10);
const PRICE_IN_CENTS: Price = Price::minor(1, Currency::new("USD"));

/// The rate at which they are one price.
async fn rate(_: Currency) -> Result<ExchangeRate, Box<dyn Error + Send + Sync>> {
    Ok(ExchangeRate::per_bitcoin(10_000_000)?)
}

/// Services that are easily mistaken for each other: names that begin and end
/// alike, one price, one offer id, and every kind of access.
fn services(issuer: &Issuer) -> Vec<(&'static str, Gate)> {
    let pass = || Offer::new(PRICE, Access::pass(HOUR));
    let named = ["a", "ab", "abc", "abc-", "a-b", "b", "api", "api-v1", "api-v10", "dynam", "once-", "offer"];
    let mut services: Vec<_> =
        named.into_iter().map(|name| (name, Gate::new(issuer, name, pass()).unwrap())).collect();
    let fixed = |access| Offer::new(PRICE, access);
    let dynamic = |access| Offer::priced(|_| Ok(PRICE), access);
    for (name, offer) in [
        ("dynamic", dynamic(Access::pass(HOUR))),
        ("dynamic-uses", dynamic(Access::uses(100))),
        ("fiat", Offer::new(PRICE_IN_CENTS, Access::pass(HOUR))),
        ("fiat-dynamic", Offer::priced(|_| Ok(PRICE_IN_CENTS), Access::uses(100))),
        ("once", fixed(Access::once())),
        ("uses", fixed(Access::uses(100).within(DAY))),
        ("balance", fixed(Access::balance(100))),
        ("rated", fixed(Access::pass(HOUR).rate(100, MINUTE))),
    ] {
        services.push((name, Gate::new(issuer, name, offer).unwrap()));
    }
    let tiered = Gate::builder(issuer, "tiered", pass().with_tier(3).with_capabilities(&["read"]));
    services.push(("tiered", tiered.require_tier(3).require_capability("read").build().unwrap()));
    services
}

/// A gate with a route for each of the ways in, and what was bought there.
struct Cell {
    issuer: &'static str,
    service: &'static str,
    token: Token,
}

impl Cell {
    fn path(&self, way: &str) -> String {
        format!("/{}/{way}/{}", self.issuer, self.service)
    }
}

/// Routes to these gates, by a layer and by the extractor.
fn routes(issuer: &str, services: &[(&str, Gate)], runs: &Arc<AtomicUsize>) -> Router {
    services.iter().fold(Router::new(), |app, (name, gate)| {
        let (a, b) = (runs.clone(), runs.clone());
        let by_layer = get(async move |grant: Grant| {
            a.fetch_add(1, Ordering::SeqCst);
            grant.service().to_owned()
        });
        let by_paid = get(async move |paid: Paid| {
            b.fetch_add(1, Ordering::SeqCst);
            let service = paid.grant().service().to_owned();
            paid.settle(service)
        });
        app.route(&format!("/{issuer}/layer/{name}"), by_layer.route_layer(L402Layer::new(gate.clone())))
            .route(&format!("/{issuer}/paid/{name}"), by_paid.with_state(gate.clone()))
    })
}

/// Another server, of the same services, whose key is its own.
fn another() -> Shop {
    let Shop { clock, .. } = Shop::new();
    let wallet = DevBackend::with_clock(clock.clone());
    let issuer = Issuer::builder(KeyRing::new(RootKey::new([9; 32]).unwrap()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .with_rates(HOUR, rate)
        .with_clock(clock.clone())
        .with_server_challenges(u64::MAX, HOUR);
    Shop { issuer: issuer.build().unwrap(), clock, wallet }
}

#[tokio::test]
async fn of_all_tokens_at_all_gates_the_diagonal_alone_is_admitted() {
    let (ours, theirs) = (Shop::with(|builder| builder.with_rates(HOUR, rate)), another());
    let runs = Arc::new(AtomicUsize::new(0));
    let ours_sold = services(&ours.issuer);
    let mut theirs_sold = services(&theirs.issuer);
    theirs_sold.retain(|(name, _)| ["a", "dynamic", "fiat", "uses"].contains(name));
    let app = routes("ours", &ours_sold, &runs).merge(routes("theirs", &theirs_sold, &runs));
    let server = serve(app).await;

    let mut cells = Vec::new();
    for (shop, issuer, sold) in [(&ours, "ours", &ours_sold), (&theirs, "theirs", &theirs_sold)] {
        for (n, (service, _)) in sold.iter().enumerate() {
            // What was bought up to here was signed with a key that is old by now.
            if n == sold.len() / 2 && issuer == "ours" {
                let ring = KeyRing::new(RootKey::new([1; 32]).unwrap());
                shop.issuer.set_keys(&ring.add_honored(RootKey::new(ROOT).unwrap())).unwrap();
            }
            let refused = server.get(&format!("/{issuer}/layer/{service}"), &[]).await;
            assert_eq!(refused.json()["l402"]["price_msat"], 10_000, "{service}");
            let token = shop.pay(&refused);
            cells.push(Cell { issuer, service, token });
        }
    }
    assert!(cells.len() >= 12);

    let mut admitted = 0;
    for at in &cells {
        for bought in &cells {
            for way in ["layer", "paid"] {
                let answer = server.get(&at.path(way), &[&bought.token.line()]).await;
                let context = format!("{} at {}", bought.path("token"), at.path(way));
                let same = (at.issuer, at.service) == (bought.issuer, bought.service);
                let refused = match (at.issuer == bought.issuer, same, at.service, way) {
                    (_, true, "once", "paid") => Some("used_up"),
                    (_, true, ..) => None,
                    (true, ..) => Some("wrong_service"),
                    (false, ..) => Some("unknown_key"),
                };
                if let Some(code) = refused {
                    assert_eq!((answer.status, &*answer.code()), (402, code), "{context}");
                } else {
                    assert_eq!((answer.status, answer.text()), (200, at.service), "{context}");
                    admitted += 1;
                }
                assert_eq!(runs.load(Ordering::SeqCst), admitted, "{context}");
            }
        }
    }
    assert_eq!(admitted, 2 * cells.len() - 1, "once opens once");

    // Nothing was taken from a token at a gate that is not its own.
    for cell in &cells {
        let shop = if cell.issuer == "ours" { &ours } else { &theirs };
        let account = shop.issuer.account(cell.token.preimage.payment_hash()).await.unwrap();
        let used = match cell.service {
            "once" => Some(1),
            "uses" | "balance" | "dynamic-uses" | "fiat-dynamic" => Some(2),
            _ => None,
        };
        assert_eq!(account.map(|account| account.used), used, "{}", cell.path("token"));
    }
}
