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
