//! A backend talks to the node whose certificate is pinned, and to nobody else.
#![cfg(all(feature = "cln", feature = "lnd", feature = "phoenixd"))]

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use l402::{
    BackendErrorKind, ClnBackend, ClnConfig, ErrorKind, LndBackend, LndConfig, Network, PaymentBackend,
    PhoenixdBackend, PhoenixdConfig,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/tls").join(name)
}

/// Answers every request, over TLS, as LND answers about an unknown invoice.
struct Server {
    port: u16,
    was_asked: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(certificate: &str) -> Self {
        Self::start_with(certificate, certificate, rustls::ALL_VERSIONS).await
    }

    async fn start_with(
        certificate: &str,
        key: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let acceptor = Self::acceptor(certificate, key, versions);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let was_asked = Arc::new(AtomicBool::new(false));
        let asked = was_asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // The client refuses the certificate.
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                if matches!(stream.read_u8().await, Ok(b'G')) {
                    asked.store(true, Ordering::SeqCst);
                    drop(stream.write_all(answer("connection: close\r\n").as_bytes()).await);
                    drop(stream.shutdown().await);
                }
            }
        });
        Self { port, was_asked, task }
    }

    fn acceptor(certificate: &str, key: &str, versions: &[&'static SupportedProtocolVersion]) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_file(file(&format!("{certificate}.pem"))).unwrap()];
        let key = PrivateKeyDer::from_pem_file(file(&format!("{key}.key"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = provider.key_provider.load_private_key(key).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
        TlsAcceptor::from(Arc::new(config))
    }
}

/// As LND answers about an unknown invoice.
fn answer(fields: &str) -> String {
    let body = r#"{"code":5,"message":"unable to locate invoice"}"#;
    format!("HTTP/1.1 404 Not Found\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn macaroon(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("invoice.macaroon");
    std::fs::write(&path, [2; 48]).unwrap();
    path
}

#[tokio::test]
async fn the_pinned_certificate_is_taken_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let trusted = Ok(());
    let refused = Err(BackendErrorKind::Connect);
    for (server, host, pinned, told) in [
        // A node's own certificate, whatever its name and dates: the operator named it.
        ("lnd", "localhost", Some("lnd"), trusted),
        ("lnd", "127.0.0.1", Some("lnd"), trusted),
        ("lnd-expired", "localhost", Some("lnd-expired"), trusted),
        ("cln-server", "localhost", Some("cln-server"), trusted),
        ("cln-other-name", "localhost", Some("cln-other-name"), trusted),
        // What an authority signed, by its name and dates.
        ("cln-server", "localhost", Some("cln-ca"), trusted),
        ("cln-server", "127.0.0.1", Some("cln-ca"), trusted),
        ("cln-other-name", "localhost", Some("cln-ca"), refused),
        ("cln-expired", "localhost", Some("cln-ca"), refused),
        // Anybody else, under the same name too.
        ("lnd", "localhost", None, refused),
        ("cln-server", "localhost", None, refused),
        ("lnd-other-key", "localhost", Some("lnd"), refused),
        ("lnd", "localhost", Some("lnd-other-key"), refused),
        ("lnd-expired", "localhost", Some("lnd"), refused),
        ("lnd", "localhost", Some("cln-ca"), refused),
        ("cln-server", "localhost", Some("lnd"), refused),
        ("cln-server", "localhost", Some("cln-other-name"), refused),
    ] {
        let node = Server::start(server).await;
        let url = format!("https://{host}:{}", node.port);
        let mut config = LndConfig::new(url, Network::Regtest, macaroon(&directory));
        if let Some(pinned) = pinned {
            config = config.with_certificate(file(&format!("{pinned}.pem")));
        }
        let health = LndBackend::new(config).unwrap().check_health().await.map_err(|error| error.kind());
        assert_eq!(health, told, "{server} at {host}, {pinned:?} is pinned");
        assert_eq!(node.was_asked.load(Ordering::SeqCst), told.is_ok(), "no macaroon reaches a stranger");
    }
}

/// So does a proxy before a phoenixd, which has no TLS of its own.
#[tokio::test]
async fn the_pinned_certificate_of_a_proxy_is_taken() {
    for pinned in [Some("lnd"), None] {
        let proxy = Server::start("lnd").await;
        let url = format!("https://localhost:{}", proxy.port);
        let mut config = PhoenixdConfig::new(url, Network::Regtest, "password");
        if let Some(pinned) = pinned {
            config = config.with_certificate(file(&format!("{pinned}.pem")));
        }
        let error = PhoenixdBackend::new(config).unwrap().check_health().await.unwrap_err();
        assert_eq!(error.kind() == BackendErrorKind::Connect, pinned.is_none(), "{pinned:?}: {error}");
        assert_eq!(
            proxy.was_asked.load(Ordering::SeqCst),
            pinned.is_some(),
            "no password reaches a stranger"
        );
    }
}

/// A request may be given a connection that another one leaves, while its own is
/// still being made: that one goes on without it.
#[tokio::test]
async fn a_handshake_that_hangs_ends_though_nobody_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let acceptor = Server::acceptor("lnd", "lnd", rustls::ALL_VERSIONS);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let config = LndConfig::new(url, Network::Regtest, macaroon(&directory));
    let node = LndBackend::new(config.with_certificate(file("lnd.pem"))).unwrap();
    let ask = || {
        let node = node.clone();
        tokio::spawn(async move { node.check_health().await })
    };

    let first = ask();
    let mut served = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
    read_request(&mut served).await;
    let second = ask();
    let (mut hanging, _) = listener.accept().await.unwrap();
    served.write_all(answer("").as_bytes()).await.unwrap();
    first.await.unwrap().unwrap();
    read_request(&mut served).await;
    served.write_all(answer("").as_bytes()).await.unwrap();
    second.await.unwrap().unwrap();

    tokio::time::pause();
    let end = tokio::time::timeout(Duration::from_secs(60), hanging.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "the client closes it");
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
}

/// A certificate is public: anybody can show it, and only its owner can sign.
#[tokio::test]
async fn the_pinned_certificate_in_strange_hands_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for version in rustls::ALL_VERSIONS {
        for (key, told) in [("lnd", Ok(())), ("lnd-other-key", Err(BackendErrorKind::Connect))] {
            let node = Server::start_with("lnd", key, &[version]).await;
            let url = format!("https://localhost:{}", node.port);
            let config =
                LndConfig::new(url, Network::Regtest, macaroon(&directory)).with_certificate(file("lnd.pem"));
            let health = LndBackend::new(config).unwrap().check_health().await.map_err(|error| error.kind());
            assert_eq!(health, told, "{version:?}, the key of {key}");
            assert_eq!(node.was_asked.load(Ordering::SeqCst), told.is_ok());
        }
    }
}

#[tokio::test]
async fn plain_http_at_an_https_address_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let node = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        let mut sent = Vec::new();
        drop(socket.read_to_end(&mut sent).await);
        sent
    });
    let config =
        LndConfig::new(url, Network::Regtest, macaroon(&directory)).with_certificate(file("lnd.pem"));
    let error = LndBackend::new(config).unwrap().check_health().await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Connect);
    let sent = String::from_utf8_lossy(&node.await.unwrap()).into_owned();
    assert!(!sent.contains("macaroon"), "nothing is sent in the clear");
}

