//! What a client may send, over real HTTP: every way in which a credential is
//! written, and what the handler then sees of it.

#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::routing::{any, get};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use l402::macaroon::{MAX_CAVEAT, MAX_MACAROON};
use l402::{Access, Gate, L402Layer, Offer, Price};
use std::time::Duration;
use wire::{Answer, NOW, Paid, Server, Shop, serve};

/// Sold at `NOW`, payable for 5 minutes: good until 2,000,000,000.
const PASS: Duration = Duration::from_secs(2_000_000_000 - NOW - 300);

/// `/svc` and `/svc2` are passes, `/counted` has 10 uses, `/kept` forwards the
/// credential. Every handler answers with the credential headers it saw.
struct Site {
    shop: Shop,
    server: Server,
    calls: Arc<AtomicUsize>,
}

impl Site {
    async fn open() -> Self {
        let shop = Shop::new();
        let pass =
            |name: &str| Gate::builder(&shop.issuer, name, Offer::new(Price::sat(1), Access::pass(PASS)));
        let counted = Offer::new(Price::sat(1), Access::uses(10));
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        let echo = any(move |request: Request<Body>| {
            seen.fetch_add(1, Ordering::SeqCst);
            async move { credential_headers(request.headers()) }
        });
        let route = |gate: Gate| echo.clone().layer(L402Layer::new(gate));
        let app = Router::new()
            .route("/svc", route(pass("svc").build().unwrap()))
            .route("/svc2", route(pass("svc2").build().unwrap()))
            .route("/counted", route(Gate::new(&shop.issuer, "counted", counted).unwrap()))
            .route("/kept", route(pass("kept").forward_credential().build().unwrap()));
        Self { server: serve(app).await, shop, calls }
    }

    async fn buy(&self, path: &str) -> Paid {
        self.shop.pay(&self.server.get(path, &[]).await)
    }

    /// The answer, and whether the handler was called.
    async fn ask(&self, path: &str, lines: &[&str]) -> (Answer, bool) {
        let before = self.calls.load(Ordering::SeqCst);
        let answer = self.server.get(path, lines).await;
        let called = self.calls.load(Ordering::SeqCst) > before;
        assert_eq!(called, answer.status == 200, "only an admitted request reaches the handler");
        (answer, called)
    }

    async fn admits(&self, path: &str, lines: &[&str]) -> String {
        let (answer, called) = self.ask(path, lines).await;
        assert!(called, "{} {}\n{lines:#?}", answer.status, answer.text());
        answer.text().to_owned()
    }

    async fn refuses(&self, path: &str, lines: &[&str], status: u16, code: &str) {
        let (answer, _) = self.ask(path, lines).await;
        let got = (answer.status, answer.code());
        assert_eq!(got, (status, code.to_owned()), "{lines:#?}");
        let challenges = answer.all("www-authenticate");
        if status == 402 {
            assert!(challenges[0].starts_with("L402 macaroon=\""), "{challenges:?}");
        } else {
            assert_eq!(challenges, ["L402"], "a broken credential is not sold another");
        }
    }
}

fn credential_headers(headers: &HeaderMap) -> String {
    ["authorization", "macaroon", "grpc-metadata-macaroon", "token"]
        .into_iter()
        .flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)))
        .fold(String::new(), |text, (name, value)| text + name + ": " + value.to_str().unwrap() + "\n")
}

#[tokio::test]
async fn every_deployed_way_to_write_a_credential_is_admitted() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let (t, p) = (paid.base64(), paid.preimage());
    let bytes = paid.token.as_bytes();
    for value in [
        format!("L402 {t}:{p}"),
        format!("LSAT {t}:{p}"),
        format!("l402 {t}:{p}"),
        format!("lSaT {t}:{p}"),
        format!("L402  {t}:{p}"),
        format!("L402     {t}:{p}"),
        format!("  L402 {t}:{p}  "),
        format!("L402 {t}:{}", p.to_uppercase()),
        format!("L402 {}:{p}", STANDARD_NO_PAD.encode(bytes)),
        format!("L402 {}:{p}", URL_SAFE.encode(bytes)),
        format!("L402 {}:{p}", URL_SAFE_NO_PAD.encode(bytes)),
        // The preimage as a caveat too, as some wallets have it.
        paid.attenuated(&format!("preimage={p}")).value(),
        paid.attenuated(&format!("preimage={}", p.to_uppercase())).value(),
    ] {
        assert_eq!(site.admits("/svc", &[&format!("Authorization: {value}")]).await, "", "{value}");
        site.admits("/svc", &[&format!("AUTHORIZATION:{value}")]).await;
    }
}

