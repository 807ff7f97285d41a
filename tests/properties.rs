//! What holds for every token, caveat and request: only what was minted and
//! paid is admitted, and whatever a holder adds can only narrow it.
//!
//! The seeds are fixed, so every run is the same.
#![allow(missing_docs)]

use std::cell::Cell;
use std::future::Future;
use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use l402::macaroon::{Identifier, MAX_MACAROON, Macaroon, mint};
use l402::{
    Access, CaveatRegistry, DAY, DevBackend, FixedClock, Gate, Grant, HOUR, Issuer, KeyRing, MemoryLedger,
    Network, Offer, Preimage, Price, PriceError, Refusal, RootKey,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sha2::Sha256;
use tokio::runtime::{Builder, Runtime};

#[path = "support/sale.rs"]
mod sale;

use sale::{NOW, Paid, TestNode, buy, credential, get, present};

/// A runner that does the same in every run.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

const KEY: [u8; 32] = [0x42; 32];
const TENANT: &str = "x-tenant";

/// A server with gates of every kind.
struct World {
    runtime: Runtime,
    clock: FixedClock,
    node: TestNode,
    gates: Vec<Gate>,
}

/// Where the gates stand in [`World::gates`].
const FORECAST: usize = 0;
const TIER_3: usize = 1;
const ADMIN: usize = 2;
const PRICED: usize = 3;
const FORE: usize = 4;
const NEWS: usize = 5;
const ARCHIVE: usize = 6;
const FEW: usize = 7;
const GATES: usize = 8;

const SERVICES: [&str; GATES] =
    ["forecast", "forecast", "forecast", "priced", "fore", "news", "archive", "few"];

fn registry() -> CaveatRegistry {
    CaveatRegistry::new()
        .bind("tenant", |head| Some(head.headers.get(TENANT)?.to_str().ok()?.to_owned()))
        .check("path_prefix", |caveat| caveat.head().uri.path().starts_with(caveat.value()))
        .check("always", |_| true)
        .check("never", |_| false)
}

fn price(head: &Parts) -> Result<Price, PriceError> {
    match head.uri.path() {
        "/free" => Ok(Price::Free),
        "/gone" => Err(PriceError::reject(StatusCode::GONE)),
        "/hd" => Ok(Price::sat(20)),
        _ => Ok(Price::sat(5)),
    }
}

impl World {
    fn new() -> Self {
        let clock = FixedClock::at(NOW);
        let node = TestNode::new(Network::Regtest, &clock);
        let issuer = Issuer::builder(KeyRing::new(RootKey::new(KEY).unwrap()), node.clone())
            // Its clock stands still, and more is refused than a server sells at once.
            .with_server_challenges(u64::MAX, l402::MINUTE)
            .with_network(Network::Regtest)
            .with_ledger(MemoryLedger::new())
            .with_caveats(registry())
            .with_clock(clock.clone())
            .build()
            .unwrap();
        let offer = |access| Offer::new(Price::sat(10), access);
        let many = Access::uses(1_000_000).within(DAY);
        let forecast = Gate::builder(
            &issuer,
            "forecast",
            offer(many).with_id("basic").with_tier(2).with_capabilities(&["read", "write"]),
        )
        .add_offer(offer(many).with_id("pro").with_tier(3).with_capabilities(&["read", "write", "admin"]));
        let build = |name, offer| Gate::new(&issuer, name, offer).unwrap();
        let gates = vec![
            forecast.clone().build().unwrap(),
            forecast.clone().require_tier(3).build().unwrap(),
            forecast.require_capability("admin").build().unwrap(),
            build("priced", Offer::priced(price, Access::pass(HOUR))),
            build("fore", offer(Access::pass(HOUR))),
            build("news", offer(many).with_tier(1).also_opens(&["archive"])),
            build("archive", offer(Access::pass(DAY)).with_tier(1).with_capabilities(&["read"])),
            build("few", offer(Access::uses(3))),
        ];
        assert_eq!(gates.len(), GATES);
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        Self { runtime, clock, node, gates }
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn buy(&self, gate: usize, head: Parts) -> Paid {
        self.clock.set(NOW);
        self.run(buy(&self.gates[gate], &self.node, head))
    }

    fn present(&self, gate: usize, head: &Parts, credential: HeaderValue) -> Result<Grant, Refusal> {
        self.run(present(&self.gates[gate], head, credential)).map(|admission| admission.grant().clone())
    }

    fn judge(&self, gate: usize, head: &Parts, token: &Paid) -> Result<Grant, Refusal> {
        self.present(gate, head, token.credential())
    }
}

fn with_tenant(mut head: Parts, tenant: &'static str) -> Parts {
    head.headers.insert(TENANT, HeaderValue::from_static(tenant));
    head
}

// Bytes.

fn field(out: &mut Vec<u8>, tag: u8, data: &[u8]) {
    out.push(tag);
    let part = |n: usize| u8::try_from(n).unwrap();
    match data.len() {
        len @ 0..0x80 => out.push(part(len)),
        len => out.extend([0x80 | part(len & 0x7f), part(len >> 7)]),
    }
    out.extend_from_slice(data);
}

/// The macaroon written anew from its parts.
fn encode(macaroon: &Macaroon<'_>, signature: &[u8]) -> Vec<u8> {
    let mut out = vec![2];
    if let Some(location) = macaroon.location() {
        field(&mut out, 1, location);
    }
    field(&mut out, 2, &macaroon.identifier().to_bytes());
    out.push(0);
    for caveat in macaroon.caveats() {
        field(&mut out, 2, caveat);
        out.push(0);
    }
    out.push(0);
    field(&mut out, 6, signature);
    out
}

fn any_macaroon() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |len| vec(any::<u8>(), len);
    let caveat = prop_oneof![4 => bytes(0..40), 1 => bytes(120..136), 1 => bytes(505..513)];
    let location = proptest::option::of(prop_oneof![4 => bytes(0..20), 1 => bytes(120..300)]);
    (bytes(64..65), any::<u16>(), vec(caveat, 0..7), location, bytes(0..50)).prop_map(
        |(ids, version, caveats, location, root)| {
            let part = |from: usize| <[u8; 32]>::try_from(&ids[from..from + 32]).unwrap();
            let identifier = Identifier { version, payment_hash: part(0).into(), token_id: part(32).into() };
            let mut bytes = mint(&root, &identifier, caveats).unwrap().as_bytes().to_vec();
            if let Some(location) = location {
                let mut start = Vec::new();
                field(&mut start, 1, &location);
                bytes.splice(1..1, start);
            }
            bytes
        },
    )
}

#[test]
fn decoding_and_encoding_is_the_identity() {
    let read = Cell::new(0);
    let edits = vec((any::<Index>(), any::<u8>(), 0..4_u8), 0..3);
    runner(20_000)
        .run(&(any_macaroon(), edits), |(mut bytes, edits)| {
            let whole = edits.is_empty() && bytes.len() <= MAX_MACAROON;
            for (at, byte, edit) in edits {
                let at = at.index(bytes.len());
                match edit {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 => drop(bytes.remove(at)),
                    _ => bytes[at] ^= 1 << (byte & 7),
                }
            }
            match Macaroon::decode(&bytes) {
                Ok(macaroon) => {
                    read.set(read.get() + 1);
                    prop_assert_eq!(macaroon.as_bytes(), &bytes[..]);
                    prop_assert_eq!(&encode(&macaroon, &bytes[bytes.len() - 32..]), &bytes);
                    let owned = macaroon.into_owned();
                    prop_assert_eq!(owned.as_bytes(), &bytes[..]);
                }
                Err(err) => prop_assert!(!whole, "{err}"),
            }
            Ok(())
        })
        .unwrap();
    assert!(read.get() > 5_000, "{} were read", read.get());
}

#[test]
fn no_single_bit_of_a_token_can_be_changed() {
    let world = World::new();
    for gate in [FORECAST, PRICED, FORE, NEWS, FEW] {
        let head = with_tenant(get("/"), "acme");
        let token = world.buy(gate, head.clone());
        let bytes = token.token.as_bytes().to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let refusal = world.present(gate, &head, credential(&altered, &token.preimage)).unwrap_err();
            assert!(
                matches!(
                    refusal,
                    Refusal::Malformed(_)
                        | Refusal::BadSignature
                        | Refusal::UnknownFormat
                        | Refusal::UnknownKey
                ),
                "bit {bit}: {refusal:?}"
            );
        }
        let preimage: Vec<u8> = hex::decode(token.preimage.to_hex()).unwrap();
        for bit in 0..256 {
            let mut altered: [u8; 32] = preimage.clone().try_into().unwrap();
            altered[bit / 8] ^= 1 << (bit % 8);
            let altered = credential(&bytes, &Preimage::from_bytes(altered));
            assert_eq!(world.present(gate, &head, altered).unwrap_err(), Refusal::WrongPreimage, "bit {bit}");
        }
        // The token itself is still good.
        assert!(world.judge(gate, &head, &token).is_ok());
    }
}