#[test]
fn what_is_wrong_with_a_certificate_file_is_said_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let pem = std::fs::read_to_string(file("lnd.pem")).unwrap();
    let half = &pem[..pem.len() / 2];
    let key = std::fs::read_to_string(file("lnd.key")).unwrap();
    for (name, content) in [
        ("empty", ""),
        ("garbage", "c0ffee is not a certificate"),
        ("key", &*key),
        ("half", half),
        ("broken", &pem.replace("MII", "M!I")),
        ("no-begin", &pem.replace("BEGIN CERTIFICATE", "BEGIN c0ffee")),
        ("no-end", &pem.replace("-----END CERTIFICATE-----", "")),
        ("no-x509", "-----BEGIN CERTIFICATE-----\nYzBmZmVlIGMwZmZlZQ==\n-----END CERTIFICATE-----\n"),
        ("one-of-two", &format!("{pem}{}", pem.replace("MII", "M!I"))),
    ] {
        std::fs::write(path(name), content).unwrap();
        let rune = "A".repeat(64);
        let pinned =
            ClnConfig::new("https://localhost:1", Network::Regtest, rune).with_certificate(path(name));
        let error = ClnBackend::new(pinned).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend, "{name}");
        let said = error.to_string();
        assert_eq!(said, format!("{} is no certificate in PEM form", path(name).display()));
        let cause = error.source().expect("why").to_string();
        assert!(!cause.is_empty(), "{name}");
        let shown = format!("{error:?} {cause}");
        let lines = content.lines().filter(|line| line.len() > 8);
        for line in lines {
            assert!(!shown.contains(line), "{name}: {shown}");
        }
        assert!(!shown.contains("c0ffee") && !shown.contains("99, 48, 102"), "{name}: {shown}");
    }
    for missing in [path("missing"), directory.path().to_owned()] {
        let macaroon = macaroon(&directory);
        let config =
            LndConfig::new("https://localhost:1", Network::Regtest, macaroon).with_certificate(&missing);
        let error = LndBackend::new(config).unwrap_err();
        assert_eq!(error.to_string(), format!("the certificate cannot be read from {}", missing.display()));
        assert!(error.source().expect("why").is::<std::io::Error>());
    }
}

/// What is pinned is not looked at there, and the macaroon is there to be read.
#[test]
fn a_certificate_for_an_address_without_tls_does_not_build() {
    let directory = tempfile::tempdir().unwrap();
    let config = LndConfig::new("http://node.example:8080", Network::Regtest, macaroon(&directory));
    LndBackend::new(config.clone()).unwrap();
    let error = LndBackend::new(config.with_certificate(file("lnd.pem"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert_eq!(
        error.to_string(),
        "a certificate is given, and the address of the backend is `http://`: use `https://`"
    );
}
