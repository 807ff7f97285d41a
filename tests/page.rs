//! What a person gets: the page in place of the JSON, its form, the cookie that
//! the form sets, and what the cookie opens.

#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Request};
use axum::routing::{any, get};
use bytes::Bytes;
use l402::page::Texts;
use l402::{
    Access, CaveatRegistry, Currency, DAY, DevBackend, ErrorKind, ExchangeRate, Gate, HOUR, Issuer,
    IssuerBuilder, KeyRing, L402Layer, MINUTE, Network, Offer, Page, Price, RootKey,
};
use proptest::prelude::{ProptestConfig, proptest};
use wire::{Answer, ROOT, Server, Shop, serve};

const HTML: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// One route of each kind, behind gates with a page.
struct Site {
    shop: Shop,
    server: Server,
}

impl Site {
    async fn open() -> Self {
        Self::with(|builder| builder.with_settled_tokens().with_page("/l402", Page::new())).await
    }

    async fn with(configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> Self {
        let shop = Shop::with(configure);
        let issuer = &shop.issuer;
        let pass = Offer::new(Price::sat(210), Access::pass(DAY))
            .with_title("Today's paper")
            .with_description("All of it.");
        let hundred =
            Offer::new(Price::sat(2_100), Access::uses(100)).with_id("hundred").with_title("100 pages");
        let paper = Gate::builder(issuer, "paper", pass).add_offer(hundred).build().unwrap();
        let thrice = Gate::new(issuer, "thrice", Offer::new(Price::sat(1), Access::uses(3))).unwrap();
        let by_path = Offer::priced(
            |head| Ok(if head.uri.path().contains("long") { Price::sat(5) } else { Price::sat(2) }),
            Access::pass(HOUR),
        );
        let article = Gate::new(issuer, "article", by_path).unwrap();
        // What the inner service sees of the headers.
        let inner = |headers: HeaderMap| async move {
            let seen = headers.iter().filter(|(name, _)| *name == "cookie" || *name == "authorization");
            seen.flat_map(|(name, value)| [name.as_str(), ": ", value.to_str().unwrap(), "\n"])
                .collect::<String>()
        };
        let app = Router::new()
            .route("/paper", any(inner).layer(L402Layer::new(paper)))
            .route("/thrice", get(inner).layer(L402Layer::new(thrice)))
            .nest("/articles", Router::new().route("/{id}", get(inner).layer(L402Layer::new(article))))
            .merge(issuer.page_router());
        Self { server: serve(app).await, shop }
    }

    async fn page(&self, path: &str) -> Answer {
        let page = self.server.get(path, &[HTML]).await;
        assert_eq!(page.status, 402);
        page
    }

    async fn post(&self, fields: &[(&str, &str)], lines: &[&str]) -> Answer {
        let body = form(fields);
        let length = format!("Content-Length: {}", body.len());
        let mut head = vec!["Content-Type: application/x-www-form-urlencoded", &*length];
        head.extend(lines);
        self.server.send_body("POST /l402", &head, body.as_bytes()).await
    }

    /// Pays for a page, sends its form as it stands there, and gives the cookie.
    async fn buy(&self, path: &str) -> String {
        let page = self.page(path).await;
        let paid = self.shop.pay(&page);
        let fields = [
            ("token", &*field(&page, "token")),
            ("back", &field(&page, "back")),
            ("preimage", &paid.preimage()),
        ];
        let opened = self.post(&fields, &["Sec-Fetch-Site: same-origin"]).await;
        assert_eq!(opened.status, 303, "{}", opened.text());
        assert_eq!(opened.header("location"), Some(path));
        opened.all("set-cookie")[0].to_owned()
    }

    async fn paid_states(&self, token: &str) -> Answer {
        self.server.get("/l402", &[&format!("Authorization: L402 {token}")]).await
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// The value of a field of the page's form.
fn field(page: &Answer, name: &str) -> String {
    let (_, rest) = page.text().split_once(&format!(r#"name="{name}" value=""#)).expect("the field");
    rest.split('"').next().unwrap().replace("&amp;", "&").replace("&#39;", "'").replace("&quot;", "\"")
}

/// What a browser sends back of a `Set-Cookie`.
fn sent(set_cookie: &str) -> String {
    format!("Cookie: a=b; {}; c=d", set_cookie.split(';').next().unwrap())
}

/// What the page shows, without its markup, style and script.
fn without<'a>(html: &'a str, from: &str, to: &str) -> String {
    let mut rest: &'a str = html;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(from) {
        kept.push_str(before);
        rest = after.split_once(to).expect("it ends").1;
    }
    kept + rest
}

#[tokio::test]
async fn a_browser_gets_a_page_and_a_program_json_with_the_same_challenge() {
    let site = Site::open().await;
    for (accept, html) in [
        (HTML, true),
        ("Accept: text/html", true),
        ("Accept: */*", false),
        ("Accept: application/json", false),
        ("Accept: text/html;q=0.5, application/json", false),
        ("X-Nothing: 1", false),
    ] {
        let answer = site.server.get("/paper", &[accept]).await;
        assert_eq!(answer.status, 402, "{accept}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let challenge = answer.challenge();
        if html {
            assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
            assert_eq!(field(&answer, "token"), challenge.token().to_base64());
            assert!(answer.text().contains(&format!("href=\"lightning:{}\"", challenge.invoice())));
        } else {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert_eq!(answer.json()["l402"]["invoice"], challenge.invoice());
            assert_eq!(answer.header("content-security-policy"), None);
        }
    }
    // Calls of gRPC and broken credentials are answered as ever.
    let grpc = site.server.send("POST /paper", &[HTML, "Content-Type: application/grpc"]).await;
    assert_eq!(grpc.header("content-type"), Some("application/grpc"));
    let broken = site.server.get("/paper", &[HTML, "Authorization: L402 x:y"]).await;
    assert_eq!((broken.status, broken.header("content-type")), (401, Some("application/problem+json")));
}

#[tokio::test]
async fn a_gate_without_a_page_answers_a_browser_as_ever() {
    let shop = Shop::new();
    let gate = shop.issuer.clone();
    let gate = Gate::new(&gate, "plain", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
    let cookies = |headers: HeaderMap| async move { headers["cookie"].to_str().unwrap().to_owned() };
    let app =
        Router::new().route("/", get(cookies).layer(L402Layer::new(gate))).merge(shop.issuer.page_router());
    let server = serve(app).await;
    let answer = server.get("/", &[HTML]).await;
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let paid = shop.pay(&answer);
    let cookie = format!("Cookie: __Secure-l402-plain={}:{}", paid.base64(), paid.preimage());
    assert_eq!(server.get("/", &[&cookie]).await.status, 402, "it reads no cookie");
    let with_both = server.get("/", &[&cookie, &paid.line()]).await;
    assert!(with_both.text().contains("__Secure-l402-plain"), "and leaves them alone");
    assert_eq!(server.get("/l402", &[]).await.status, 404);
}

#[tokio::test]
async fn the_page_tells_what_is_sold_and_for_how_much() {
    let site = Site::open().await;
    let page = site.page("/paper").await;
    for text in [
        "<h1>Today&#39;s paper</h1>",
        "All of it.",
        "210 sat",
        "Unlimited for 1 day",
        "100 pages",
        "2100 sat",
        "100 requests within 30 days",
        "This invoice buys it.",
        "role=\"img\" aria-label=\"QR code of the Lightning invoice\"",
        "data-left=\"300\"",
        "5 minutes",
        "data-sees",
    ] {
        assert!(page.text().contains(text), "no {text}");
    }
    let bare = site.page("/thrice").await;
    assert!(bare.text().contains("<h1>thrice</h1>"), "the service, where there is no title");
    assert!(!bare.text().contains("What opens this page"), "one offer needs no list");
}

#[tokio::test]
async fn a_price_in_another_currency_is_shown_beside_what_the_wallet_will_say() {
    let usd = Currency::new("USD");
    let shop = Shop::with(|builder| {
        builder
            .with_rates(10 * MINUTE, |_: Currency| async move { Ok(ExchangeRate::per_bitcoin(10_000_000)?) })
            .with_page("/l402", Page::new())
    });
    let gate =
        Gate::new(&shop.issuer, "paper", Offer::new(Price::minor(250, usd), Access::pass(DAY))).unwrap();
    let server = serve(Router::new().route("/", get(|| async {}).layer(L402Layer::new(gate)))).await;
    let page = server.get("/", &[HTML]).await;
    assert!(page.text().contains(r#"2.50 USD <span class="dim">(2500 sat)</span>"#), "{}", page.text());
}

#[tokio::test]
async fn the_page_loads_nothing_and_allows_itself_alone() {
    let site = Site::open().await;
    let (page, other) = (site.page("/paper").await, site.page("/paper").await);
    let policy = page.header("content-security-policy").unwrap();
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(nonce.len(), 22, "16 bytes");
    assert!(!other.header("content-security-policy").unwrap().contains(nonce), "a fresh one each time");
    for directive in [
        "default-src 'none'",
        &format!("style-src 'nonce-{nonce}'"),
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let html = page.text();
    for address in ["http:", "https:", "//", "url(", "@import", " on", "javascript:"] {
        // The script has comments and properties, and no address.
        let markup = without(&without(html, "<script", "</script>"), "<style", "</style>");
        let found = if address == " on" { markup.contains(" onclick=") } else { markup.contains(address) };
        assert!(!found, "{address}");
    }
    for address in ["http:", "https:", "url(", "@import", "innerHTML", "eval(", "document.write"] {
        assert!(!html.contains(address), "{address}");
    }
    for element in ["<script", "<style"] {
        assert_eq!(html.matches(element).count(), 1);
        assert!(html.contains(&format!("{element} nonce=\"{nonce}\">")));
    }
}

#[tokio::test]
async fn the_page_is_small() {
    let site = Site::open().await;
    let page = site.page("/paper").await;
    let bare = without(page.text(), "<svg", "</svg>").len();
    println!("{bare} bytes, and {} with the QR code", page.body.len());
    assert!(bare < 24 * 1024, "{bare} bytes");
    assert!(page.body.len() < 64 * 1024, "{} bytes", page.body.len());
}

/// Nothing that the seller or the client writes ends a text, attribute, style,
/// script or header.
#[tokio::test]
async fn hostile_texts_are_shown_and_nothing_else() {
    let hostile = [
        "</script><script>alert(1)</script>",
        "</title><img src=x onerror=alert(1)>",
        "\"><svg onload=alert(1)>",
        "' onmouseover='alert(1)",
        "<!--<script>",
        "]]></style><style>*{display:none}",
        "a\0b\r\nSet-Cookie: c=d",
        "\u{202e}tas 1\u{202c} \u{2066}x\u{2028}",
        "&lt;&#x3c;script&#62;",
        "{{7*7}} ${7*7} <%= 7 %>",
    ];
    let plain = plain().await;
    let tags = |markup: &str| without(markup, "<script nonce", "</script>").matches('<').count();
    for text in hostile {
        let long = text.repeat(3000);
        let shop = Shop::with(|builder| {
            let mut texts = Texts::default();
            (texts.lang, texts.pay) = (text.to_owned().into(), text.to_owned().into());
            let page = Page::new().with_texts(texts).add_style(text).add_link(text, &format!("/{text}"));
            builder.with_page("/l402", page.add_link(text, "javascript:alert(1)").add_link(text, "//host/"))
        });
        let title: String = text.chars().filter(|c| *c != '\0').collect();
        let offer = Offer::new(Price::sat(1), Access::pass(HOUR)).with_title(title).with_description(&*long);
        let other = Offer::new(Price::sat(2), Access::pass(HOUR)).with_id("other").with_description(text);
        let gate = Gate::builder(&shop.issuer, "svc", offer).add_offer(other).build().unwrap();
        let server = serve(Router::new().route("/", get(|| async {}).layer(L402Layer::new(gate)))).await;
        let page = server.get("/?q='%3E%3Cb%3E%00&x=%22&amp;", &[HTML]).await;
        let html = page.text();
        assert_eq!((page.status, page.all("set-cookie")), (402, vec![]), "{text:?}");
        // Within a style sheet only `</` means something.
        assert_eq!(html.matches("</style").count(), 1, "{text:?}");
        let markup = without(html, "<style nonce", "</style>");
        for (element, times) in
            [("<script", 1), ("</script", 1), ("<style", 0), ("</title", 1), ("<img", 0), ("<svg", 1)]
        {
            assert_eq!(markup.matches(element).count(), times, "{element} of {text:?}");
        }
        assert!(!html.contains('\0') && !markup.contains('\u{202e}'), "{text:?}");
        assert!(!markup.contains("javascript:") && !markup.contains("//host"), "{text:?}");
        assert_eq!(tags(&markup), tags(&plain), "as with harmless texts, and not {text:?}");
        assert!(html.len() < 128 * 1024, "{} bytes", html.len());
    }
}

/// The same page with harmless texts.
async fn plain() -> String {
    let shop = Shop::with(|builder| builder.with_page("/l402", Page::new().add_link("a", "/a")));
    let offer = Offer::new(Price::sat(1), Access::pass(HOUR)).with_title("a").with_description("a");
    let other = Offer::new(Price::sat(2), Access::pass(HOUR)).with_id("other").with_description("a");
    let gate = Gate::builder(&shop.issuer, "svc", offer).add_offer(other).build().unwrap();
    let server = serve(Router::new().route("/", get(|| async {}).layer(L402Layer::new(gate)))).await;
    let page = server.get("/", &[HTML]).await;
    without(page.text(), "<style nonce", "</style>")
}

#[tokio::test]
async fn texts_looks_and_all_of_it_can_be_replaced() {
    let mut texts = Texts::default();
    texts.lang = "de".into();
    texts.title = "Bitte bezahlen".into();
    texts.terms = |offer| format!("{} Tage", offer.seconds / 86_400);
    texts.time = |seconds| format!("{} Minuten", seconds / 60);
    let german = Page::new().with_texts(texts).add_style(":root{--accent:teal}");
    let own = Page::new().rendered_by(|view| {
        let offer = &view.offers[0];
        assert!(offer.is_invoiced && view.sees_payment && !format!("{view:?}").contains(&view.token));
        format!("{} {} {} {} {}", view.service, view.amount_msat, view.back, view.route, view.nonce)
    });
    let shop = Shop::with(|builder| builder.with_settled_tokens().with_page("/pay/here", german));
    let offer = || Offer::new(Price::sat(1), Access::pass(DAY));
    let paper = Gate::new(&shop.issuer, "paper", offer()).unwrap();
    let own = Gate::builder(&shop.issuer, "own", offer()).with_page(own).build().unwrap();
    let bare = Page::new().with_style("main{color:red}");
    let bare = Gate::builder(&shop.issuer, "bare", offer()).with_page(bare).build().unwrap();
    let app = Router::new()
        .route("/", get(|| async {}).layer(L402Layer::new(paper)))
        .route("/own", get(|| async {}).layer(L402Layer::new(own)))
        .route("/bare", get(|| async {}).layer(L402Layer::new(bare)));
    let server = serve(app).await;
    let page = server.get("/", &[HTML]).await;
    for text in
        ["lang=\"de\"", "Bitte bezahlen", "1 Tage", "5 Minuten", "--accent:teal}", "action=\"/pay/here\""]
    {
        assert!(page.text().contains(text), "no {text}");
    }
    let page = server.get("/own?a=b", &[HTML]).await;
    assert!(page.text().starts_with("own 1000 /own?a=b /pay/here "), "{}", page.text());
    assert!(
        page.header("content-security-policy").unwrap().contains(page.text().split(' ').next_back().unwrap())
    );
    let page = server.get("/bare", &[HTML]).await;
    assert!(page.text().contains("\">main{color:red}</style>"));
}

#[tokio::test]
async fn what_does_not_fit_together_does_not_build() {
    let build = |route: &str| {
        Issuer::builder(KeyRing::new(RootKey::new(ROOT).unwrap()), DevBackend::new())
            .with_network(Network::Regtest)
            .with_page(route, Page::new())
            .build()
    };
    for route in ["/l402", "/", "/a/b-c_d.e~"] {
        assert!(build(route).is_ok(), "{route}");
    }
    for route in
        ["", "l402", "//l402", "/a//b", "/a b", "/{a}", "/a?b", "/a#b", "https://host/", "/\u{fc}", "/a;b"]
    {
        assert_eq!(build(route).unwrap_err().kind(), ErrorKind::Page, "{route}");
    }
    let shop = Shop::new();
    let gate = Gate::builder(&shop.issuer, "a", Offer::new(Price::sat(1), Access::pass(DAY)));
    assert_eq!(gate.with_page(Page::new()).build().unwrap_err().kind(), ErrorKind::Page);
}

#[tokio::test]
async fn the_form_sets_a_cookie_that_opens_the_page() {
    let site = Site::open().await;
    let cookie = site.buy("/paper?edition=1").await;
    assert!(cookie.starts_with("__Secure-l402-paper="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; Max-Age=86700; Secure; HttpOnly; SameSite=Lax"), "{cookie}");

    let answer = site.server.get("/paper", &[HTML, &sent(&cookie)]).await;
    assert_eq!(
        (answer.status, answer.text()),
        (200, "cookie: a=b; c=d\n"),
        "and the inner service sees none of it"
    );
    assert_eq!(answer.header("cache-control"), Some("private"));
    assert_eq!(answer.all("vary"), ["Authorization", "Cookie"]);
    assert_eq!(site.server.get("/thrice", &[HTML, &sent(&cookie)]).await.status, 402, "another service");
    let alone = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(site.server.get("/paper", &[&alone]).await.text(), "");
}

#[tokio::test]
async fn a_counted_token_is_debited_by_its_cookie_and_sold_again_when_it_is_used_up() {
    let site = Site::open().await;
    let cookie = sent(&site.buy("/thrice").await);
    for left in ["r=2", "r=1", "r=0"] {
        let answer = site.server.get("/thrice", &[HTML, &cookie]).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("ratelimit").unwrap().contains(left));
    }
    let answer = site.server.get("/thrice", &[HTML, &cookie]).await;
    assert_eq!(answer.status, 402);
    assert!(answer.text().contains("<h1>thrice</h1>"));
}

#[tokio::test]
async fn what_is_for_one_page_is_kept_for_its_path() {
    let site = Site::open().await;
    let cookie = site.buy("/articles/long").await;
    assert!(cookie.contains("; Path=/articles/long; Max-Age="), "{cookie}");
    let shown = sent(&cookie);
    assert_eq!(site.server.get("/articles/long", &[HTML, &shown]).await.status, 200);
}

#[tokio::test]
async fn what_a_token_is_bound_to_says_whether_it_is_for_one_path() {
    let caveats = || {
        CaveatRegistry::new()
            .bind("host", |head| Some(head.headers.get("host")?.to_str().ok()?.to_owned()))
            .bind("edition", |head| head.uri.query().map(str::to_owned))
    };
    let shop = Shop::with(|builder| builder.with_caveats(caveats()).with_page("/l402", Page::new()));
    let offer = Offer::new(Price::sat(1), Access::pass(HOUR));
    let gate = Gate::new(&shop.issuer, "paper", offer).unwrap();
    let app = Router::new()
        .route("/paper", get(|| async {}).layer(L402Layer::new(gate)))
        .merge(shop.issuer.page_router());
    let site = Site { server: serve(app).await, shop };
    let cookie = site.buy("/paper").await;
    assert!(cookie.contains("; Path=/;"), "the host is the same for the form: {cookie}");
    let cookie = site.buy("/paper?may").await;
    assert!(cookie.contains("; Path=/paper;"), "the edition is not: {cookie}");

    // What is for all paths ends one that was kept for this one.
    let paid = site.shop.pay(&site.page("/paper").await);
    let (token, preimage) = (paid.base64(), paid.preimage());
    let opened = site.post(&[("token", &token), ("preimage", &preimage), ("back", "/paper?a")], &[]).await;
    let ended = "__Secure-l402-paper=; Path=/paper; Max-Age=0; Secure; HttpOnly; SameSite=Lax";
    assert_eq!(opened.all("set-cookie")[1..], [ended]);
}

#[tokio::test]
async fn a_token_that_opens_several_services_has_a_cookie_for_each() {
    let shop = Shop::with(|builder| builder.with_page("/l402", Page::new()));
    let offer = Offer::new(Price::sat(1), Access::pass(HOUR)).also_opens(&["other"]);
    let both = Gate::new(&shop.issuer, "both", offer).unwrap();
    let app = Router::new()
        .route("/", get(|| async {}).layer(L402Layer::new(both)))
        .merge(shop.issuer.page_router());
    let site = Site { server: serve(app).await, shop };
    let page = site.page("/").await;
    let paid = site.shop.pay(&page);
    let opened = site.post(&[("token", &paid.base64()), ("preimage", &paid.preimage())], &[]).await;
    let names: Vec<_> =
        opened.all("set-cookie").iter().map(|c| c.split('=').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["__Secure-l402-both", "__Secure-l402-other"]);
}

#[tokio::test]
async fn the_payment_is_seen_and_opens_the_page_without_a_preimage() {
    let site = Site::open().await;
    let page = site.page("/paper").await;
    let token = field(&page, "token");
    let answer = site.paid_states(&token).await;
    assert_eq!((answer.status, answer.text()), (200, "{\"paid\":false}"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let early = site.post(&[("token", &token), ("preimage", ""), ("back", "/paper")], &[]).await;
    assert_eq!(early.status, 503);
    assert!(
        early.text().contains("has not arrived yet") && early.text().contains(&format!("value=\"{token}\""))
    );

    site.shop.pay(&page);
    site.shop.clock.advance(Duration::from_secs(6)); // the backend is asked again after 5 s
    assert_eq!(site.paid_states(&token).await.text(), "{\"paid\":true}");
    let opened = site.post(&[("token", &token), ("preimage", " "), ("back", "/paper")], &[]).await;
    assert_eq!(opened.status, 303);
    let cookie = sent(opened.all("set-cookie")[0]);
    assert_eq!(site.server.get("/paper", &[&cookie]).await.status, 200);

    for (token, status) in [("", 400), ("x", 400), (&*RootKeyOfOthers::token(), 400)] {
        let answer = site.paid_states(token).await;
        assert_eq!((answer.status, answer.text()), (status, "{\"paid\":false}"), "{token}");
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(site.server.get("/l402", &[]).await.status, 400);
}

struct RootKeyOfOthers;

impl RootKeyOfOthers {
    /// A well-formed token that this server did not mint.
    fn token() -> String {
        let identifier =
            l402::macaroon::Identifier { version: 0, payment_hash: [7; 32].into(), token_id: [1; 32].into() };
        l402::macaroon::mint(b"another key", &identifier, ["services=paper:0"]).unwrap().to_base64()
    }
}

#[tokio::test]
async fn without_settled_tokens_only_the_preimage_opens() {
    let site = Site::with(|builder| builder.with_page("/l402", Page::new())).await;
    let page = site.page("/paper").await;
    assert!(!page.text().contains("data-sees") && page.text().contains(" required>"));
    let token = field(&page, "token");
    let paid = site.shop.pay(&page);
    assert_eq!(site.paid_states(&token).await.status, 404);
    let alone = site.post(&[("token", &token), ("preimage", "")], &[]).await;
    assert_eq!((alone.status, alone.all("set-cookie").len()), (400, 0));
    assert!(alone.text().contains("A preimage is 64 digits"));
    let opened = site.post(&[("token", &token), ("preimage", &paid.preimage())], &[]).await;
    assert_eq!((opened.status, opened.header("location")), (303, Some("/")));
}

#[tokio::test]
async fn a_form_that_opens_nothing_says_why_and_sets_no_cookie() {
    let site = Site::open().await;
    let page = site.page("/paper").await;
    let token = field(&page, "token");
    let other = site.shop.pay(&site.page("/paper").await);
    let paid = site.shop.pay(&page);
    let good = paid.preimage();
    for (fields, lines, status, text, again) in [
        (&[("token", &*token), ("preimage", "zz")][..], &[][..], 400, "A preimage is 64 digits", true),
        (
            &[("token", &token), ("preimage", &other.preimage())],
            &[],
            400,
            "preimage of another payment",
            true,
        ),
        (&[("token", &RootKeyOfOthers::token()), ("preimage", &good)], &[], 400, "cannot be opened", false),
        (&[("token", "<b>"), ("preimage", &good)], &[], 400, "cannot be opened", false),
        (&[("preimage", &good)], &[], 400, "cannot be opened", false),
        (&[], &[], 400, "A preimage is 64 digits", true),
        (
            &[("token", &token), ("preimage", &good)],
            &["Sec-Fetch-Site: cross-site"],
            403,
            "cannot be opened",
            false,
        ),
        (
            &[("token", &token), ("preimage", &good)],
            &["Sec-Fetch-Site: same-site"],
            403,
            "cannot be opened",
            false,
        ),
    ] {
        let answer = site.post(fields, lines).await;
        assert_eq!((answer.status, answer.all("set-cookie").len()), (status, 0), "{fields:?}");
        assert!(answer.text().contains(text), "{}", answer.text());
        assert_eq!(answer.text().contains("<form"), again, "{fields:?}");
        assert!(!answer.text().contains(&good), "no preimage is sent back");
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
    }
    let long = site.post(&[("token", &"a".repeat(6000))], &[]).await;
    assert_eq!(long.status, 413);
    let json =
        site.server.send_body("POST /l402", &["Content-Type: text/plain", "Content-Length: 2"], b"{}").await;
    assert_eq!(json.status, 400);
    let put = site.server.send("PUT /l402", &[]).await;
    assert_eq!((put.status, put.header("allow")), (405, Some("GET, HEAD, POST")));
    // One that has expired opens nothing, and is not kept.
    site.shop.clock.advance(2 * DAY);
    let late = site.post(&[("token", &token), ("preimage", &good)], &[]).await;
    assert_eq!((late.status, late.all("set-cookie").len()), (400, 0));
}

#[tokio::test]
async fn the_form_sends_nobody_to_another_origin() {
    let site = Site::open().await;
    let paid = site.shop.pay(&site.page("/paper").await);
    for (back, location) in [
        ("/paper?a=b", "/paper?a=b"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nX-Evil: 1", "/"),
        ("", "/"),
    ] {
        let fields = [("token", &*paid.base64()), ("preimage", &paid.preimage()), ("back", back)];
        let answer = site.post(&fields, &[]).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some(location)), "{back:?}");
        assert_eq!(answer.header("x-evil"), None);
    }
    // Nor does the page, whatever it was asked for.
    let page = site.server.get("//evil.example/../paper", &[HTML]).await;
    assert_eq!(page.status, 404);
}

#[tokio::test]
async fn a_broken_cookie_is_no_credential_and_an_authorization_comes_first() {
    let site = Site::open().await;
    let cookie = site.buy("/paper").await;
    let value = cookie.split(';').next().unwrap().split('=').nth(1).unwrap().to_owned();
    let (token, preimage) = value.split_once(':').unwrap();
    for broken in [
        "x",
        ":",
        &value[..40],
        &format!("{token}:{}", "0".repeat(64)),
        &format!("A{value}"),
        &"a".repeat(7000),
    ] {
        let answer =
            site.server.get("/paper", &[HTML, &format!("Cookie: __Secure-l402-paper={broken}")]).await;
        assert_eq!(answer.status, 402, "{broken}");
        assert!(answer.text().contains("lightning:"), "a page to pay at");
    }
    let both = [HTML, &sent(&cookie), "Authorization: L402 x:y"];
    assert_eq!(site.server.get("/paper", &both).await.status, 401, "what is shown on purpose is judged");
    let broken = "Cookie: __Secure-l402-paper=x; a=b";
    let answer =
        site.server.get("/paper", &[broken, &format!("Authorization: L402 {token}:{preimage}")]).await;
    assert_eq!((answer.status, answer.text()), (200, "cookie: a=b\n"));
}

#[tokio::test]
async fn a_request_of_another_site_does_not_use_what_was_paid_for() {
    let site = Site::open().await;
    let cookie = sent(&site.buy("/paper").await);
    for (request, lines, status) in [
        (
            "GET /paper",
            &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"][..],
            200,
        ),
        (
            "GET /paper",
            &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"],
            402,
        ),
        (
            "POST /paper",
            &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"],
            402,
        ),
        ("POST /paper", &["Sec-Fetch-Site: same-origin"], 200),
        ("POST /paper", &[], 402),
    ] {
        let lines: Vec<_> = lines.iter().copied().chain([&*cookie]).collect();
        assert_eq!(site.server.send(request, &lines).await.status, status, "{request} {lines:?}");
    }
}

#[tokio::test]
async fn a_gate_that_forwards_the_credential_forwards_it_as_one() {
    let shop = Shop::with(|builder| builder.with_page("/l402", Page::new()));
    let offer = Offer::new(Price::sat(1), Access::pass(HOUR));
    let gate = Gate::builder(&shop.issuer, "svc", offer).forward_credential().build().unwrap();
    let inner = |headers: HeaderMap| async move {
        assert!(!headers.contains_key("cookie"));
        headers["authorization"].to_str().unwrap().to_owned()
    };
    let server = serve(Router::new().route("/", get(inner).layer(L402Layer::new(gate)))).await;
    let paid = shop.pay(&server.get("/", &[]).await);
    let cookie = format!("Cookie: __Secure-l402-svc={}:{}", paid.base64(), paid.preimage());
    assert_eq!(server.get("/", &[&cookie]).await.text(), paid.value());
}

#[tokio::test]
async fn without_a_router_the_route_is_served_from_parts() {
    let shop = Shop::with(|builder| builder.with_page("/l402", Page::new()));
    let gate = Gate::new(&shop.issuer, "svc", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
    let (mut head, ()) =
        Request::builder().uri("/a?b").header("accept", "text/html").body(()).unwrap().into_parts();
    let refused = gate.admit(&mut head).await.unwrap_err();
    let html = String::from_utf8(refused.body().to_vec()).unwrap();
    assert!(html.contains("name=\"back\" value=\"/a?b\""));
    let challenge: l402::Challenge = refused.headers()["www-authenticate"].to_str().unwrap().parse().unwrap();
    let preimage = shop.wallet.pay(challenge.invoice()).unwrap().to_hex();
    let body = form(&[("token", &challenge.token().to_base64()), ("preimage", &preimage), ("back", "/a?b")]);
    let request = Request::post("/l402").header("content-type", "application/x-www-form-urlencoded");
    let answer = shop.issuer.serve_page(request.body(Bytes::from(body)).unwrap()).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (303, &"/a?b".parse().unwrap()));
    assert!(answer.headers()["set-cookie"].is_sensitive());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_body_and_any_cookie_are_answered(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300), cookie in "[ -~]{0,200}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shop = Shop::with(|builder| builder.with_page("/l402", Page::new()));
            let request = Request::post("/l402").header("content-type", "application/x-www-form-urlencoded");
            let answer = shop.issuer.serve_page(request.body(Bytes::from(body)).unwrap()).await;
            assert_eq!(answer.status().as_u16(), 400);
            let gate = Gate::new(&shop.issuer, "svc", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
            let cookie = format!("__Secure-l402-svc={cookie}");
            let (mut head, ()) = Request::builder().header("cookie", cookie).body(()).unwrap().into_parts();
            assert_eq!(gate.admit(&mut head).await.unwrap_err().status().as_u16(), 402);
        });
    }
}

#[test]
fn a_page_can_be_shared() {
    fn shared<T: Send + Sync + Clone + std::fmt::Debug>() {}
    shared::<Page>();
    shared::<Texts>();
}
