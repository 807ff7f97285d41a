//! Many gates of one issuer: a token opens what it was sold for, as long as it
//! was sold for, and nothing else.
#![allow(missing_docs)]

use http::request::Parts;
use l402::{
    Access, Clock as _, DAY, DevBackend, FixedClock, Gate, HOUR, Issuer, KeyRing, MINUTE, MemoryLedger,
    Network, Offer, Price, Refusal, Revocation, RootKey,
};

#[path = "support/sale.rs"]
mod sale;

use sale::{NOW, Paid, buy, get};

struct Shop {
    clock: FixedClock,
    wallet: DevBackend,
    issuer: Issuer,
}

impl Shop {
    fn new() -> Self {
        let clock = FixedClock::at(NOW);
        let wallet = DevBackend::with_clock(clock.clone());
        let issuer = Issuer::builder(KeyRing::new(key(1)), wallet.clone())
            // Its clock stands still, and more is refused than a server sells at once.
            .with_server_challenges(u64::MAX, l402::MINUTE)
            .with_network(Network::Regtest)
            .with_ledger(MemoryLedger::new())
            .with_clock(clock.clone())
            .build()
            .unwrap();
        Self { clock, wallet, issuer }
    }

    fn gate(&self, name: &str, offer: Offer) -> Gate {
        Gate::new(&self.issuer, name, offer).unwrap()
    }

    async fn buy(&self, gate: &Gate) -> Paid {
        buy(gate, &self.wallet, get("/")).await
    }

    async fn buy_at(&self, gate: &Gate, path: &str) -> Paid {
        buy(gate, &self.wallet, get(path)).await
    }
}

fn key(byte: u8) -> RootKey {
    RootKey::new([byte; 32]).unwrap()
}

fn pass() -> Offer {
    Offer::new(Price::sat(10), Access::pass(HOUR))
}

/// `/20` costs 20 sat, and so on.
fn by_path() -> Offer {
    let price = |head: &Parts| {
        let sat: u64 = head.uri.path()[1..].parse().unwrap_or(10);
        Ok(Price::try_msat(sat * 1000)?)
    };
    Offer::priced(price, Access::pass(HOUR))
}

/// The refusal, or `None` where the gate admits.
async fn refusal(token: &Paid, gate: &Gate) -> Option<Refusal> {
    refusal_at(token, gate, "/").await
}

async fn refusal_at(token: &Paid, gate: &Gate, path: &str) -> Option<Refusal> {
    token.admit(gate, &get(path)).await.err()
}

/// Gates of one issuer with names that are easily mistaken for each other, at
/// one price, of every kind of offer.
fn lookalikes(shop: &Shop) -> Vec<(String, Gate)> {
    let sat = || Price::sat(10);
    let mut gates = Vec::new();
    // Prefixes and suffixes of each other, and the words that caveats are made of.
    for name in ["a", "ab", "a-b", "abc", "-a", "a-", "aa", "services", "preimage", "offer", "method", "0"] {
        gates.push((name.to_owned(), shop.gate(name, pass())));
    }
    gates.push(("a".repeat(64), shop.gate(&"a".repeat(64), pass())));
    gates.push(("a".repeat(63), shop.gate(&"a".repeat(63), pass())));
    gates.push(("priced".into(), shop.gate("priced", by_path())));
    gates.push(("uses".into(), shop.gate("uses", Offer::new(sat(), Access::uses(100).within(DAY)))));
    gates.push(("once".into(), shop.gate("once", Offer::new(sat(), Access::once()))));
    let tiered = Gate::builder(&shop.issuer, "tiered", pass().with_tier(255)).require_tier(255);
    gates.push(("tiered".into(), tiered.build().unwrap()));
    let capable = Gate::builder(&shop.issuer, "capable", pass().with_capabilities(&["read", "write"]));
    gates.push(("capable".into(), capable.require_capability("write").build().unwrap()));
    let multi = Gate::builder(&shop.issuer, "multi", pass())
        .add_offer(Offer::new(sat(), Access::uses(3)).with_id("three"))
        .add_offer(pass().with_id("pro").with_tier(1));
    gates.push(("multi".into(), multi.build().unwrap()));
    gates
}

#[tokio::test]
async fn a_token_opens_its_own_gate_and_no_other() {
    let shop = Shop::new();
    let gates = lookalikes(&shop);
    assert!(gates.len() >= 12);
    for (seller, gate) in &gates {
        let token = shop.buy(gate).await;
        for (name, gate) in &gates {
            let expected = (name != seller).then_some(Refusal::WrongService);
            assert_eq!(refusal(&token, gate).await, expected, "a token of {seller} at {name}");
        }
    }
}

