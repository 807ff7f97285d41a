//! The command `l402`, run as its users run it: a process of its own, against
//! our server, with a wallet on a node that is a fake.
#![cfg(feature = "cli")]
#![allow(missing_docs)]

mod support {
    pub mod books;
    pub mod payer;
    pub mod paying_phoenixd;
    pub mod wire;
}

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use l402::client::{Budget, PurchaseState, SqliteStore, TokenStore as _};
use l402::{Access, DAY, Gate, Issuer, KeyRing, L402Layer, MemoryLedger, Network, Offer, Price, RootKey};
use serde_json::Value;
use support::payer::{NextPay, Payee};
use support::paying_phoenixd::{FULL_PASSWORD, PayingPhoenixd};
use support::wire::{Server, serve};

const FORECAST: &str = "sun tomorrow\n";
/// What a payment of 21 sat costs: phoenixd tells whole satoshis of its fee.
const COST_MSAT: u64 = 21_000 + 1_999;

/// A node that pays, a server that it can pay, and a home folder.
struct Stage {
    node: PayingPhoenixd,
    server: Server,
    home: tempfile::TempDir,
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn sold_by(node: &PayingPhoenixd) -> Router {
    let payee = Payee(node.payments.books().clone());
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), payee)
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .build()
        .unwrap();
    let hundred = Offer::new(Price::sat(21), Access::uses(100).within(DAY)).with_title("100 forecasts");
    let notes =
        Offer::new(Price::sat(21), Access::uses(100).within(DAY)).with_capabilities(&["read", "write"]);
    let notes = Gate::builder(&issuer, "notes", notes);
    let notes = |capability| L402Layer::new(notes.clone().require_capability(capability).build().unwrap());
    let broken =
        Gate::new(&issuer, "broken", Offer::new(Price::sat(21), Access::uses(9).within(DAY))).unwrap();
    Router::new()
        .route("/free", get(|| async { "free\n" }))
        .route("/broken", get(|| async { StatusCode::IM_A_TEAPOT }).route_layer(L402Layer::new(broken)))
        .route("/read", get(|| async { "a note\n" }).route_layer(notes("read")))
        .route("/write", post(|body: String| async { body }).route_layer(notes("write")))
        .route(
            "/forecast",
            get(|| async { FORECAST })
                .route_layer(L402Layer::new(Gate::new(&issuer, "forecast", hundred).unwrap())),
        )
}

impl Stage {
    async fn set() -> Self {
        let node = PayingPhoenixd::start().await;
        let server = serve(sold_by(&node)).await;
        Self { node, server, home: tempfile::tempdir().unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_l402"));
        command.env_clear().env("HOME", self.home.path()).stdin(Stdio::null());
        command
    }

    /// With the wallet in the environment.
    async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(FULL_PASSWORD, arguments).await
    }

    async fn run_with(&self, password: &str, arguments: &[&str]) -> Ran {
        run(self.command_with(password), arguments).await
    }

    fn command_with(&self, password: &str) -> Command {
        let mut command = self.command();
        command
            .env("L402_WALLET", "phoenixd")
            .env("PHOENIXD_URL", self.node.url())
            .env("PHOENIXD_NETWORK", "regtest")
            .env("PHOENIXD_PASSWORD", password);
        command
    }

    /// Without a wallet in the environment.
    async fn run_bare(&self, arguments: &[&str]) -> Ran {
        run(self.command(), arguments).await
    }

    /// As if it were begun long enough ago for nobody to be at it.
    async fn age_what_is_pending(&self) {
        let store = SqliteStore::open(self.path(".local/share/l402/tokens.db")).await.unwrap();
        for mut purchase in store.all().await.unwrap() {
            if matches!(purchase.state, PurchaseState::Pending) {
                store.fail(purchase.payment_hash).await.unwrap();
                purchase.begun_at -= 75;
                store.begin(&purchase, &Budget::default(), purchase.begun_at).await.unwrap();
            }
        }
    }

    fn spent_msat(&self) -> u64 {
        self.node.payments.spent_msat()
    }
}

