//! The backends keep their contract, and a backend that breaks a rule of it is
//! caught by that rule.

use std::sync::Arc;

use l402::{DevBackend, conformance};

#[tokio::test]
async fn the_development_backend_keeps_the_contract() {
    let node = DevBackend::new();
    conformance::backend::check(Arc::new(node.clone())).await;
    conformance::backend::check_settlement(Arc::new(node.clone()), async |bolt11: String| {
        node.pay(&bolt11).unwrap();
    })
    .await;
}

#[cfg(feature = "lnd")]
#[tokio::test]
async fn lnd_withstands_every_fault() {
    use l402::{LndBackend, LndConfig, Network};

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("invoice.macaroon");
    std::fs::write(&file, [0x5e; 40]).unwrap();
    let macaroon = "5e".repeat(40);
    let build = |url: &str| -> Arc<dyn l402::PaymentBackend> {
        Arc::new(LndBackend::new(LndConfig::new(url, Network::Regtest, &file)).unwrap())
    };
    conformance::backend::check_faults(build, &[&macaroon]).await;
}