/// The padding differs by the length of the token modulo 3, and only some
/// bytes tell the alphabets apart.
#[tokio::test]
async fn both_alphabets_and_all_paddings_are_read() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let mut told_apart = 0;
    for round in 0..12 {
        // Longer by one each time, and of another signature.
        let until = "2".to_owned() + &"0".repeat(9);
        let longer =
            (0..round).fold(paid.clone(), |paid, _| paid.attenuated(&format!("svc_valid_until={until}")));
        let longer = longer.attenuated(&format!("svc_valid_until={}{until}", "0".repeat(round)));
        let bytes = longer.token.as_bytes();
        told_apart += usize::from(STANDARD.encode(bytes) != URL_SAFE.encode(bytes));
        for token in [
            STANDARD.encode(bytes),
            STANDARD_NO_PAD.encode(bytes),
            URL_SAFE.encode(bytes),
            URL_SAFE_NO_PAD.encode(bytes),
        ] {
            site.admits("/svc", &[&format!("Authorization: L402 {token}:{}", paid.preimage())]).await;
        }
    }
    assert!(told_apart > 3, "{told_apart} tokens had another form in each alphabet");
}

#[tokio::test]
async fn a_broken_credential_is_answered_401_and_sold_nothing() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let (t, p, h) = (paid.base64(), paid.preimage(), hex::encode(paid.token.as_bytes()));
    let invoices = site.shop.wallet.payments();
    for (value, code) in [
        (format!("L402 {t}:{}", &p[..62]), "malformed_preimage"),
        (format!("L402 {t}:{p}00"), "malformed_preimage"),
        (format!("L402 {t}:{}", "zz".repeat(32)), "malformed_preimage"),
        (format!("L402 {t}:0x{}", &p[2..]), "malformed_preimage"),
        (format!("L402 :{p}"), "malformed_macaroon"),
        (format!("L402 {t}"), "missing_preimage"),
        (format!("L402 {t}:"), "missing_preimage"),
        ("L402".to_owned(), "missing_preimage"),
        ("lsat ".to_owned(), "missing_preimage"),
        (format!("L402 {h}"), "missing_preimage"),
        (format!("L402 {}", paid.hex()), "missing_preimage"),
        (format!("L402 {t} :{p}"), "malformed_token"),
        (format!("L402 {t}: {p}"), "malformed_preimage"),
        (format!("L402 {t} : {p}"), "malformed_preimage"),
        (format!("L402 {t}:{p} x"), "malformed_preimage"),
        (format!("L402 {t}:{p};q=1"), "malformed_preimage"),
        (format!("L402 \"{t}:{p}\""), "malformed_preimage"),
        (format!("L402 {t}={p}"), "missing_preimage"),
        (format!("L402 {t}::{p}"), "malformed_token"),
        (format!("L402 {t}A:{p}"), "malformed_token"),
        (format!("L402 {}+_:{p}", &t[..t.len() - 2]), "malformed_token"),
        (format!("L402 {}:{p}", STANDARD.encode(&paid.token.as_bytes()[1..])), "malformed_macaroon"),
        (format!("L402 token=\"{t}\", preimage=\"{p}\""), "several_tokens"),
        (format!("L402 {t}:{}", "00".repeat(32)), "wrong_preimage"),
        (format!("L402 {t},{t}:{p}"), "several_tokens"),
        (format!("L402 {t}, {t}:{p}"), "several_tokens"),
        (format!("LSAT {t},{t},{t}:{p}"), "several_tokens"),
        (format!("L402 {t}:{p},{t}:{p}"), "several_tokens"),
    ] {
        site.refuses("/svc", &[&format!("Authorization: {value}")], 401, code).await;
    }
    assert_eq!(site.shop.wallet.payments(), invoices);

    // Hex is made of base64 digits, but is no macaroon then.
    let (answer, _) = site.ask("/svc", &[&format!("Authorization: L402 {h}:{p}")]).await;
    assert_eq!(answer.status, 401, "{}", answer.text());

    let mut altered = paid.token.as_bytes().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let altered = STANDARD.encode(altered);
    site.refuses("/svc", &[&format!("Authorization: L402 {altered}:{p}")], 401, "bad_signature").await;
}