#[test]
fn no_single_bit_of_a_credential_can_be_changed_but_the_case_of_scheme_and_preimage() {
    let world = World::new();
    let token = world.buy(FORE, get("/"));
    let text = token.credential().as_bytes().to_vec();
    let (scheme, preimage) = (0..4, text.len() - 64..text.len());
    let mut admitted = 0;
    for bit in 0..text.len() * 8 {
        let at = bit / 8;
        let mut altered = text.clone();
        altered[at] ^= 1 << (bit % 8);
        let Ok(value) = HeaderValue::from_bytes(&altered) else { continue };
        let is_case = (scheme.contains(&at) || preimage.contains(&at))
            && text[at].is_ascii_alphabetic()
            && bit % 8 == 5;
        let answer = world.present(FORE, &get("/"), value);
        assert_eq!(answer.is_ok(), is_case, "byte {at}, bit {}: {answer:?}", bit % 8);
        admitted += usize::from(is_case);
    }
    assert!(admitted > 1, "the scheme's letter, and letters of the preimage");
}

// Caveats that holders add.

/// A name of a service: half of the time that of the gate that judges, which
/// [`OWN`] stands for.
fn service() -> impl Strategy<Value = &'static str> {
    let others = vec!["forecast", "priced", "fore", "news", "archive", "few", "ghost", "f", "forecast-", ""];
    prop_oneof![Just(OWN), select(others)]
}