#[tokio::test]
async fn a_holder_cannot_make_a_token_open_another_gate() {
    let shop = Shop::new();
    let gates = lookalikes(&shop);
    for (seller, gate) in &gates {
        let token = shop.buy(gate).await;
        for (name, gate) in gates.iter().filter(|(name, _)| name != seller) {
            let mut forged = token.clone();
            for caveat in [
                format!("services={name}:0"),
                format!("{name}_offer=default"),
                format!("{name}_capabilities=read,write"),
                format!("{name}_valid_until=4000000000"),
            ] {
                forged = forged.with(caveat);
                assert_eq!(refusal(&forged, gate).await, Some(Refusal::WrongService), "{seller} at {name}");
            }
            let both = token.with(format!("services={seller}:0,{name}:0"));
            assert_eq!(refusal(&both, gate).await, Some(Refusal::WrongService), "{seller} at {name}");
        }
    }
}

#[tokio::test]
async fn gates_of_one_service_open_by_tier_and_capability() {
    let shop = Shop::new();
    let sold = |id: &str, tier, capabilities: &[&str]| {
        pass().with_id(id).with_tier(tier).with_capabilities(capabilities)
    };
    let api = Gate::builder(&shop.issuer, "api", sold("basic", 0, &["read"]))
        .add_offer(sold("writer", 0, &["read", "write"]))
        .add_offer(sold("pro", 2, &["read"]));
    let gates = [
        api.clone().require_capability("read").build().unwrap(),
        api.clone().require_capability("write").build().unwrap(),
        api.clone().require_tier(1).build().unwrap(),
        api.require_tier(2).require_capability("read").build().unwrap(),
    ];
    let (tier, capability) = (Some(Refusal::TierTooLow), Some(Refusal::MissingCapability));
    let rows = [
        ("basic", [None, capability.clone(), tier.clone(), tier.clone()]),
        ("writer", [None, None, tier.clone(), tier]),
        ("pro", [None, capability.clone(), None, None]),
        ("pro", [None, capability, None, None]),
    ];
    // Each gate sells the first offer that is enough for it.
    for ((offer, expected), seller) in rows.into_iter().zip(&gates) {
        let token = shop.buy(seller).await;
        assert_eq!(token.caveats()[1], format!("api_offer={offer}"));
        for (gate, expected) in gates.iter().zip(expected) {
            assert_eq!(refusal(&token, gate).await, expected, "{offer} at {gate:?}");
        }
    }
}

#[tokio::test]
async fn a_bundle_opens_what_it_names_and_nothing_else() {
    let shop = Shop::new();
    let bundle =
        pass().with_id("all").with_tier(1).with_capabilities(&["read"]).also_opens(&["archive", "sport"]);
    let news = shop.gate("news", bundle);
    let archive = Gate::builder(&shop.issuer, "archive", pass().with_capabilities(&["read", "write"]));
    let write = archive.clone().require_capability("write").build().unwrap();
    let archive = archive.require_capability("read").build().unwrap();
    let sport = Gate::builder(&shop.issuer, "sport", pass().with_tier(1)).require_tier(1).build().unwrap();
    let weather = shop.gate("weather", pass());
    let new = shop.gate("new", pass());

    let token = shop.buy(&news).await;
    for (gate, service, offer) in
        [(&news, "news", "all"), (&archive, "archive", "news/all"), (&sport, "sport", "news/all")]
    {
        let grant = token.grant(gate, &get("/")).await.unwrap();
        assert_eq!((grant.service(), grant.offer()), (service, Some(offer)));
        assert_eq!((grant.tier(), grant.remaining()), (1, None), "{service}");
        assert_eq!(grant.payment_hash(), Some(token.hash()), "{service}");
    }
    assert_eq!(refusal(&token, &write).await, Some(Refusal::MissingCapability));
    for gate in [&weather, &new] {
        assert_eq!(refusal(&token, gate).await, Some(Refusal::WrongService), "{gate:?}");
    }
    // What the others sell opens themselves alone.
    let token = shop.buy(&archive).await;
    assert_eq!(refusal(&token, &archive).await, None);
    for gate in [&news, &sport] {
        assert_eq!(refusal(&token, gate).await, Some(Refusal::WrongService), "{gate:?}");
    }
    // A holder leaves one of them out, and cannot bring it back.
    let token = shop.buy(&news).await.with("services=news:1,sport:1");
    assert_eq!(refusal(&token, &archive).await, Some(Refusal::WrongService));
    assert_eq!(refusal(&token, &sport).await, None);
    let token = token.with("services=news:1,archive:1");
    for gate in [&archive, &sport, &news] {
        assert!(refusal(&token, gate).await.is_some(), "{gate:?}");
    }
}