#[tokio::test]
async fn what_is_no_credential_of_ours_is_sold_one() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    for lines in [
        vec![],
        vec!["Authorization: Bearer x".to_owned()],
        vec!["Authorization: Basic dXNlcjpwYXNz".to_owned()],
        vec!["Authorization:".to_owned()],
        vec!["Authorization: ,".to_owned()],
        vec!["Authorization: Bearer x".to_owned(), "Authorization: Basic dXNlcjpwYXNz".to_owned()],
        vec![format!("Authorization: L403 {}:{}", paid.base64(), paid.preimage())],
        vec![format!("Authorization: {}:{}", paid.base64(), paid.preimage())],
        vec![format!("X-Authorization: {}", paid.value())],
        vec!["Macaroon: 0201036c6e64".to_owned()],
        vec!["Token: eyJhbGciOiJIUzI1NiJ9.e30.x".to_owned()],
        // The hex of a token is no credential in another application's header.
        vec![format!("X-Macaroon: {}", paid.hex())],
    ] {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        site.refuses("/svc", &lines, 402, "missing_credential").await;
    }
}

#[tokio::test]
async fn a_token_in_hex_is_admitted_in_each_of_three_headers() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let with = paid.hex();
    let without = hex::encode(paid.token.as_bytes());
    for name in ["Macaroon", "macaroon", "Grpc-Metadata-Macaroon", "Token"] {
        for value in [with.clone(), with.to_uppercase()] {
            assert_eq!(site.admits("/svc", &[&format!("{name}: {value}")]).await, "", "{name}");
        }
        site.refuses("/svc", &[&format!("{name}: {without}")], 401, "missing_preimage").await;
        let short = hex::encode(paid.attenuated("preimage=00").token.as_bytes());
        site.refuses("/svc", &[&format!("{name}: {short}")], 401, "malformed_preimage").await;
        let wrong = hex::encode(paid.attenuated(&format!("preimage={}", "00".repeat(32))).token.as_bytes());
        site.refuses("/svc", &[&format!("{name}: {wrong}")], 401, "wrong_preimage").await;
    }
    // Said twice, and beside the header of the specification.
    let (hex, token) = (format!("Macaroon: {with}"), format!("Token: {with}"));
    site.admits("/svc", &[&hex, &token]).await;
    let line = paid.attenuated(&format!("preimage={}", paid.preimage())).line();
    assert_eq!(site.admits("/svc", &[&hex, &line]).await, "");
}

#[tokio::test]
async fn an_expiry_counts_to_the_second_and_the_earliest_counts() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let ends = |ends: &[u64]| {
        ends.iter().fold(paid.clone(), |paid, end| paid.attenuated(&format!("svc_valid_until={end}"))).line()
    };
    site.admits("/svc", &[&ends(&[NOW + 1])]).await;
    site.refuses("/svc", &[&ends(&[NOW])], 402, "expired").await;
    site.refuses("/svc", &[&ends(&[NOW - 1])], 402, "expired").await;
    site.refuses("/svc", &[&ends(&[NOW - 1, NOW + 1])], 402, "expired").await;
    site.refuses("/svc", &[&ends(&[NOW + 1, NOW - 1])], 402, "expired").await;

    // The server's own: good until the last second before 2,000,000,000.
    site.shop.clock.set(1_999_999_999);
    site.admits("/svc", &[&paid.line()]).await;
    site.shop.clock.set(2_000_000_000);
    site.refuses("/svc", &[&paid.line()], 402, "expired").await;
    let later = ends(&[2_100_000_000]);
    site.refuses("/svc", &[&later], 402, "expired").await;
}

#[tokio::test]
async fn a_token_opens_its_own_service_alone() {
    let site = Site::open().await;
    let line = site.buy("/svc").await.line();
    site.admits("/svc", &[&line]).await;
    site.refuses("/svc2", &[&line], 402, "wrong_service").await;
    site.refuses("/counted", &[&line], 402, "wrong_service").await;
}