const OWN: &str = "@";

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..8_u64).prop_map(|n| n.to_string()),
        (NOW - 5..NOW + 90_000).prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        select(vec![
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999999",
            "-1",
            "+5",
            "",
            " 5",
            "5 ",
            "05",
            "1e9",
            "0x10",
            "5.0",
            "٥",
            "1_000",
        ])
        .prop_map(str::to_owned),
    ]
}

fn services_list() -> impl Strategy<Value = String> {
    let tier = prop_oneof![8 => (0..5_u16).prop_map(|n| n.to_string()), 1 => number()];
    let entry = prop_oneof![
        16 => (service(), tier).prop_map(|(name, tier)| format!("{name}:{tier}")),
        1 => "[a-z:, ]{0,8}",
    ];
    prop_oneof![
        16 => vec(entry.clone(), 1..4).prop_map(|entries| entries.join(",")),
        1 => vec(entry, 0..30).prop_map(|entries| entries.join(";")),
    ]
}

fn capabilities() -> impl Strategy<Value = String> {
    let name = select(vec!["read", "write", "admin", "", "Read", "read ", "read-all"]);
    vec(name, 0..4).prop_map(|names| names.join(","))
}

/// A caveat as a holder might add it: narrow, hostile or nonsense.
fn caveat() -> impl Strategy<Value = Vec<u8>> {
    let own = |suffix: &'static str, value: BoxedStrategy<String>| {
        (service(), value).prop_map(move |(service, value)| format!("{service}_{suffix}={value}")).boxed()
    };
    let fixed = |values: Vec<&'static str>| select(values).prop_map(str::to_owned).boxed();
    let amount = (number(), select(vec!["msat", "sat", "", "usd", " msat"]))
        .prop_map(|(number, unit)| format!("{number}{unit}"))
        .boxed();
    let offers =
        fixed(vec!["basic", "pro", "default", "news/default", "forecast/pro", "news/", "/default", ""]);
    let methods = fixed(vec!["GET", "POST", "GET,HEAD", "GET,POST,HEAD", "get", "*", ""]);
    let registered = fixed(vec![
        "tenant=acme",
        "tenant=other",
        "tenant=",
        "path_prefix=/",
        "path_prefix=/hd",
        "always=",
        "always=1",
        "never=",
        "never",
        "tenant",
        "Tenant=acme",
        " tenant=acme",
    ]);
    let odd = fixed(vec![
        "services",
        "services=",
        "services =forecast:9",
        "SERVICES=forecast:9",
        "forecast_tier=9",
        "forecast_Capabilities=admin",
        "forecast__capabilities=admin",
        "_valid_until=4000000000",
        "valid_until=4000000000",
        "capabilities=admin",
        "max_uses=1000000000",
        "forecast_forecast_max_uses=5",
        "=",
        "",
        "preimage=",
        "preimage=@",
        "preimage=0000000000000000000000000000000000000000000000000000000000000000",
    ]);
    let text = prop_oneof![
        3 => services_list().prop_map(|list| format!("services={list}")),
        3 => own("valid_until", number().boxed()),
        3 => own("max_uses", number().boxed()),
        3 => own("max_price", amount),
        3 => own("capabilities", capabilities().boxed()),
        2 => own("offer", offers),
        2 => own("method", methods),
        3 => registered,
        2 => odd,
        1 => "[a-z_-]{1,12}=.{0,20}",
        1 => ".{0,40}",
    ];
    prop_oneof![24 => text.prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..40)]
}

/// The caveat as it is added to this token, before the gate of this service.
fn aimed_at(caveat: &[u8], token: &Paid, service: &str) -> Vec<u8> {
    match std::str::from_utf8(caveat) {
        Ok("preimage=@") => format!("preimage={}", token.preimage.to_hex()).into_bytes(),
        Ok(text) => text.replace(OWN, service).into_bytes(),
        Err(_) => caveat.to_vec(),
    }
}

/// A moment, a gate and a request to be judged at.
#[derive(Clone, Debug)]
struct Situation {
    token: Index,
    other_gate: Option<usize>,
    method: Method,
    path: &'static str,
    tenant: Option<&'static str>,
    later: u64,
}

fn situation() -> impl Strategy<Value = Situation> {
    (
        any::<Index>(),
        // Mostly the gate that sold the token, so that there is something to narrow.
        prop_oneof![3 => Just(None), 2 => (0..GATES).prop_map(Some)],
        select(vec![Method::GET, Method::GET, Method::POST, Method::HEAD]),
        select(vec!["/", "/", "/hd", "/free", "/gone"]),
        select(vec![None, None, Some("acme"), Some("other")]),
        prop_oneof![3 => Just(0), 1 => 0..90_000_u64],
    )
        .prop_map(|(token, other_gate, method, path, tenant, later)| Situation {
            token,
            other_gate,
            method,
            path,
            tenant,
            later,
        })
}

impl Situation {
    fn head(&self) -> Parts {
        let mut head = get(self.path);
        head.method = self.method.clone();
        match self.tenant {
            Some(tenant) => with_tenant(head, tenant),
            None => head,
        }
    }
}

