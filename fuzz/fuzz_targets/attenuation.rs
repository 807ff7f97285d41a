//! Any caveats that a holder adds to a token of ours, which is the one way past
//! the signature: nothing panics, the grant never grows, and what is admitted
//! is admitted with fewer caveats too.
//!
//! An input is the caveats, one a line.

#![no_main]

use http::header::AUTHORIZATION;
use l402::{Access, Gate, Grant, HOUR, Offer, Price};
use l402_fuzz::{Credential, NOW, Says, admit, head, issuer};
use libfuzzer_sys::fuzz_target;

/// Uses that are sold.
const USES: u64 = 100;

fuzz_target!(
    init: {
        let narrower = include_bytes!("../corpus/attenuation/narrower");
        assert!(narrow(narrower), "the corpus no longer has caveats that hold");
    },
    |input: &[u8]| {
        narrow(input);
    }
);

/// Whether the token with the caveats was admitted.
fn narrow(input: &[u8]) -> bool {
    let offer = Offer::new(Price::sat(21), Access::uses(USES).within(HOUR))
        .with_capabilities(&["read", "write"])
        .with_tier(1)
        .also_opens(&["archive"]);
    let gate = Gate::builder(&issuer(0x11, 0x22, Says(None)), "forecast", offer)
        .require_capability("read")
        .build()
        .expect("a gate");
    let Credential { macaroon: sold, preimage } = Credential::of(&gate);

    let mut chain = vec![sold];
    for caveat in input.split(|byte| *byte == b'\n') {
        match chain.last().expect("the sold one").attenuate(caveat) {
            Ok(weaker) => chain.push(weaker),
            Err(_) => break,
        }
    }
    let admitted: Vec<Option<Grant>> = chain
        .into_iter()
        .map(|macaroon| {
            let mut head = head();
            let credential = Credential { macaroon, preimage: preimage.clone() };
            head.headers.insert(AUTHORIZATION, credential.authorization());
            admit(&gate, &mut head).ok().map(|admission| admission.grant().clone())
        })
        .collect();

    let whole = admitted[0].as_ref().expect("what was sold is admitted");
    let end = |grant: &Grant| grant.expires_at().expect("it has an end");
    let left = |grant: &Grant| grant.remaining().expect("it is counted");
    for pair in admitted.windows(2) {
        let Some(weaker) = &pair[1] else { continue };
        let stronger = pair[0].as_ref().expect("one more caveat turned a refusal into an admission");
        assert!(end(weaker) <= end(stronger));
        assert!(left(weaker) < left(stronger), "each admission takes a use");
        assert!(weaker.tier() <= stronger.tier());
        for capability in ["read", "write"] {
            assert!(stronger.has_capability(capability) || !weaker.has_capability(capability));
        }
        assert_eq!(weaker.payment_hash(), whole.payment_hash());
        assert_eq!(weaker.offer(), whole.offer());
    }
    assert!(end(whole) > std::time::UNIX_EPOCH + std::time::Duration::from_secs(NOW));
    admitted.last().is_some_and(Option::is_some)
}