#[tokio::test]
async fn the_same_credential_said_several_ways_is_one_admission_and_one_debit() {
    let site = Site::open().await;
    let paid = site.buy("/counted").await;
    let hash = paid.preimage.payment_hash();
    let (t, p) = (paid.base64(), paid.preimage());
    let (l402, lsat) = (format!("Authorization: L402 {t}:{p}"), format!("Authorization: LSAT {t}:{p}"));
    let other = URL_SAFE_NO_PAD.encode(paid.token.as_bytes());
    let lsat_url = format!("Authorization: lsat {other}:{}", p.to_uppercase());
    let bearer = "Authorization: Bearer x";
    for (n, (lines, left)) in [
        (vec![&*l402, &*lsat], ""),
        (vec![&*lsat, &*l402], ""),
        (vec![&*l402, &*l402, &*lsat], ""),
        (vec![&*lsat_url, &*l402], ""),
        (vec![bearer, &*lsat, &*l402], "authorization: Bearer x\n"),
        (vec![&*lsat, bearer, &*l402], "authorization: Bearer x\n"),
        (vec![&*lsat, &*l402, bearer], "authorization: Bearer x\n"),
        (vec![&*format!("Authorization: LSAT {t}:{p}, L402 {t}:{p}")], ""),
        (vec![&*format!("Authorization: LSAT {t}:{p},L402 {t}:{p}"), bearer], "authorization: Bearer x\n"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(site.admits("/counted", &lines).await, left, "{lines:#?}");
        let account = site.shop.issuer.account(hash).await.unwrap().unwrap();
        assert_eq!(account.used, n as u64 + 1, "{lines:#?}");
    }
}

#[tokio::test]
async fn two_different_credentials_are_refused() {
    let site = Site::open().await;
    let (one, two) = (site.buy("/svc").await, site.buy("/svc").await);
    let preimage_caveat = |paid: &Paid| paid.attenuated(&format!("preimage={}", paid.preimage()));
    let lines = |lines: &[String]| lines.to_vec();
    for lines in [
        lines(&[one.line(), two.line()]),
        lines(&[one.line(), two.line().replace("L402", "LSAT")]),
        lines(&[one.line(), "Authorization: Bearer x".into(), two.line()]),
        lines(&[format!("Authorization: {}, {}", one.value(), two.value())]),
        lines(&[one.line(), format!("Macaroon: {}", two.hex())]),
        lines(&[format!("Macaroon: {}", one.hex()), format!("Token: {}", two.hex())]),
        // A restricted copy of the same token is another credential.
        lines(&[one.line(), one.attenuated("svc_method=GET").line()]),
        lines(&[one.line(), preimage_caveat(&one).line()]),
        // The same token with a preimage that is not the same.
        lines(&[one.line(), format!("Authorization: L402 {}:{}", one.base64(), two.preimage())]),
        lines(&[one.line(), one.line(), two.line()]),
    ] {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        site.refuses("/svc", &lines, 401, "two_credentials").await;
    }
    // A second one that cannot be read is what is wrong.
    site.refuses("/svc", &[&one.line(), "Authorization: L402 x"], 401, "missing_preimage").await;
    site.refuses("/svc", &["Authorization: L402 x", &one.line()], 401, "missing_preimage").await;
}

#[tokio::test]
async fn several_tokens_with_one_preimage_are_refused_with_their_own_code() {
    let site = Site::open().await;
    let (one, two) = (site.buy("/svc").await, site.buy("/svc").await);
    let (a, b, p) = (one.base64(), two.base64(), one.preimage());
    for value in [format!("L402 {a},{b}:{p}"), format!("L402 {b}, {a}:{p}"), format!("LSAT {a} ,{b}:{p}")] {
        let line = format!("Authorization: {value}");
        site.refuses("/svc", &[&line], 401, "several_tokens").await;
        // Beside a credential that is good.
        site.refuses("/svc", &[&one.line(), &line], 401, "several_tokens").await;
    }
}

#[tokio::test]
async fn lines_of_other_schemes_arrive_at_the_handler_as_they_were_sent() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let ours = paid.line();
    for foreign in [
        "Bearer x",
        "Basic dXNlcjpwYXNz",
        // Commas, with and without space, in and out of quotes.
        r#"Digest username="a",realm="b, c",nonce="d,e", qop=auth"#,
        "AWS4-HMAC-SHA256 Credential=a/b,SignedHeaders=host;date,  Signature=0f",
        "Bearer",
        "x,,y",
    ] {
        let line = format!("Authorization: {foreign}");
        let expected = format!("authorization: {foreign}\n");
        for lines in [vec![&*ours, &*line], vec![&*line, &*ours]] {
            assert_eq!(site.admits("/svc", &lines).await, expected, "{lines:#?}");
        }
        let hex = format!("Macaroon: {}", paid.hex());
        assert_eq!(site.admits("/svc", &[&line, &hex]).await, expected, "beside a hex header");
        let several = site.admits("/svc", &[&line, &ours, &line]).await;
        assert_eq!(several, expected.repeat(2));
    }
}