/// Tokens of every gate, some of them bound to a tenant, with the gate that
/// sold them.
fn stock(world: &World) -> Vec<(usize, Paid)> {
    let mut stock = Vec::new();
    for gate in 0..GATES {
        stock.push((gate, world.buy(gate, get("/"))));
        stock.push((gate, world.buy(gate, with_tenant(get("/hd"), "acme"))));
    }
    stock
}

/// Whether a grant says no more than another, which was given just before.
fn is_within(narrow: &Grant, wide: &Grant) -> bool {
    let fewer = match (narrow.remaining(), wide.remaining()) {
        // The wide one was spent in between.
        (Some(narrow), Some(wide)) => narrow < wide,
        (narrow, wide) => narrow.is_none() && wide.is_none(),
    };
    let capabilities = ["read", "write", "admin", "Read", "read ", "read-all", ""];
    let free = !wide.is_paid() && !narrow.is_paid();
    free || (narrow.is_paid()
        && wide.is_paid()
        && fewer
        && narrow.tier() <= wide.tier()
        && narrow.expires_at() <= wide.expires_at()
        && capabilities.iter().all(|name| wide.has_capability(name) || !narrow.has_capability(name))
        && narrow.service() == wide.service()
        && narrow.offer() == wide.offer()
        && narrow.payment_hash() == wide.payment_hash()
        && narrow.token_id() == wide.token_id())
}

#[test]
fn a_caveat_that_a_holder_adds_only_narrows() {
    let world = World::new();
    let stock = stock(&world);
    world.node.close();
    // admitted and still admitted, admitted and then refused, refused and still refused
    let counts = Cell::new([0_u32; 3]);
    runner(3_000)
        .run(&(situation(), vec(caveat(), 1..5)), |(situation, caveats)| {
            let (seller, token) = &stock[situation.token.index(stock.len())];
            let gate = situation.other_gate.unwrap_or(*seller);
            let head = situation.head();
            world.clock.set(NOW + situation.later);

            let mut token = token.clone();
            let mut before = world.judge(gate, &head, &token);
            for caveat in &caveats {
                let caveat = aimed_at(caveat, &token, SERVICES[gate]);
                token = token.with(&caveat);
                let after = world.judge(gate, &head, &token);
                let said = || format!("{}: {before:?}, then {after:?}", caveat.escape_ascii());
                let mut seen = counts.get();
                match (&before, &after) {
                    (Ok(before), Ok(after)) => {
                        seen[0] += 1;
                        prop_assert!(is_within(after, before), "{}", said());
                    }
                    (Ok(_), Err(_)) => seen[1] += 1,
                    (Err(_), Ok(_)) => prop_assert!(false, "{}", said()),
                    (Err(_), Err(_)) => seen[2] += 1,
                }
                counts.set(seen);
                before = after;
            }
            Ok(())
        })
        .unwrap();
    assert!(counts.get().iter().all(|count| *count > 200), "{:?}", counts.get());
}

#[test]
fn what_a_holder_takes_away_is_gone() {
    let world = World::new();
    // Gate, what is added to its token, and what becomes of it there; the path is `/hd`.
    let later = NOW + 100;
    for (gate, caveat, expected) in [
        (FORECAST, "services=forecast:1".to_owned(), None),
        (TIER_3, "services=forecast:3".to_owned(), None),
        (TIER_3, "services=forecast:2".to_owned(), Some(Refusal::TierTooLow)),
        (ADMIN, "forecast_capabilities=admin".to_owned(), None),
        (ADMIN, "forecast_capabilities=read,write".to_owned(), Some(Refusal::MissingCapability)),
        (ADMIN, "forecast_capabilities=".to_owned(), Some(Refusal::MissingCapability)),
        (NEWS, "services=archive:1".to_owned(), Some(Refusal::WrongService)),
        (FORE, format!("fore_valid_until={later}"), None),
        (FORE, format!("fore_valid_until={NOW}"), Some(Refusal::Expired)),
        (FORE, "fore_method=POST".to_owned(), Some(Refusal::WrongMethod)),
        (FORE, "fore_method=POST,GET".to_owned(), None),
        (FORE, "fore_max_price=9999msat".to_owned(), Some(Refusal::PriceTooHigh)),
        (FORE, "fore_max_price=10000msat".to_owned(), None),
        (PRICED, "priced_max_price=19999msat".to_owned(), Some(Refusal::PriceTooHigh)),
        (PRICED, "priced_max_price=20000msat".to_owned(), None),
        (FEW, "few_max_uses=0".to_owned(), Some(Refusal::UsedUp)),
        (FEW, "few_max_uses=1".to_owned(), None),
        (FORE, "path_prefix=/h".to_owned(), None),
        (FORE, "path_prefix=/x".to_owned(), Some(Refusal::ConditionFailed("path_prefix".into()))),
        (FORE, "never=".to_owned(), Some(Refusal::ConditionFailed("never".into()))),
        (FORE, "fore_fee=1".to_owned(), Some(Refusal::UnknownCaveat)),
        (FORE, "news_method=POST".to_owned(), Some(Refusal::UnknownCaveat)),
        (NEWS, "archive_method=POST".to_owned(), None),
    ] {
        let token = world.buy(gate, get("/hd"));
        let answer = world.judge(gate, &get("/hd"), &token.with(&caveat));
        assert_eq!(answer.as_ref().err(), expected.as_ref(), "{caveat}: {answer:?}");
    }

    let token = world.buy(FORECAST, get("/"));
    let wide = world.judge(FORECAST, &get("/"), &token).unwrap();
    let says = |grant: &Grant, capability| grant.has_capability(capability);
    assert_eq!((wide.tier(), says(&wide, "read"), says(&wide, "write")), (2, true, true));
    let token = token.with("services=forecast:1").with("forecast_capabilities=read");
    let token = token.with(format!("forecast_valid_until={later}")).with("forecast_max_uses=3");
    let narrow = world.judge(FORECAST, &get("/"), &token).unwrap();
    assert_eq!((narrow.tier(), says(&narrow, "read"), says(&narrow, "write")), (1, true, false));
    assert_eq!(narrow.expires_at(), Some(UNIX_EPOCH + Duration::from_secs(later)));
    assert_eq!(narrow.remaining(), Some(1), "one was used before, one is this");
    assert_eq!(world.judge(FORECAST, &get("/"), &token).unwrap().remaining(), Some(0));
    assert_eq!(world.judge(FORECAST, &get("/"), &token).unwrap_err(), Refusal::UsedUp);
}

