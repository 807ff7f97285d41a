//! What an operator has to know stands on standard error where there is no log:
//! also with the feature `tracing`, as long as nobody subscribes.

#![allow(missing_docs)]

use std::process::Command;

use axum::response::IntoResponse as _;
use l402::{Access, DevBackend, Gate, HOUR, Issuer, MissingGate, Offer, Price};

/// What a process without a log says.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn speaks() {
    let issuer = Issuer::dev(&DevBackend::new());
    let offer = Offer::new(Price::sat(21), Access::pass(HOUR));
    let _ = Gate::builder(&issuer, "open", offer).dangerous_dry_run().build().unwrap();
    for _ in 0..3 {
        assert_eq!(MissingGate.into_response().status(), 500);
    }
}

#[test]
fn what_an_operator_has_to_know_is_said_without_a_log() {
    let mut process = Command::new(std::env::current_exe().unwrap());
    let output = process.args(["--ignored", "--exact", "speaks", "--nocapture"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let lines: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("l402: ")).collect();
    let [dev, dry_run, no_gate] = &lines[..] else { panic!("three lines: {said}") };
    assert!(dev.starts_with("development issuer"), "{dev}");
    assert_eq!(*dry_run, "gate `open` is in dry run: it gives everything away");
    assert!(no_gate.starts_with("handler extracts a `Grant` but no gate stands before it"), "{no_gate}");
}
