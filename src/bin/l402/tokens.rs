//! `l402 tokens`: what is held, and weaker credentials of it.

use std::path::PathBuf;

use l402::client::{Purchase, PurchaseState, Restriction, TokenStore as _};
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use crate::exit::{Failure, USAGE};
use crate::{places, show, time};

pub(crate) async fn run(parser: &mut lexopt::Parser) -> Result<u8, Failure> {
    let (mut is_json, mut shows) = (false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => is_json = true,
            Long("show") => shows = true,
            // Tokens need none; it is taken, so that every command takes it.
            Long("config") => drop(PathBuf::from(parser.value()?)),
            Value(command) if command == "restrict" => return restrict(parser).await,
            Value(command) if command == "remove" => return remove(parser).await,
            other => return Err(other.unexpected().into()),
        }
    }
    let held = held().await?;
    if is_json {
        show::line(Json::Array(held.iter().map(|purchase| of(purchase, shows)).collect()))?;
        return Ok(0);
    }
    for purchase in &held {
        let until = match purchase.valid_until {
            Some(until) if until <= time::now() => "expired".to_owned(),
            Some(until) => time::date(until),
            None => "no end known".to_owned(),
        };
        let place = show::plain(&format!("{}{}", purchase.origin, purchase.path));
        show::line(format!("{}  {until}  {place}  {}", id(purchase), show::scope(&purchase.scope)))?;
        if let Some(credential) = credential(purchase).filter(|_| shows) {
            show::line(format!("  Authorization: {credential}"))?;
        }
    }
    Ok(0)
}

async fn restrict(parser: &mut lexopt::Parser) -> Result<u8, Failure> {
    let (mut wanted, mut restriction) = (None, Restriction::new());
    while let Some(argument) = parser.next()? {
        restriction = match argument {
            Long("capability") => restriction.add_capability(parser.value()?.string()?),
            Long("valid-until") => {
                restriction.with_valid_until(time::until(&parser.value()?.string()?, time::now())?)
            }
            Long("max-uses") => restriction.with_max_uses(parser.value()?.parse()?),
            Long("method") => {
                let method = parser.value()?.string()?.parse();
                restriction.add_method(method.map_err(|_| Failure::new(USAGE, "--method takes a method"))?)
            }
            Long("config") => {
                parser.value()?;
                restriction
            }
            Value(id) if wanted.is_none() => {
                wanted = Some(id.string()?);
                restriction
            }
            other => return Err(other.unexpected().into()),
        };
    }
    let purchase = find(wanted).await?;
    let weaker = purchase.restrict(&restriction).map_err(|error| Failure::of(USAGE, &error))?;
    show::line(weaker.to_str().unwrap_or_default())?;
    Ok(0)
}

async fn remove(parser: &mut lexopt::Parser) -> Result<u8, Failure> {
    let mut wanted = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => drop(parser.value()?),
            Value(id) if wanted.is_none() => wanted = Some(id.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let purchase = find(wanted).await?;
    places::store().await?.discard(purchase.payment_hash).await?;
    Ok(0)
}

async fn held() -> Result<Vec<Purchase>, Failure> {
    let mut purchases = places::store().await?.all().await?;
    purchases.retain(|purchase| matches!(purchase.state, PurchaseState::Held { .. }));
    Ok(purchases)
}

/// The token whose id begins so.
async fn find(wanted: Option<String>) -> Result<Purchase, Failure> {
    let wanted =
        wanted.ok_or_else(|| Failure::new(USAGE, "say which token: `l402 tokens` lists their ids"))?;
    let mut found = held()
        .await?
        .into_iter()
        .filter(|purchase| wanted.len() >= 4 && purchase.payment_hash.to_string().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(purchase), None) => Ok(purchase),
        (None, _) => Err(Failure::new(USAGE, format!("no token `{wanted}`: `l402 tokens` lists their ids"))),
        (Some(_), Some(_)) => Err(Failure::new(USAGE, format!("several tokens begin with `{wanted}`"))),
    }
}

/// The beginning of its payment hash.
fn id(purchase: &Purchase) -> String {
    purchase.payment_hash.to_string()[..12].to_owned()
}

fn credential(purchase: &Purchase) -> Option<String> {
    Some(purchase.credential()?.to_str().ok()?.to_owned())
}

fn of(purchase: &Purchase, shows: bool) -> Json {
    let mut token = json!({
        "id": id(purchase), "payment_hash": purchase.payment_hash.to_string(),
        "origin": purchase.origin, "path": purchase.path, "opens": purchase.scope,
        "valid_until": purchase.valid_until,
    });
    if shows {
        token["authorization"] = json!(credential(purchase));
    }
    token
}