/// The caveats that somebody who wants more would add, one after the other and
/// each alone, at every gate.
#[test]
fn nothing_that_a_holder_adds_opens_a_gate() {
    let world = World::new();
    let stock = stock(&world);
    world.node.close();
    let wishes: Vec<String> = ["forecast", "priced", "fore", "news", "archive", "few"]
        .iter()
        .flat_map(|name| {
            [
                format!("services={name}:3"),
                format!("services=forecast:3,{name}:3"),
                format!("{name}_offer=default"),
                format!("{name}_offer=pro"),
                format!("{name}_offer=news/default"),
                format!("{name}_capabilities=read,write,admin"),
                format!("{name}_valid_until=4000000000"),
                format!("{name}_max_uses=1000000"),
                format!("{name}_max_price=1000000000msat"),
                format!("{name}_method=GET"),
            ]
        })
        .chain(["tenant=acme", "tenant=other", "path_prefix=/", "always=", "preimage="].map(str::to_owned))
        .collect();
    let (mut closed, mut refused) = (0, 0);
    for (path, tenant, later) in
        [("/", None, 0), ("/hd", Some("acme"), 0), ("/", Some("other"), 0), ("/", None, 2 * DAY.as_secs())]
    {
        let head = tenant.map_or_else(|| get(path), |tenant| with_tenant(get(path), tenant));
        for (_, token) in &stock {
            for gate in 0..GATES {
                world.clock.set(NOW + later);
                if world.judge(gate, &head, token).is_ok() {
                    continue;
                }
                closed += 1;
                for wish in &wishes {
                    let wishful = token.with(wish);
                    let answer = world.judge(gate, &head, &wishful);
                    assert!(answer.is_err(), "gate {gate}, {path}, {wish}: {answer:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(closed > 300 && refused > 10_000, "{closed} {refused}");
}

#[test]
fn numbers_are_digits_alone() {
    let world = World::new();
    let metered = world.buy(FORECAST, get("/"));
    let priced = world.buy(PRICED, get("/"));
    let is_number = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok()
    };
    let text = prop_oneof![
        4 => number(),
        4 => "[0-9]{1,21}",
        2 => "[0-9+. eExX_,-]{0,12}",
        1 => "[\u{660}-\u{669}\u{ff10}-\u{ff19}]{1,3}",
        1 => ".{0,6}",
    ];
    let good = Cell::new(0);
    runner(1_000)
        .run(&text, |text| {
            let value = is_number(&text).then(|| text.parse::<u64>().unwrap());
            good.set(good.get() + u32::from(value.is_some()));
            let admitted = |gate, token: &Paid, caveat: String| {
                let answer = world.judge(gate, &get("/"), &token.with(&caveat));
                (answer.is_ok(), format!("{caveat}: {answer:?}"))
            };
            for (gate, token, caveat, expected) in [
                (FORECAST, &metered, format!("forecast_valid_until={text}"), value.is_some_and(|n| n > NOW)),
                (FORECAST, &metered, format!("services=forecast:{text}"), value.is_some_and(|n| n <= 2)),
                (PRICED, &priced, format!("priced_max_price={text}msat"), value.is_some_and(|n| n >= 5_000)),
            ] {
                let (is_ok, said) = admitted(gate, token, caveat);
                prop_assert_eq!(is_ok, expected, "{}", said);
            }
            // How many are used by now is not known here: a number never grants
            // what was not sold, and what is none is refused as such.
            let answer = world.judge(FORECAST, &get("/"), &metered.with(format!("forecast_max_uses={text}")));
            let refused_as_such = matches!(answer, Err(Refusal::InvalidCaveat));
            prop_assert_eq!(refused_as_such, value.is_none(), "{}: {:?}", text, answer);
            Ok(())
        })
        .unwrap();
    assert!(good.get() > 300);
}

// Tokens that nobody sold.

/// Derives root keys as DESIGN.md has it, from the master key.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn key_id(master: &[u8], network: Network) -> [u8; 4] {
    hmac(master, &[b"l402/kid/v1", network.as_str().as_bytes()])[..4].try_into().unwrap()
}

fn root_key(master: &[u8], network: Network, identifier: &Identifier) -> [u8; 32] {
    hmac(master, &[b"l402/root/v1", network.as_str().as_bytes(), &identifier.to_bytes()])
}

/// Mints as the server does that has this master key. What it says in the
/// token id and in the caveats is up to the test.
#[derive(Clone, Debug)]
struct Forge {
    master: Vec<u8>,
    network: Network,
    version: u16,
    format: u8,
    key_id: [u8; 4],
    minted: u8,
    caveats: Vec<String>,
}

/// What a pass of the service `fore` says.
const FORE_CAVEATS: [&str; 4] =
    ["services=fore:0", "fore_offer=default", "fore_capabilities=", "fore_valid_until=1900003600"];

impl Forge {
    fn honest() -> Self {
        Self {
            master: KEY.into(),
            network: Network::Regtest,
            version: 0,
            format: 1,
            key_id: key_id(&KEY, Network::Regtest),
            minted: 4,
            caveats: FORE_CAVEATS.map(str::to_owned).into(),
        }
    }

    fn mint(&self) -> Paid {
        let preimage = Preimage::from_bytes([9; 32]);
        let mut token_id = [7; 32];
        token_id[0] = self.format;
        token_id[1..5].copy_from_slice(&self.key_id);
        token_id[5..10].copy_from_slice(&NOW.to_be_bytes()[3..]);
        token_id[10] = self.minted;
        let identifier = Identifier {
            version: self.version,
            payment_hash: preimage.payment_hash(),
            token_id: token_id.into(),
        };
        let root = root_key(&self.master, self.network, &identifier);
        Paid { token: mint(&root, &identifier, &self.caveats).unwrap(), preimage }
    }
}

#[test]
fn root_keys_are_derived_as_written_down() {
    // A change here makes every token worthless that is out: it needs a new format.
    let world = World::new();
    for gate in [FORE, PRICED, ARCHIVE] {
        let sold = world.buy(gate, get("/"));
        assert_eq!(sold.key_id(), key_id(&KEY, Network::Regtest));
        assert!(sold.token.verify(&root_key(&KEY, Network::Regtest, &sold.token.identifier())));
        assert_eq!(usize::from(sold.token.identifier().token_id.as_bytes()[10]), sold.caveats().len());
    }
    assert!(world.judge(FORE, &get("/"), &Forge::honest().mint()).is_ok());
}

#[test]
fn a_claim_that_the_server_did_not_mint_is_not_read() {
    let world = World::new();
    // The same caveats under the same signature: what differs is how many of
    // them the token id says are the server's.
    for minted in 0..=4 {
        let token = Forge { minted, ..Forge::honest() }.mint();
        let answer = world.judge(FORE, &get("/"), &token);
        assert_eq!(answer.is_ok(), minted == 4, "{minted}: {answer:?}");
    }
    for minted in [5, 6, 32, 33, 255] {
        let token = Forge { minted, ..Forge::honest() }.mint();
        assert_eq!(world.judge(FORE, &get("/"), &token).unwrap_err(), Refusal::BadSignature, "{minted}");
    }
    // A holder fills up what the server left out, or says it again.
    for left_out in 0..4 {
        let mut caveats = Forge::honest().caveats;
        let claim = caveats.remove(left_out);
        let token = Forge { minted: 3, caveats, ..Forge::honest() }.mint();
        let was = world.judge(FORE, &get("/"), &token);
        let filled = world.judge(FORE, &get("/"), &token.with(&claim));
        // Capabilities that are not minted are none, and the gate needs none.
        assert_eq!(was.is_ok(), left_out == 2, "{claim}: {was:?}");
        assert!(filled.is_err(), "{claim}: {filled:?}");
    }
}

#[test]
fn claims_of_a_holder_are_in_no_grant() {
    let world = World::new();
    let expires_at = |grant: &Grant| grant.expires_at().unwrap();
    for (gate, claims) in [
        (FORE, &["fore_max_uses=5", "fore_capabilities=read", "fore_offer=pro", "tenant=acme"][..]),
        (FORE, &["services=fore:0,archive:0", "archive_valid_until=4000000000", "archive_offer=default"]),
        (FORECAST, &["forecast_capabilities=read,write,admin", "services=forecast:3", "forecast_offer=pro"]),
        (ARCHIVE, &["archive_capabilities=read,write", "archive_max_uses=1", "archive_offer=news/default"]),
        (NEWS, &["services=news:1,archive:1,fore:0", "fore_offer=default", "archive_offer=default"]),
    ] {
        let token = world.buy(gate, get("/"));
        for claim in claims {
            // `archive_offer` is none of the business of the gate of `news`, whose token names it.
            let elsewhere = gate == NEWS && claim.starts_with("archive_");
            let answer = world.judge(gate, &get("/"), &token.with(claim));
            assert_eq!(answer.is_ok(), elsewhere, "{claim}: {answer:?}");
            for gate in [FORE, ARCHIVE, TIER_3, ADMIN] {
                let answer = world.judge(gate, &with_tenant(get("/"), "acme"), &token.with(claim));
                assert!(answer.is_err(), "{claim}: {answer:?}");
            }
        }
    }
    // What is restated is read from the server's caveat.
    let token = world.buy(FORECAST, get("/"));
    let plain = world.judge(FORECAST, &get("/"), &token).unwrap();
    let wishful = token
        .with("forecast_valid_until=4000000000")
        .with("forecast_max_uses=99000000")
        .with("services=forecast:2")
        .with("forecast_max_price=1msat");
    assert_eq!(
        world.judge(FORECAST, &get("/"), &wishful).unwrap_err(),
        Refusal::PriceTooHigh,
        "the offer costs more than the holder left"
    );
    let wishful = token.with("forecast_valid_until=4000000000").with("forecast_max_uses=99000000");
    let grant = world.judge(FORECAST, &get("/"), &wishful).unwrap();
    assert_eq!(expires_at(&grant), expires_at(&plain));
    assert_eq!(grant.remaining(), Some(plain.remaining().unwrap() - 1));
    // Nor does a holder bind a token to a price, where none was minted.
    let forged = Forge {
        caveats: FORE_CAVEATS.map(|caveat| caveat.replace("fore", "priced")).into(),
        ..Forge::honest()
    }
    .mint();
    for token in [forged.clone(), forged.with("priced_max_price=1000000msat")] {
        assert_eq!(world.judge(PRICED, &get("/"), &token).unwrap_err(), Refusal::PriceTooHigh);
    }
}

#[test]
fn a_token_of_unknown_form_is_not_honored() {
    let world = World::new();
    for version in [1, 0x0100, u16::MAX] {
        let token = Forge { version, ..Forge::honest() }.mint();
        assert_eq!(world.judge(FORE, &get("/"), &token).unwrap_err(), Refusal::UnknownFormat, "{version}");
    }
    for format in (0..=255).filter(|format| *format != 1) {
        let token = Forge { format, ..Forge::honest() }.mint();
        assert_eq!(world.judge(FORE, &get("/"), &token).unwrap_err(), Refusal::UnknownFormat, "{format}");
    }
}

#[test]
fn no_token_that_was_not_minted_verifies() {
    let world = World::new();
    let sold = world.buy(FORE, get("/"));
    let real_id = *sold.token.identifier().token_id.as_bytes();
    let root = prop_oneof![
        2 => vec(any::<u8>(), 0..64),
        1 => Just(Vec::new()),
        // What somebody might guess who has read the source.
        1 => Just(KEY.to_vec()),
        1 => Just(hmac(&KEY, &[b"l402/root/v1", b"regtest"]).to_vec()),
        1 => Just(vec![0; 32]),
    ];
    let random_id = vec(any::<u8>(), 32).prop_map(|id| <[u8; 32]>::try_from(id).unwrap());
    let id = prop_oneof![
        1 => random_id.clone(),
        1 => Just(real_id),
        2 => random_id.prop_map(move |mut id| {
            id[..11].copy_from_slice(&real_id[..11]);
            id
        }),
    ];
    let signature = proptest::option::of(vec(any::<u8>(), 32));
    runner(3_000)
        .run(
            &(root, id, any::<[u8; 32]>(), any::<bool>(), signature),
            |(root, id, secret, known, signature)| {
                // The preimage of an invoice that was paid, or one of the forger's own.
                let preimage = if known { sold.preimage.clone() } else { Preimage::from_bytes(secret) };
                let identifier =
                    Identifier { version: 0, payment_hash: preimage.payment_hash(), token_id: id.into() };
                let mut bytes = mint(&root, &identifier, FORE_CAVEATS).unwrap().as_bytes().to_vec();
                if let Some(signature) = signature {
                    let start = bytes.len() - 32;
                    bytes[start..].copy_from_slice(&signature);
                }
                let refusal = world.present(FORE, &get("/"), credential(&bytes, &preimage)).unwrap_err();
                let expected = match id {
                    _ if id[0] != 1 => Refusal::UnknownFormat,
                    _ if id[1..5] != real_id[1..5] => Refusal::UnknownKey,
                    _ => Refusal::BadSignature,
                };
                prop_assert_eq!(refusal, expected);
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn a_token_opens_with_its_own_preimage_alone() {
    let world = World::new();
    let tokens: Vec<_> = (0..4).map(|_| world.buy(FORE, get("/"))).collect();
    for (i, token) in tokens.iter().enumerate() {
        for (j, other) in tokens.iter().enumerate() {
            let mixed = Paid { token: token.token.clone(), preimage: other.preimage.clone() };
            let answer = world.judge(FORE, &get("/"), &mixed);
            assert_eq!(answer.err(), (i != j).then_some(Refusal::WrongPreimage), "{i} {j}");

            let with_caveat = token.with(format!("preimage={}", other.preimage.to_hex()));
            let answer = world.judge(FORE, &get("/"), &with_caveat);
            assert_eq!(answer.err(), (i != j).then_some(Refusal::WrongPreimage), "{i} {j}");
        }
        // The payment hash, which everybody sees, is no preimage.
        let guess = credential(token.token.as_bytes(), &Preimage::from_bytes(*token.hash().as_bytes()));
        assert_eq!(world.present(FORE, &get("/"), guess).unwrap_err(), Refusal::WrongPreimage);
    }
}

const NETWORKS: [Network; 4] = [Network::Bitcoin, Network::Testnet, Network::Signet, Network::Regtest];

/// A gate named `fore` of an issuer of its own, and who pays its invoices.
fn abroad(network: Network, master: [u8; 32], offer: Offer) -> (Gate, TestNode) {
    let clock = FixedClock::at(NOW);
    let node = TestNode::new(network, &clock);
    let issuer = Issuer::builder(KeyRing::new(RootKey::new(master).unwrap()), node.clone())
        .with_network(network)
        .with_ledger(MemoryLedger::new())
        .with_clock(clock)
        .build()
        .unwrap();
    (Gate::new(&issuer, "fore", offer).unwrap(), node)
}

#[tokio::test]
async fn a_token_of_another_network_or_key_opens_nothing() {
    let pass = || Offer::new(Price::sat(10), Access::pass(HOUR));
    let mut servers = Vec::new();
    for network in NETWORKS {
        for master in [[1; 32], [2; 32]] {
            servers.push((network, master, abroad(network, master, pass())));
        }
    }
    for (i, (network, master, (gate, node))) in servers.iter().enumerate() {
        let token = buy(gate, node, get("/")).await;
        assert_eq!(token.key_id(), key_id(master, *network));
        for (j, (other, _, (gate, _))) in servers.iter().enumerate() {
            let answer = token.grant(gate, &get("/")).await;
            assert_eq!(answer.err(), (i != j).then_some(Refusal::UnknownKey), "{network} at {other}");
        }
    }
    // The right key id does not help: the network is in every root key, too.
    for (network, master, (gate, _)) in &servers {
        for (other_network, other_master, _) in &servers {
            let forged = Forge {
                master: other_master.to_vec(),
                network: *other_network,
                key_id: key_id(master, *network),
                ..Forge::honest()
            };
            let same = (network, master) == (other_network, other_master);
            let answer = forged.mint().grant(gate, &get("/")).await;
            assert_eq!(
                answer.err(),
                (!same).then_some(Refusal::BadSignature),
                "{other_network} at {network}"
            );
        }
    }
}

#[tokio::test]
async fn a_replica_honors_a_pass_and_no_count_of_another_memory() {
    let master = [3; 32];
    for (offer, honored) in [
        (Offer::new(Price::sat(10), Access::pass(HOUR)), true),
        (Offer::new(Price::sat(10), Access::uses(5)), false),
    ] {
        let (one, node) = abroad(Network::Bitcoin, master, offer.clone());
        let (two, _) = abroad(Network::Bitcoin, master, offer);
        let token = buy(&one, &node, get("/")).await;
        assert!(token.admit(&one, &get("/")).await.is_ok());
        let expected = (!honored).then_some(Refusal::UnknownKey);
        assert_eq!(token.admit(&two, &get("/")).await.err(), expected);
    }
    // Not even where the count is signed with the key of the passes.
    let (gate, _) = abroad(Network::Bitcoin, master, Offer::new(Price::sat(10), Access::uses(5)));
    let mut forged = Forge {
        master: master.into(),
        network: Network::Bitcoin,
        key_id: key_id(&master, Network::Bitcoin),
        minted: 5,
        ..Forge::honest()
    };
    forged.caveats.push("fore_max_uses=5".into());
    assert_eq!(forged.mint().admit(&gate, &get("/")).await.unwrap_err(), Refusal::UnknownKey);
}

/// The header of [`present`] is the one that was meant: the properties above
/// would hold for a gate that never admits.
#[tokio::test]
async fn what_was_paid_is_admitted_until_it_expires() {
    let clock = FixedClock::at(NOW);
    let wallet = DevBackend::with_clock(clock.clone());
    let issuer = Issuer::builder(KeyRing::new(RootKey::new(KEY).unwrap()), wallet.clone())
        .with_network(Network::Regtest)
        .with_clock(clock.clone())
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "fore", Offer::new(Price::sat(10), Access::pass(HOUR))).unwrap();
    let token = buy(&gate, &wallet, get("/")).await;
    let mut head = get("/");
    head.headers.insert(AUTHORIZATION, token.credential());
    assert!(gate.admit(&mut head).await.is_ok());
    assert!(!head.headers.contains_key(AUTHORIZATION), "the credential is taken out");
    let lifetime = 5 * 60 + HOUR.as_secs();
    for (after, admitted) in [(lifetime - 1, true), (lifetime, false), (lifetime + 1, false)] {
        clock.set(NOW);
        clock.advance(Duration::from_secs(after));
        let answer = token.admit(&gate, &get("/")).await;
        assert_eq!(answer.err(), (!admitted).then_some(Refusal::Expired), "{after}");
    }
}