#[tokio::test]
async fn a_bundle_has_one_count() {
    let shop = Shop::new();
    let counted = || Offer::new(Price::sat(10), Access::uses(5).within(DAY));
    let news = shop.gate("news", counted().also_opens(&["archive", "sport"]));
    let archive = shop.gate("archive", counted());
    let sport = shop.gate("sport", pass());

    let token = shop.buy(&news).await;
    let mut left = Vec::new();
    for gate in [&news, &archive, &sport, &archive, &news] {
        left.push(token.grant(gate, &get("/")).await.unwrap().remaining());
    }
    assert_eq!(left, [4, 3, 2, 1, 0].map(Some));
    for gate in [&news, &archive, &sport] {
        assert_eq!(refusal(&token, gate).await, Some(Refusal::UsedUp), "{gate:?}");
    }
    let account = shop.issuer.account(token.hash()).await.unwrap().unwrap();
    assert_eq!((account.limit, account.used), (5, 5));

    // Another bundle has another count.
    let token = shop.buy(&news).await;
    assert_eq!(token.grant(&archive, &get("/")).await.unwrap().remaining(), Some(4));
}

#[tokio::test]
async fn a_bundle_keeps_its_expiry_everywhere() {
    let shop = Shop::new();
    let news = shop.gate("news", pass().also_opens(&["archive", "sport"]));
    let archive = shop.gate("archive", Offer::new(Price::sat(10), Access::pass(30 * DAY)));
    let sport = shop.gate("sport", Offer::new(Price::sat(10), Access::pass(MINUTE)));
    let gates = [&news, &archive, &sport];

    let token = shop.buy(&news).await;
    let until = shop.clock.now() + 5 * MINUTE + HOUR;
    for gate in gates {
        assert_eq!(token.grant(gate, &get("/")).await.unwrap().expires_at(), Some(until), "{gate:?}");
    }
    // A holder may end it earlier for one of them.
    let shorter = token.with(format!("archive_valid_until={}", NOW + 10));
    assert_eq!(refusal(&shorter, &archive).await, None);
    shop.clock.advance(4 * MINUTE + HOUR);
    assert_eq!(refusal(&shorter, &archive).await, Some(Refusal::Expired));
    assert_eq!(refusal(&shorter, &sport).await, None);
    shop.clock.advance(MINUTE);
    for gate in gates {
        assert_eq!(refusal(&token, gate).await, Some(Refusal::Expired), "{gate:?}");
    }
}

#[tokio::test]
async fn an_old_key_is_honored_while_it_is_in_the_ring() {
    let shop = Shop::new();
    let metered = Offer::new(Price::sat(10), Access::uses(100).within(DAY));
    let gates = [shop.gate("pass", pass()), shop.gate("metered", metered)];
    for gate in &gates {
        shop.issuer.set_keys(&KeyRing::new(key(1))).unwrap();
        let old = shop.buy(gate).await;

        shop.issuer.set_keys(&KeyRing::new(key(2)).add_honored(key(1))).unwrap();
        let new = shop.buy(gate).await;
        assert_ne!(old.key_id(), new.key_id(), "new tokens are signed with the new key");
        assert_eq!(refusal(&old, gate).await, None);
        assert_eq!(refusal(&new, gate).await, None);

        // A ring that does not build changes nothing.
        assert!(shop.issuer.set_keys(&KeyRing::new(key(3)).add_honored(key(3))).is_err());
        assert_eq!(refusal(&old, gate).await, None);

        shop.issuer.set_keys(&KeyRing::new(key(2))).unwrap();
        let refused = refusal(&old, gate).await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.code()), (402, "unknown_key"));
        assert_eq!(refusal(&new, gate).await, None);

        // Back again, as after a wrong deployment: what was sold is honoured.
        shop.issuer.set_keys(&KeyRing::new(key(1)).add_honored(key(2))).unwrap();
        assert_eq!(refusal(&old, gate).await, None);
        assert_eq!(refusal(&new, gate).await, None);
    }
}