#[tokio::test]
async fn a_joined_line_keeps_its_foreign_parts() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let ours = paid.value();
    for (line, kept) in [
        (format!("Bearer x, {ours}"), "authorization: Bearer x\n"),
        (format!("{ours}, Bearer x"), "authorization: Bearer x\n"),
        (format!("{ours},Bearer x,{ours}"), "authorization: Bearer x\n"),
        (format!("Bearer x, {ours}, Basic y"), "authorization: Bearer x, Basic y\n"),
        (
            format!(r#"Digest a="b", c="d", {ours}, Bearer x"#),
            "authorization: Digest a=\"b\", c=\"d\", Bearer x\n",
        ),
        (format!("Bearer x, {ours}, "), "authorization: Bearer x\n"),
        (format!(", {ours}, ,Bearer x"), "authorization: Bearer x\n"),
        (format!(r#"Digest a="b,,  c",d=e, {ours}"#), "authorization: Digest a=\"b,,  c\",d=e\n"),
        (format!(r#"Digest a="b,c", {ours}"#), "authorization: Digest a=\"b,c\"\n"),
    ] {
        assert_eq!(site.admits("/svc", &[&format!("Authorization: {line}")]).await, kept, "{line}");
    }
}

#[tokio::test]
async fn empty_parts_of_a_list_say_nothing() {
    let site = Site::open().await;
    let ours = site.buy("/svc").await.value();
    for line in [
        format!(",{ours}"),
        format!(" , ,{ours}"),
        format!("{ours},"),
        format!("{ours}, ,"),
        format!("{ours},,{ours}"),
    ] {
        assert_eq!(site.admits("/svc", &[&format!("Authorization: {line}")]).await, "", "{line}");
    }
    // An empty line, as of a proxy that blanks a header.
    site.admits("/svc", &["Authorization:", &format!("Authorization: {ours}")]).await;
    site.admits("/svc", &[&format!("Authorization: {ours}"), "Authorization:"]).await;
}

#[tokio::test]
async fn values_of_other_applications_are_left_alone() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let short_identifier = "0201036c6e6402047465737400000620".to_owned() + &"00".repeat(32);
    let base64 = format!("Macaroon: {}", paid.base64());
    let long = format!("Token: {}", "0202".repeat(5000));
    for foreign in
        ["Macaroon: apple", "Token: eyJhbGciOiJIUzI1NiJ9.e30.x", "Grpc-Metadata-Macaroon: 00", &base64, &long]
            .into_iter()
            .map(str::to_owned)
            .chain([format!("Macaroon: {short_identifier}"), format!("Token: {}x", paid.hex())])
    {
        let (name, value) = foreign.split_once(": ").unwrap();
        let expected = format!("{}: {value}\n", name.to_ascii_lowercase());
        assert_eq!(site.admits("/svc", &[&paid.line(), &foreign]).await, expected);
        assert_eq!(
            site.admits("/svc", &[&foreign, &format!("Macaroon: {}", paid.hex())]).await,
            expected,
            "ours beside theirs"
        );
        site.refuses("/svc", &[&foreign], 402, "missing_credential").await;
    }
}

#[tokio::test]
async fn the_handler_sees_no_credential_in_any_form() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await.attenuated("svc_method=GET");
    let paid = paid.attenuated(&format!("preimage={}", paid.preimage()));
    let hex = hex::encode(paid.token.as_bytes());
    let lines = [
        paid.line(),
        format!("Authorization: LSAT {}:{}", URL_SAFE.encode(paid.token.as_bytes()), paid.preimage()),
        format!("Macaroon: {hex}"),
        format!("Grpc-Metadata-Macaroon: {}", hex.to_uppercase()),
        format!("Token: {hex}"),
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    assert_eq!(site.admits("/svc", &lines).await, "");
}

#[tokio::test]
async fn a_forwarded_credential_arrives_as_it_was_sent() {
    let site = Site::open().await;
    let paid = site.buy("/kept").await;
    let line = paid.line();
    let bearer = "Authorization: Bearer x";
    let expected = format!("authorization: {}\n", paid.value());
    assert_eq!(site.admits("/kept", &[&line]).await, expected);
    assert_eq!(site.admits("/kept", &[bearer, &line]).await, format!("authorization: Bearer x\n{expected}"));
    let hex = format!("Macaroon: {}", paid.hex());
    assert_eq!(site.admits("/kept", &[&hex]).await, format!("macaroon: {}\n", paid.hex()));
}

#[tokio::test]
async fn oversized_tokens_are_refused_and_the_longest_is_admitted() {
    let site = Site::open().await;
    let paid = site.buy("/svc").await;
    let p = paid.preimage();
    for kib in [6, 8, 12, 64] {
        let line = format!("Authorization: L402 {}:{p}", "A".repeat(kib * 1024));
        site.refuses("/svc", &[&line], 401, "credential_too_long").await;
        let line = format!("Authorization: L402 {}", "A".repeat(kib * 1024));
        site.refuses("/svc", &[&line], 401, "credential_too_long").await;
        // A foreign credential may be as long as it likes.
        let line = format!("Authorization: Bearer {}", "A".repeat(kib * 1024));
        let seen = site.admits("/svc", &[&line, &paid.line()]).await;
        assert_eq!(seen, format!("{}\n", line.replace("Authorization", "authorization")));
    }

    let longest = filled(&paid, MAX_MACAROON);
    assert_eq!(longest.token.as_bytes().len(), MAX_MACAROON);
    let bytes = longest.token.as_bytes();
    for token in [STANDARD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)] {
        site.admits("/svc", &[&format!("Authorization: L402 {token}:{p}")]).await;
        let twice = format!("Authorization: LSAT {token}:{p}, L402 {token}:{p}");
        site.admits("/svc", &[&twice]).await;
    }
    // One byte more, made by hand: nothing of ours makes such a token.
    let mut too_long = bytes.to_vec();
    too_long.push(0);
    let line = format!("Authorization: L402 {}:{p}", STANDARD.encode(too_long));
    let (answer, _) = site.ask("/svc", &[&line]).await;
    assert_eq!(answer.status, 401, "{}", answer.text());

    // In hex it is twice its length.
    let room = "preimage=".len() + 64 + 3;
    let nearly = filled(&paid, MAX_MACAROON - room);
    assert_eq!(nearly.hex().len(), 2 * MAX_MACAROON);
    assert_eq!(site.admits("/svc", &[&format!("Macaroon: {}", nearly.hex())]).await, "");
}

/// The token, attenuated with caveats that hold until it has this length.
fn filled(paid: &Paid, len: usize) -> Paid {
    let caveat = |len: usize| {
        let methods = "svc_method=GET";
        format!("{methods}{}", ",".repeat(len - methods.len()))
    };
    let mut paid = paid.clone();
    loop {
        let left = len - paid.token.as_bytes().len();
        // A caveat of 128 bytes or more costs 4 beside itself, a shorter one 3.
        if left == 0 {
            return paid;
        }
        let next = if left > MAX_CAVEAT + 4 {
            300
        } else if left >= 132 {
            left - 4
        } else {
            left - 3
        };
        paid = paid.attenuated(&caveat(next));
    }
}

#[tokio::test]
async fn many_lines_are_judged_without_harm() {
    let site = Site::open().await;
    let paid = site.buy("/counted").await;
    let line = paid.line();
    let bearer = "Authorization: Bearer x";
    let lines: Vec<&str> = std::iter::repeat_n([&*line, bearer], 8).flatten().collect();
    assert_eq!(site.admits("/counted", &lines).await, "authorization: Bearer x\n".repeat(8));
    assert_eq!(
        site.shop.issuer.account(paid.preimage.payment_hash()).await.unwrap().unwrap().used,
        1,
        "eight lines are one use"
    );
    site.refuses("/counted", &[&*line; 9], 401, "credential_too_long").await;
    let commas = format!("Authorization: {}", ",".repeat(16_000));
    site.refuses("/svc", &[&commas], 402, "missing_credential").await;
    let schemes = format!("Authorization: {}", "L402 x,".repeat(2000));
    let (answer, _) = site.ask("/svc", &[&schemes]).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_header_that_is_not_ascii_is_judged_without_harm() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let shop = Shop::new();
    let gate = Gate::new(&shop.issuer, "svc", Offer::new(Price::sat(1), Access::pass(PASS))).unwrap();
    let app = Router::new().route("/", get(|| async {}).route_layer(L402Layer::new(gate)));
    let server = serve(app).await;
    for (value, status) in
        [(&b"L402 \xff\xfe:\xff"[..], "401"), (b"Bearer \xff", "402"), (b"\xff,L402 \x80", "401")]
    {
        let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let head =
            [&b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: "[..], value, b"\r\n\r\n"];
        socket.write_all(&head.concat()).await.unwrap();
        let mut answer = Vec::new();
        wire::within(socket.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(&answer[9..12], status.as_bytes(), "{value:?}");
    }
}
