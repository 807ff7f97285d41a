//! The contract, against a real node that the environment names. Ignored unless
//! asked for, because it takes a node: `REAL_NODES.md` says how. What is run here
//! always is that the suite itself works, against the fakes.
#![cfg(all(
    feature = "cln",
    feature = "lnbits",
    feature = "lnd",
    feature = "lnurl",
    feature = "nwc",
    feature = "phoenixd"
))]

mod support {
    pub mod books;
    pub mod fake_cln;
    pub mod fake_lnd;
    pub mod fake_phoenixd;
    pub mod nwc;
    pub mod wire;
}

use std::process::Command;
use std::sync::Arc;

use l402::{Error, PaymentBackend, conformance};
use support::fake_cln::{FOR_INVOICES, FakeCln, rune};
use support::fake_lnd::{FakeLnd, MACAROON};
use support::fake_phoenixd::{FakePhoenixd, PASSWORD};
use support::nwc::{Relay, Wallet};

/// A command that pays the BOLT 11 invoice that is put behind it.
const PAY: &str = "L402_PAY_COMMAND";

type Variables<'a> = &'a [(&'a str, &'a str)];

/// Two tests of a backend: `<name>::keeps_the_contract` makes about 60 invoices
/// and pays none, `<name>::is_paid` has one of 21 sat paid.
macro_rules! real_node {
    ($name:ident, $backend:ident) => {
        mod $name {
            #[tokio::test]
            #[ignore = "takes a real node: see tests/REAL_NODES.md"]
            async fn keeps_the_contract() {
                super::keeps_the_contract(l402::$backend::from_env()).await;
            }

            #[tokio::test]
            #[ignore = "takes a real node and a wallet: see tests/REAL_NODES.md"]
            async fn is_paid() {
                super::is_paid(l402::$backend::from_env()).await;
            }
        }
    };
}

real_node!(cln, ClnBackend);
real_node!(lnbits, LnbitsBackend);
real_node!(lnd, LndBackend);
real_node!(lnurl, LnurlBackend);
real_node!(nwc, NwcBackend);
real_node!(phoenixd, PhoenixdBackend);

fn of_the_environment<B>(backend: Result<B, Error>) -> Arc<B> {
    Arc::new(backend.unwrap_or_else(|error| panic!("{error} (see tests/REAL_NODES.md): {error:?}")))
}

async fn keeps_the_contract<B: PaymentBackend + 'static>(backend: Result<B, Error>) {
    let backend = of_the_environment(backend);
    backend.check_health().await.unwrap_or_else(|error| panic!("the node cannot be used: {error:?}"));
    conformance::backend::check(backend).await;
}

async fn is_paid<B: PaymentBackend + 'static>(backend: Result<B, Error>) {
    let backend = of_the_environment(backend);
    let command = std::env::var(PAY)
        .unwrap_or_else(|_| panic!("set {PAY} to a command that pays the invoice put behind it"));
    conformance::backend::check_settlement(backend, async |bolt11: String| {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap_or_else(|| panic!("{PAY} is empty"));
        let status = Command::new(program).args(words).arg(bolt11).status();
        let status = status.unwrap_or_else(|error| panic!("{PAY} cannot be run: {error}"));
        assert!(status.success(), "{PAY} did not pay: {status}");
    })
    .await;
}