#[tokio::test]
async fn a_revoked_token_opens_nothing_and_its_siblings_do() {
    let shop = Shop::new();
    let news = shop.gate("news", pass().also_opens(&["archive"]));
    let archive = shop.gate("archive", pass());
    let (revoked, sibling) = (shop.buy(&news).await, shop.buy(&news).await);
    shop.issuer.revoke(Revocation::Token(revoked.hash())).await.unwrap();
    for gate in [&news, &archive] {
        let refused = refusal(&revoked, gate).await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.code()), (402, "revoked"));
        let narrowed = revoked.with("services=news:0,archive:0");
        assert_eq!(refusal(&narrowed, gate).await, Some(Refusal::Revoked));
        assert_eq!(refusal(&sibling, gate).await, None);
    }
    // Keys that change do not forget it.
    shop.issuer.set_keys(&KeyRing::new(key(2)).add_honored(key(1))).unwrap();
    assert_eq!(refusal(&revoked, &news).await, Some(Refusal::Revoked));
    assert_eq!(refusal(&sibling, &news).await, None);
}

#[tokio::test]
async fn a_service_is_revoked_up_to_a_moment() {
    let shop = Shop::new();
    let (a, ab) = (shop.gate("a", pass()), shop.gate("ab", pass()));
    let (before, other) = (shop.buy(&a).await, shop.buy(&ab).await);
    shop.clock.advance(MINUTE);
    let at = shop.buy(&a).await;
    shop.clock.advance(MINUTE);
    let after = shop.buy(&a).await;

    let issued_before = NOW + 60;
    shop.issuer.revoke(Revocation::Service { name: "a".into(), issued_before }).await.unwrap();
    assert_eq!(refusal(&before, &a).await, Some(Refusal::Revoked));
    assert_eq!(refusal(&at, &a).await, None, "issued at the moment itself");
    assert_eq!(refusal(&after, &a).await, None);
    assert_eq!(refusal(&other, &ab).await, None, "another service");

    // A later moment revokes more, an earlier one takes nothing back.
    shop.issuer.revoke(Revocation::Service { name: "a".into(), issued_before: NOW + 61 }).await.unwrap();
    shop.issuer.revoke(Revocation::Service { name: "a".into(), issued_before: 0 }).await.unwrap();
    assert_eq!(refusal(&at, &a).await, Some(Refusal::Revoked));
    assert_eq!(refusal(&before, &a).await, Some(Refusal::Revoked));
    assert_eq!(refusal(&after, &a).await, None);
}

#[tokio::test]
async fn a_key_is_revoked_by_its_id() {
    let shop = Shop::new();
    let gates = [shop.gate("a", pass()), shop.gate("b", Offer::new(Price::sat(10), Access::uses(9)))];
    for gate in &gates {
        shop.issuer.set_keys(&KeyRing::new(key(1))).unwrap();
        let old = shop.buy(gate).await;
        shop.issuer.set_keys(&KeyRing::new(key(2)).add_honored(key(1))).unwrap();
        let new = shop.buy(gate).await;
        assert_eq!(refusal(&old, gate).await, None);
        shop.issuer.revoke(Revocation::Key(old.key_id())).await.unwrap();
        assert_eq!(refusal(&old, gate).await, Some(Refusal::Revoked));
        assert_eq!(refusal(&new, gate).await, None);
    }
}

#[tokio::test]
async fn what_is_revoked_already_is_not_sold() {
    let shop = Shop::new();
    let pass_gate = shop.gate("pass", pass().also_opens(&["closed"]));
    let uses_gate = shop.gate("uses", Offer::new(Price::sat(10), Access::uses(9)));
    let (signing, metered) = (shop.buy(&pass_gate).await.key_id(), shop.buy(&uses_gate).await.key_id());
    let asked = async |gate: &Gate| {
        let response = gate.admit(&mut get("/")).await.unwrap_err();
        let code = response.extensions().get::<Refusal>().unwrap().code();
        assert_eq!(response.headers().contains_key("www-authenticate"), response.status() == 402);
        (response.status().as_u16(), code)
    };
    let (sells, does_not) = ((402, "missing_credential"), (500, "misconfigured"));
    assert_eq!((asked(&pass_gate).await, asked(&uses_gate).await), (sells, sells));

    shop.issuer.revoke(Revocation::Key(signing)).await.unwrap();
    assert_eq!((asked(&pass_gate).await, asked(&uses_gate).await), (does_not, sells));
    shop.issuer.revoke(Revocation::Key(metered)).await.unwrap();
    assert_eq!((asked(&pass_gate).await, asked(&uses_gate).await), (does_not, does_not));
    shop.issuer.set_keys(&KeyRing::new(key(2))).unwrap();
    assert_eq!((asked(&pass_gate).await, asked(&uses_gate).await), (sells, sells));

    // Up to a moment to come, for a service that the token would open too.
    let until = Revocation::Service { name: "closed".into(), issued_before: NOW + 60 };
    shop.issuer.revoke(until).await.unwrap();
    assert_eq!((asked(&pass_gate).await, asked(&uses_gate).await), (does_not, sells));
    shop.clock.advance(MINUTE);
    let token = shop.buy(&pass_gate).await;
    assert_eq!(refusal(&token, &pass_gate).await, None);
}

