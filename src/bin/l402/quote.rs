//! `l402 get --dry-run`: what it would cost, by a wallet that pays nothing.

use async_trait::async_trait;
use http::Request;
use l402::client::{
    Budget, Client, ErrorKind, Limit, PayError, PayErrorKind, Payer, Payment, PaymentRequest, PaymentStatus,
    Quote, TokenStore as _, Wallet,
};
use l402::{BackendError, Network, PaymentHash};
use serde_json::{Value, json};

use crate::config::Config;
use crate::exit::Failure;
use crate::get::{Output, answer, refused};
use crate::request::Asked;
use crate::{places, show, time};

/// Most offers that are shown.
const MAX_OFFERS: usize = 20;

/// Asks with no token, and shows what the server asks for. It reads the
/// invoice as a wallet of each network would, until one fits.
pub(crate) async fn run(asked: &Asked, config: &Config, request: Request<Vec<u8>>) -> Result<u8, Failure> {
    let mut networks = [Network::Bitcoin, Network::Testnet, Network::Signet, Network::Regtest].into_iter();
    loop {
        let Some(network) = networks.next() else { unreachable!("the last network is returned from") };
        let payer = Payer::new(NoWallet(network)).with_budget(unbounded()).dry_run();
        let payer = config.allow_origins(payer)?;
        match Client::new(payer).pay_request(request.clone(), u64::MAX).await {
            Ok(paid) => {
                eprintln!("nothing is asked for it");
                let output = asked.output.as_deref().map(Output::open).transpose()?;
                return answer(asked, output, &paid);
            }
            Err(error) if error.kind() == ErrorKind::Network && network != Network::Regtest => {}
            Err(error) => {
                let Some(quote) = error.quote().filter(|_| error.kind() == ErrorKind::DryRun) else {
                    return refused(asked, error);
                };
                let spent = places::store().await?.spent(&quote.origin, time::now()).await?;
                let budget = config.budget(asked.max_sat);
                let beyond = budget.allows(&spent, quote.amount_msat).err();
                print(asked, quote, network, beyond)?;
                return Ok(0);
            }
        }
    }
}

/// The price is to be seen however high it is.
fn unbounded() -> Budget {
    Budget::default().with_request_sat(u64::MAX)
}

fn print(asked: &Asked, quote: &Quote, network: Network, beyond: Option<Limit>) -> Result<(), Failure> {
    let offers = offers(quote);
    if asked.is_json {
        return show::line(json!({ "quote": {
            "origin": quote.origin, "path": quote.path, "services": quote.services,
            "network": network.to_string(), "amount_msat": quote.amount_msat,
            "offered_msat": quote.offered_msat, "offers": offers,
            "beyond_limit": beyond.map(name),
        }}));
    }
    let network = if network == Network::Bitcoin { String::new() } else { format!(" ({network})") };
    eprintln!(
        "{} asks {}{network} for {}",
        show::plain(&quote.origin),
        show::sat(quote.amount_msat),
        show::plain(&quote.path)
    );
    if !quote.services.is_empty() {
        eprintln!("opens: {}", show::plain(&quote.services.join(", ")));
    }
    for offer in offers {
        eprintln!("offer: {}", show::plain(&describe(&offer)));
    }
    match beyond {
        Some(limit) => eprintln!("it would be refused: the price is beyond the limit of {}", name(limit)),
        None => eprintln!("nothing was paid; it is within the budget, but for its fee"),
    }
    Ok(())
}

/// What the body of the answer lists, as this crate's servers do, or those of
/// l402.org.
fn offers(quote: &Quote) -> Vec<Value> {
    let body = quote.body.as_ref().and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let listed = body.as_ref().and_then(|body| {
        let listed = body.pointer("/l402/offers").or_else(|| body.get("offers"));
        listed?.as_array()
    });
    listed.into_iter().flatten().take(MAX_OFFERS).cloned().collect()
}

fn describe(offer: &Value) -> String {
    let text = |key: &str| offer.get(key).and_then(Value::as_str);
    let number = |key: &str| offer.get(key).and_then(Value::as_u64);
    let amount = || Some(format!("{} {}", offer.get("amount")?.as_number()?, text("currency")?));
    let parts = [
        text("title").or_else(|| text("id")).or_else(|| text("offer_id")).map(str::to_owned),
        number("price_msat").map(show::sat).or_else(amount),
        number("uses").map(|uses| format!("{uses} uses")),
        number("seconds").map(|seconds| format!("{seconds} s")),
        text("duration").map(str::to_owned),
        number("balance").map(|balance| format!("{balance} units")),
        methods(offer),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ").chars().take(200).collect()
}

/// How an offer can be paid: names in version 0.2.2, objects in 1.0.
fn methods(offer: &Value) -> Option<String> {
    let methods = offer.get("payment_methods")?.as_array()?;
    let name =
        |method: &Value| Some(method.as_str().or_else(|| method.get("payment_type")?.as_str())?.to_owned());
    let names: Vec<_> = methods.iter().filter_map(name).collect();
    (!names.is_empty()).then(|| format!("by {}", names.join(" or ")))
}

pub(crate) fn name(limit: Limit) -> &'static str {
    match limit {
        Limit::Request => "request",
        Limit::Origin => "origin",
        Limit::Hour => "hour",
        Limit::Day => "day",
        _ => "total",
    }
}

/// Pays nothing.
#[derive(Debug)]
struct NoWallet(Network);

#[async_trait]
impl Wallet for NoWallet {
    fn network(&self) -> Network {
        self.0
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, _: &PaymentRequest) -> Result<Payment, PayError> {
        Err(PayError::new(PayErrorKind::NotSent, "a dry run pays nothing"))
    }

    async fn status(&self, _: PaymentHash) -> Result<PaymentStatus, BackendError> {
        Ok(PaymentStatus::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_of_every_form_are_described() {
        for (offer, said) in [
            (json!({"id": "a", "price_msat": 21_000, "uses": 5, "seconds": 60}), "a, 21 sat, 5 uses, 60 s"),
            (
                json!({"id": "offer_1", "title": "Monthly", "amount": 1500, "currency": "EUR", "type": "subscription",
                    "duration": "1 month", "payment_methods": ["credit_card", "lightning"]}),
                "Monthly, 1500 EUR, 1 month, by credit_card or lightning",
            ),
            (
                json!({"offer_id": "offer_2", "amount": 100, "currency": "USD", "type": "top-up", "balance": 1}),
                "offer_2, 100 USD, 1 units",
            ),
            (
                json!({"id": "3", "amount": 1.5, "currency": "USD",
                    "payment_methods": [{"payment_type": "Stripe"}, {"payment_type": 7}, null]}),
                "3, 1.5 USD, by Stripe",
            ),
            (json!([]), ""),
        ] {
            assert_eq!(describe(&offer), said);
        }
    }
}
