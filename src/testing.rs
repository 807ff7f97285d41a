//! A credential without a payment, for the user's own tests.

use http::HeaderValue;

use crate::caveat::Minted;
use crate::clock::unix;
use crate::entropy::random;
use crate::gate::Gate;
use crate::macaroon::{Identifier, TokenId, mint};
use crate::preimage::Preimage;
use crate::price::Amount;

impl Gate {
    /// The value of an Authorization header that this gate admits: a token of
    /// the offer it sells, as if it had been paid for just now. Each call makes
    /// another token, of a price that is never too low.
    ///
    /// ```
    /// # #[cfg(feature = "dev")] {
    /// use http::Request;
    /// use l402::{Access, DevBackend, Gate, HOUR, Issuer, Offer, Price};
    ///
    /// let issuer = Issuer::dev(&DevBackend::new());
    /// let gate = Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), Access::pass(HOUR)))?;
    /// let request = Request::get("/").header("authorization", gate.test_credential()).body(())?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Tokens are bound to no condition of `CaveatRegistry::bind`.
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    pub fn test_credential(&self) -> HeaderValue {
        let (gate, issuer, offer) = (&self.0, &*self.0.issuer.0, self.0.first_offer());
        let preimage = Preimage::from_bytes(random(&*issuer.entropy));
        let now = unix(issuer.clock.now());
        let valid_until = now + offer.access.duration().as_secs();
        let caveats = Minted::new(&gate.service, offer, Amount::MOST, valid_until, Vec::new()).caveats();
        let keys = issuer.keys.load();
        let key = keys.signing(offer.is_metered());
        let minted = u8::try_from(caveats.len()).expect("the gate was built for at most 32 caveats");
        let token_id = TokenId::new(key.id(), now, minted, random(&*issuer.entropy));
        let identifier = Identifier { version: 0, payment_hash: preimage.payment_hash(), token_id };
        let token = mint(&*key.root(&identifier.to_bytes()), &identifier, caveats)
            .expect("the gate was built for tokens within the caps");
        issuer.payments.remember(preimage.payment_hash());
        token.credential(&preimage)
    }
}