/// Runs one of the ignored tests in a process of its own, in this environment;
/// tells whether it passed, and what it said.
async fn run(test: &str, variables: Variables<'_>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", test]);
    for (name, _) in std::env::vars_os() {
        if ["CLN_", "L402_", "LNBITS_", "LND_", "LNURL_", "NWC_", "PHOENIXD_"]
            .iter()
            .any(|ours| name.to_string_lossy().starts_with(ours))
        {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(said.contains("running 1 test"), "{test} is a test: {said}");
    (output.status.success(), said)
}

#[tokio::test]
async fn the_suite_passes_on_a_node_that_the_environment_names() {
    let (lnd, cln, phoenixd) = (FakeLnd::start().await, FakeCln::start().await, FakePhoenixd::start().await);
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (macaroon, rune) = (file("macaroon", &MACAROON), rune(FOR_INVOICES));
    let rune_file = file("rune", format!("{rune}\n").as_bytes());
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/tls/lnd.pem");
    let (lnd_url, cln_url, phoenixd_url) = (lnd.url() + "/", cln.url(), phoenixd.url());
    let uri = wallet.uri();
    let rows: [(&str, Variables); 5] = [
        ("lnd", &[("LND_URL", &lnd_url), ("LND_MACAROON_FILE", &macaroon), ("LND_NETWORK", "regtest")]),
        ("cln", &[("CLN_URL", &cln_url), ("CLN_RUNE", &rune), ("CLN_NETWORK", "regtest")]),
        ("cln", &[("CLN_URL", &cln_url), ("CLN_RUNE_FILE", &rune_file), ("CLN_NETWORK", "regtest")]),
        ("nwc", &[("NWC_URI", &uri), ("NWC_NETWORK", "regtest")]),
        (
            "phoenixd",
            &[
                ("PHOENIXD_URL", &phoenixd_url),
                ("PHOENIXD_PASSWORD", PASSWORD),
                ("PHOENIXD_NETWORK", "regtest"),
            ],
        ),
    ];
    let pinned = [("lnd", "LND_CERTIFICATE_FILE"), ("cln", "CLN_CERTIFICATE_FILE")];
    for (name, variables) in rows {
        let (passed, said) = run(&format!("{name}::keeps_the_contract"), variables).await;
        assert!(passed, "{said}");
        if let Some((_, pinned)) = pinned.iter().find(|(pins, _)| *pins == name) {
            // The fakes speak no TLS, and nobody would look at the certificate.
            let pinning: Vec<_> = variables.iter().copied().chain([(*pinned, certificate)]).collect();
            let (passed, said) = run(&format!("{name}::keeps_the_contract"), &pinning).await;
            assert!(!passed && said.contains("a certificate is given, and the address"), "{said}");
        }

        let (passed, said) = run(&format!("{name}::is_paid"), variables).await;
        assert!(!passed && said.contains("set L402_PAY_COMMAND to a command"), "{said}");
        let with_command: Vec<_> = variables.iter().copied().chain([(PAY, "false")]).collect();
        let (passed, said) = run(&format!("{name}::is_paid"), &with_command).await;
        assert!(!passed && said.contains("L402_PAY_COMMAND did not pay"), "{said}");
    }
    for books in [lnd.books, cln.books, phoenixd.books] {
        assert!(!books.entries().is_empty(), "the fake was asked");
    }
    assert!(!wallet.calls().is_empty(), "the wallet was asked");
}

#[tokio::test]
async fn what_is_missing_in_the_environment_is_named() {
    let url = "http://127.0.0.1:1";
    let rune = rune(FOR_INVOICES);
    let rows: [(&str, Variables, &str); 16] = [
        ("lnd", &[], "set LND_URL to the node's REST address"),
        ("lnd", &[("LND_URL", " ")], "set LND_URL to the node's REST address"),
        ("lnd", &[("LND_URL", url)], "set LND_MACAROON_FILE to the path of the node's invoice.macaroon"),
        (
            "lnd",
            &[("LND_URL", url), ("LND_MACAROON_FILE", "/missing/macaroon")],
            "the macaroon cannot be read from /missing/macaroon",
        ),
        (
            "lnd",
            &[("LND_URL", url), ("LND_MACAROON_FILE", "/missing"), ("LND_NETWORK", "mainnet")],
            "LND_NETWORK cannot be read",
        ),
        ("cln", &[], "set CLN_URL to the address of the node's CLNRest"),
        ("cln", &[("CLN_URL", url)], "set CLN_RUNE to a rune for the methods invoice and listinvoices"),
        (
            "cln",
            &[("CLN_URL", url), ("CLN_RUNE", &rune), ("CLN_RUNE_FILE", "/missing")],
            "set CLN_RUNE or CLN_RUNE_FILE, not both",
        ),
        (
            "cln",
            &[("CLN_URL", url), ("CLN_RUNE_FILE", "/missing/rune")],
            "the rune cannot be read from /missing/rune",
        ),
        (
            "cln",
            &[("CLN_URL", url), ("CLN_RUNE_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))],
            "/Cargo.toml is not one: give the `rune`",
        ),
        ("nwc", &[], "set NWC_URI to the connection URI of the wallet"),
        ("nwc", &[("NWC_URI", url)], "does not begin with `nostr+walletconnect://`"),
        ("lnbits", &[], "set LNBITS_URL to"),
        ("lnurl", &[], "set LNURL_ADDRESS to"),
        ("phoenixd", &[], "set PHOENIXD_URL to the node's address"),
        (
            "phoenixd",
            &[("PHOENIXD_URL", url)],
            "set PHOENIXD_PASSWORD to the node's http-password-limited-access",
        ),
    ];
    for (name, variables, sentence) in rows {
        let (passed, said) = run(&format!("{name}::keeps_the_contract"), variables).await;
        assert!(!passed && said.contains(sentence), "{sentence}: {said}");
        assert!(!said.contains(&rune), "{said}");
    }
}