#[tokio::test]
async fn an_offer_that_is_gone_or_renamed_is_no_longer_honored() {
    let shop = Shop::new();
    let built = |offers: &[&str]| {
        let offer = |id: &str| pass().with_id(id);
        let first = Gate::builder(&shop.issuer, "api", offer(offers[0]));
        offers[1..].iter().fold(first, |builder, id| builder.add_offer(offer(id))).build().unwrap()
    };
    let gate = built(&["monthly", "yearly"]);
    let token = shop.buy(&gate).await;
    assert_eq!(refusal(&token, &gate).await, None);
    drop(gate);

    for (offers, honored) in [
        (&["yearly", "monthly"][..], true),
        (&["yearly"], false),
        (&["month"], false),
        (&["monthly-2", "yearly"], false),
        (&["default"], false),
        (&["monthly"], true),
    ] {
        let gate = built(offers);
        let refused = refusal(&token, &gate).await;
        assert_eq!(refused, (!honored).then_some(Refusal::WrongOffer), "{offers:?}");
        if let Some(refused) = refused {
            assert_eq!((refused.status().as_u16(), refused.code()), (402, "wrong_offer"));
        }
        let renamed = token.with(format!("api_offer={}", offers[0]));
        assert_eq!(refusal(&renamed, &gate).await.is_none(), honored && offers[0] == "monthly", "{offers:?}");
    }
}

#[tokio::test]
async fn what_was_sold_at_a_fixed_price_outlives_a_change_of_price() {
    let shop = Shop::new();
    let access = Access::uses(3).within(DAY);
    let gate = shop.gate("api", Offer::new(Price::sat(10), access));
    let token = shop.buy(&gate).await;
    drop(gate);
    for (price, access) in [
        (Price::sat(10_000), access),
        (Price::sat(1), access),
        // Nor does it matter what the offer sells now: three uses were sold.
        (Price::sat(10), Access::uses(1)),
    ] {
        let gate = shop.gate("api", Offer::new(price, access));
        assert_eq!(refusal(&token, &gate).await, None, "{price:?}");
    }
    let gate = shop.gate("api", Offer::new(Price::sat(1), Access::pass(DAY)));
    assert_eq!(refusal(&token, &gate).await, Some(Refusal::UsedUp));
    let token = shop.buy(&gate).await;
    drop(gate);
    // A pass stays a pass, where uses are sold now.
    let gate = shop.gate("api", Offer::new(Price::sat(1), Access::once()));
    for _ in 0..3 {
        assert_eq!(token.grant(&gate, &get("/")).await.unwrap().remaining(), None);
    }
}

#[tokio::test]
async fn a_token_priced_by_the_request_opens_what_costs_as_much_or_less() {
    let shop = Shop::new();
    let gate = shop.gate("docs", by_path());
    for paid in [5_u64, 20, 100] {
        let token = shop.buy_at(&gate, &format!("/{paid}")).await;
        for price in [1, 5, 6, 19, 20, 21, 99, 100, 101, 1_000_000] {
            let expected = (price > paid).then_some(Refusal::PriceTooHigh);
            let refused = refusal_at(&token, &gate, &format!("/{price}")).await;
            assert_eq!(refused, expected, "paid {paid}, costs {price}");

            // A holder lowers what it opens, and never raises it.
            for (most, own) in [("1000000000msat", paid), ("6000msat", 6.min(paid))] {
                let narrowed = token.with(format!("docs_max_price={most}"));
                let refused = refusal_at(&narrowed, &gate, &format!("/{price}")).await;
                assert_eq!(refused.is_none(), price <= own, "{most}: paid {paid}, costs {price}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_priced_by_the_request_is_held_to_its_price_by_a_fixed_one() {
    let shop = Shop::new();
    let gate = shop.gate("docs", by_path());
    let token = shop.buy_at(&gate, "/20").await;
    drop(gate);
    for (sat, expected) in [(20, None), (19, None), (21, Some(Refusal::PriceTooHigh))] {
        let gate = shop.gate("docs", Offer::new(Price::sat(sat), Access::pass(HOUR)));
        assert_eq!(refusal(&token, &gate).await, expected, "{sat}");
    }
}