async fn run(mut command: Command, arguments: &[&str]) -> Ran {
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran {
        code: output.status.code().expect("it ends by itself"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

impl Ran {
    #[track_caller]
    fn is(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_paid_for_once_and_the_token_used_again() {
    let stage = Stage::set().await;
    let url = stage.url("/forecast?a=b");
    for _ in 0..2 {
        let ran = stage.run(&["get", &url, "--max-sat", "50"]).await.is(0);
        assert_eq!((&*ran.stdout, &*ran.stderr), (FORECAST, ""));
        assert_eq!(stage.node.payments.asked().len(), 1);
    }

    let receipts = stage.run(&["receipts", "--json"]).await.is(0).json();
    assert_eq!(receipts["total_msat"], COST_MSAT);
    assert_eq!(receipts["receipts"][0]["path"], "/forecast");
    assert_eq!(receipts["receipts"][0]["amount_msat"], 21_000);
    let budget = stage.run(&["budget", "--json"]).await.is(0).json();
    for limit in ["hour", "day", "total"] {
        assert_eq!(budget[limit]["spent_msat"], COST_MSAT, "{limit}");
    }
    assert_eq!(budget["request"]["limit_msat"], 100_000);

    let lists = stage.run(&["receipts", "--since", "7d"]).await.is(0).stdout;
    assert!(lists.contains("/forecast  services=forecast:0;"), "{lists}");
    assert!(lists.ends_with("22.999 sat in 1 payments\n"), "{lists}");
    let none = stage.run(&["receipts", "--since", "2999-01-01"]).await.is(0).stdout;
    assert_eq!(none, "0 sat in 0 payments\n");
    let text = stage.run(&["budget"]).await.is(0).stdout;
    assert!(text.contains("hour     1000 sat, spent 22.999 sat\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_pays_nothing_and_needs_no_wallet() {
    let stage = Stage::set().await;
    let url = stage.url("/forecast");
    let ran = stage.run_bare(&["get", &url, "--dry-run"]).await.is(0);
    assert_eq!(ran.stdout, "");
    for shown in [
        "asks 21 sat (regtest) for /forecast\n",
        "opens: forecast\n",
        "offer: 100 forecasts, 21 sat, 100 uses, 86400 s\n",
        "nothing was paid",
    ] {
        assert!(ran.stderr.contains(shown), "{}", ran.stderr);
    }
    let quote =
        &stage.run_bare(&["get", &url, "--dry-run", "--json", "--max-sat", "5"]).await.is(0).json()["quote"];
    assert_eq!((&quote["amount_msat"], &quote["network"]), (&21_000.into(), &"regtest".into()));
    assert_eq!((&quote["offers"][0]["uses"], &quote["beyond_limit"]), (&100.into(), &"request".into()));
    let free = stage.run_bare(&["get", &stage.url("/free"), "--dry-run"]).await.is(0);
    assert_eq!((&*free.stdout, &*free.stderr), ("free\n", "nothing is asked for it\n"));
    assert_eq!(stage.spent_msat(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_command_has_a_code_of_its_own() {
    let stage = Stage::set().await;
    let (forecast, free) = (stage.url("/forecast"), stage.url("/free"));
    let out = stage.path("no/such/folder");
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}/");
    for (code, arguments, says) in [
        (0, vec!["--help"], ""),
        (0, vec!["get", &free], ""),
        (1, vec!["get", &forecast, "--max-sat", "50", "-o", out.to_str().unwrap()], "no/such/folder: "),
        (2, vec![], "no command"),
        (2, vec!["buy"], "no command `buy`"),
        (2, vec!["get"], "takes a URL"),
        (2, vec!["get", &free, "--max-sat", "x"], "cannot parse argument"),
        (2, vec!["get", &free, "--budget"], "--budget"),
        (2, vec!["get", "api.example/a"], "write it as in "),
        (2, vec!["get", &free, "-H", "no header"], "-H takes a header"),
        (2, vec!["receipts", "--since", "soon"], "`soon` is no time"),
        (2, vec!["tokens", "remove", "abcdef"], "no token `abcdef`"),
        (3, vec!["get", &forecast, "--max-sat", "20"], "beyond the limit of one request, 20000 msat"),
        (3, vec!["get", &forecast], "it asks 21 sat; say --max-sat or --yes"),
        (7, vec!["get", &closed], "was not reached"),
        (22, vec!["get", &stage.url("/nothing")], "the answer is 404 Not Found"),
    ] {
        let ran = stage.run(&arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
    assert_eq!(stage.spent_msat(), 0);
    let help = stage.run(&["get", "--help"]).await;
    assert_eq!(help.code, 0, "{}", help.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_goes_wrong_has_a_code_of_its_own() {
    let stage = Stage::set().await;
    let buy = ["get", &stage.url("/forecast"), "--max-sat", "50", "--json"];
    let failed = stage.run_with("not-the-password", &buy).await.is(4);
    assert_eq!(failed.json()["code"], 4);
    assert!(!failed.stderr.contains("not-the-password"), "{}", failed.stderr);

    stage.node.payments.answer_next(NextPay::Status(500));
    let uncertain = stage.run(&buy).await.is(5);
    assert!(uncertain.stderr.contains("may have been made"), "{}", uncertain.stderr);
    let pending = stage.run(&["receipts", "--json"]).await.is(0).json();
    assert_eq!((&pending["total_msat"], &pending["pending"][0]["amount_msat"]), (&0.into(), &21_000.into()));
    let pending = stage.run(&["receipts"]).await.is(0).stdout;
    assert!(pending.contains("pending: the next request there looks it up"), "{pending}");
    let too_soon = stage.run(&buy).await.is(5);
    assert!(too_soon.stderr.contains("ask again in "), "{}", too_soon.stderr);
    stage.age_what_is_pending().await;
    // The next one pays the invoice that was begun, and no other.
    stage.run(&buy).await.is(0);
    assert_eq!(stage.run(&["receipts", "--json"]).await.is(0).json()["pending"], serde_json::json!([]));
    assert_eq!(stage.spent_msat(), 21_000 + 1_234);

    let broken = ["get", &stage.url("/broken"), "--yes", "--json"];
    let vain = stage.run(&broken).await.is(6).json();
    assert_eq!((&vain["status"], &vain["receipt"]["amount_msat"]), (&418.into(), &21_000.into()));
    let again = stage.run(&broken).await.is(22).json();
    assert_eq!((&again["status"], &again["receipt"]), (&418.into(), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_goes_where_it_is_asked() {
    let stage = Stage::set().await;
    let (url, file) = (stage.url("/forecast"), stage.path("body"));
    let to = file.to_str().unwrap();
    // A request that fails leaves what is there.
    std::fs::write(&file, "a longer text that was there before").unwrap();
    stage.run(&["get", &url, "-o", to, "--max-sat", "1"]).await.is(3);
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("a longer"));
    let ran = stage.run(&["get", &url, "-o", to, "--max-sat", "50", "--json"]).await.is(0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), FORECAST);
    let json = ran.json();
    assert_eq!((&json["status"], &json["file"], &json["body"]), (&200.into(), &to.into(), &Value::Null));
    assert_eq!(json["receipt"]["fee_msat"], 1_999);
    assert_eq!(json["headers"]["content-length"][0], FORECAST.len().to_string());

    let new = stage.path("new");
    stage.run(&["get", &url, "-o", new.to_str().unwrap(), "--config", "none"]).await.is(2);
    assert!(!new.exists());
    std::fs::write(stage.path("note"), "a note").unwrap();
    let from = format!("@{}", stage.path("note").display());
    let sent = stage
        .run(&["get", &stage.url("/write"), "-d", &from, "-H", "content-type: text/plain", "--yes"])
        .await;
    assert_eq!(sent.is(0).stdout, "a note");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_replaced_as_a_whole_where_it_is() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let stage = Stage::set().await;
    let (file, link) = (stage.path("body"), stage.path("link"));
    std::fs::write(&file, "a longer text that was there before").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&file, &link).unwrap();
    let mut old = std::fs::File::open(&file).unwrap();
    stage.run(&["get", &stage.url("/free"), "-o", link.to_str().unwrap()]).await.is(0);
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "free\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut old, &mut text).unwrap();
    assert!(text.starts_with("a longer"), "whoever reads the old one reads it whole");
    let names = std::fs::read_dir(stage.home.path()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(names.filter(|name| name.extension().is_some_and(|part| part == "part")).count(), 0);
}

/// Nothing can be written to it.
#[cfg(target_os = "linux")]
const FULL: &str = "/dev/full";

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_is_said_though_the_answer_cannot_be_written() {
    let stage = Stage::set().await;
    let get = ["get", &stage.url("/forecast"), "--yes", "--json", "-o", FULL];
    let ran = stage.run(&get).await.is(6);
    assert!(ran.stderr.contains("/dev/full: ") && ran.stderr.contains("paid 21 sat"), "{}", ran.stderr);
    let json = ran.json();
    assert_eq!((&json["body"], &json["code"]), (&FORECAST.into(), &6.into()));
    assert_eq!(json["receipt"]["amount_msat"], 21_000);
    assert!(json["error"].as_str().unwrap().starts_with("/dev/full: "), "{json}");
    // Nothing was paid for this one.
    assert_eq!(stage.run(&get).await.is(1).json()["code"], 1);

    for more in [&[][..], &["--json"]] {
        let stage = Stage::set().await;
        let mut command = stage.command_with(FULL_PASSWORD);
        let full = std::fs::OpenOptions::new().write(true).open(FULL).unwrap();
        command
            .args(["get", &stage.url("/forecast"), "--yes"])
            .args(more)
            .stdout(full)
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(6), "{stderr}");
        assert!(stderr.contains("paid 21 sat and a fee of 1.999 sat to http://"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weaker_token_opens_what_is_left_of_it() {
    let stage = Stage::set().await;
    stage.run(&["get", &stage.url("/read"), "--yes"]).await.is(0);
    let listed = stage.run(&["tokens", "--json"]).await.is(0).json();
    let id = listed[0]["id"].as_str().unwrap();
    let weaker = async |options: &[&str]| {
        let ran = stage.run(&[&["tokens", "restrict", id], options].concat()).await.is(0);
        format!("Authorization: {}", ran.stdout.trim())
    };
    let status = async |request: &str, line: &str| {
        let answer = stage.server.send_body(request, &[line, "Content-Length: 0"], b"").await;
        answer.status
    };
    let whole = stage.run(&["tokens", "--show"]).await.is(0).stdout;
    let whole = whole.lines().find_map(|line| line.trim().strip_prefix("Authorization: ")).unwrap();
    assert_eq!(status("POST /write", &format!("Authorization: {whole}")).await, 200);

    let reads = weaker(&["--capability", "read", "--valid-until", "1h"]).await;
    assert_eq!(status("GET /read", &reads).await, 200);
    assert_ne!(status("POST /write", &reads).await, 200);
    let gets = weaker(&["--method", "GET"]).await;
    assert_eq!((status("GET /read", &gets).await, status("POST /write", &gets).await == 200), (200, false));
    // Three uses are spent.
    let none = weaker(&["--max-uses", "3"]).await;
    assert_ne!(status("GET /read", &none).await, 200);

    for (options, says) in [
        (&["--capability", "admin"][..], "does not have the capability `admin`"),
        (&["--valid-until", "30d"], "valid_until"),
        (&["--max-uses", "101"], "max_uses 101, where it has 100"),
        (&[], "nothing is taken away"),
    ] {
        let ran = stage.run(&[&["tokens", "restrict", id], options].concat()).await.is(2);
        assert!(ran.stderr.contains(says) && ran.stdout.is_empty(), "{options:?}: {}", ran.stderr);
    }
    stage.run(&["tokens", "remove", id]).await.is(0);
    assert_eq!(stage.run(&["tokens"]).await.is(0).stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_printed_where_they_are_asked_for_alone() {
    let stage = Stage::set().await;
    let url = stage.url("/forecast");
    let mut printed = String::new();
    for arguments in [
        &["get", &url, "--yes", "--json"][..],
        &["get", &url, "--yes"],
        &["tokens"],
        &["tokens", "--json"],
        &["receipts"],
        &["receipts", "--json"],
        &["budget"],
        &["get", &url, "--dry-run"],
    ] {
        let ran = stage.run(arguments).await.is(0);
        printed.push_str(&(ran.stdout + &ran.stderr));
    }
    let shown = stage.run(&["tokens", "--show", "--json"]).await.is(0).json();
    let credential = shown[0]["authorization"].as_str().unwrap().strip_prefix("L402 ").unwrap();
    let (token, preimage) = credential.split_once(':').unwrap();
    for secret in [token, preimage, FULL_PASSWORD] {
        assert!(!printed.contains(secret), "{printed}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path| stage.path(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(".local/share/l402"), 0o700);
        assert_eq!(mode(".local/share/l402/tokens.db"), 0o600);
    }
}

fn write_config(stage: &Stage, text: &str) {
    let dir = stage.path(".config/l402");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.json"), text).unwrap();
    std::fs::write(dir.join("password"), format!("{FULL_PASSWORD}\n")).unwrap();
}

fn config(node: &PayingPhoenixd, more: &str) -> String {
    format!(
        r#"{{
  "wallet": {{ "kind": "phoenixd", "url": "{}", "network": "regtest", "secret_file": "password" }}{more}
}}"#,
        node.url()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_file_says_who_pays_whom_and_how_much() {
    let stage = Stage::set().await;
    let (forecast, read) = (stage.url("/forecast"), stage.url("/read"));
    let more = format!(
        r#", "budget": {{ "request_sat": 30, "hour_sat": 40 }}, "origins": ["http://{}"]"#,
        stage.server.address
    );
    write_config(&stage, &config(&stage.node, &more));
    stage.run_bare(&["get", &forecast, "--max-sat", "500"]).await.is(0);
    let beyond = stage.run_bare(&["get", &read, "--max-sat", "500"]).await.is(3);
    assert!(beyond.stderr.contains("budget of this hour"), "{}", beyond.stderr);
    write_config(&stage, &config(&stage.node, r#", "origins": ["https://api.example"]"#));
    let other = stage.run_bare(&["get", &read, "--max-sat", "50"]).await.is(3);
    assert!(other.stderr.contains("not among the origins"), "{}", other.stderr);
    assert_eq!(stage.spent_msat(), 21_000 + 1_234);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_wrong_are_named() {
    let stage = Stage::set().await;
    let url = stage.url("/free");
    let none = stage.run_bare(&["get", &url]).await.is(2);
    assert!(none.stderr.contains("set L402_WALLET to lnd, cln"), "{}", none.stderr);
    let without_url = r#"{ "wallet": { "kind": "phoenixd", "secret_file": "password" } }"#;
    for (text, says) in [
        ("{\n  \"budget\": {\n    \"day\": 5\n  }\n}", "unknown field `day`"),
        ("{\n  \"budget\": {\n    \"day\": 5\n  }\n}", "at line 3 column"),
        ("{\n  \"origins\": [,]\n}", "at line 2 column"),
        ("{\n  \"wallet\": \"nostr-s3cret\"\n}", "a value of another kind than is taken at line 2 column"),
        (r#"{ "wallet": { "kind": "nostr+walletconnect://s3cret" } }"#, "\"wallet\" in "),
        ("{ \"origins\": [\"api.example\"] }", "no wallet"),
        (without_url, "\"wallet\" of kind phoenixd lacks \"url\""),
        (r#"{ "wallet": { "kind": "phoenixd", "url": "http://127.0.0.1:1" } }"#, "lacks \"secret_file\""),
        (r#"{ "wallet": { "kind": "bank" } }"#, "it may be lnd, cln, phoenixd, lnbits or nwc"),
    ] {
        write_config(&stage, text);
        let ran = stage.run_bare(&["get", &url]).await.is(2);
        assert!(ran.stderr.contains(says) && ran.stderr.contains("config.json"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    }
    write_config(&stage, &config(&stage.node, r#", "origins": ["api.example"]"#));
    let origin = stage.run_bare(&["get", &url]).await.is(2);
    assert!(origin.stderr.contains("`api.example`: not an origin"), "{}", origin.stderr);
    for (variables, says) in [
        (&[("L402_WALLET", "bank")][..], "L402_WALLET is `bank`"),
        (
            &[("L402_WALLET", "nostr+walletconnect://s3cret")],
            "L402_WALLET is not one that there is: it may be lnd",
        ),
        (&[("L402_WALLET", "lnd")], "set LND_URL"),
        (&[("L402_WALLET", "lnd"), ("LND_URL", "https://a")], "set LND_MACAROON_FILE"),
        (&[("L402_WALLET", "cln"), ("CLN_URL", "https://a")], "set CLN_RUNE or CLN_RUNE_FILE"),
        (
            &[("L402_WALLET", "lnbits"), ("LNBITS_URL", "https://a")],
            "set LNBITS_ADMIN_KEY or LNBITS_ADMIN_KEY_FILE",
        ),
        (&[("L402_WALLET", "nwc")], "set NWC_URI or NWC_URI_FILE"),
        (&[("L402_WALLET", "nwc"), ("NWC_URI", "x"), ("NWC_NETWORK", "moon")], "NWC_NETWORK is `moon`"),
        (&[("L402_WALLET", "nwc"), ("NWC_URI", "x"), ("NWC_NETWORK", "s3cret?")], "NWC_NETWORK is not one"),
    ] {
        let mut command = stage.command();
        command.envs(variables.iter().copied());
        let ran = run(command, &["get", &url, "--config", config_of(&stage).to_str().unwrap()]).await.is(2);
        assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
        assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    }
}

/// One that says nothing.
fn config_of(stage: &Stage) -> PathBuf {
    let file: &Path = &stage.path("empty.json");
    std::fs::write(file, "{}").unwrap();
    file.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_run_at_once_share_one_budget() {
    let stage = Stage::set().await;
    // Room for two reservations of 21 sat and a fee, whenever they are made.
    write_config(&stage, &config(&stage.node, r#", "budget": { "total_sat": 60 }"#));
    let mut servers = Vec::new();
    for _ in 0..6 {
        servers.push(serve(sold_by(&stage.node)).await);
    }
    let running: Vec<_> = servers
        .iter()
        .map(|server| {
            let (command, url) = (stage.command(), format!("http://{}/forecast", server.address));
            tokio::spawn(async move { run(command, &["get", &url, "--yes"]).await.code })
        })
        .collect();
    let mut codes = Vec::new();
    for one in running {
        codes.push(one.await.unwrap());
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, 3, 3, 3, 3]);
    assert_eq!(stage.spent_msat(), 2 * (21_000 + 1_234));
}
