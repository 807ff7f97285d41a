//! `l402 budget`: the limits, and what was spent.

use std::path::PathBuf;

use l402::client::{Limit, TokenStore as _};
use lexopt::prelude::*;
use serde_json::{Map, json};

use crate::config::Config;
use crate::exit::Failure;
use crate::quote::name;
use crate::{places, show, time};

pub(crate) async fn run(parser: &mut lexopt::Parser) -> Result<u8, Failure> {
    let (mut file, mut is_json) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => file = Some(PathBuf::from(parser.value()?)),
            Long("json") => is_json = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let config = Config::load(file.as_deref())?;
    let spent = places::store().await?.spent("", time::now()).await?;
    let mut object = Map::new();
    for (limit, limit_msat) in config.budget(None).limits() {
        // What one origin was paid is a sum for each.
        let spent_msat = match limit {
            Limit::Hour => Some(spent.hour_msat),
            Limit::Day => Some(spent.day_msat),
            Limit::Total => Some(spent.total_msat),
            _ => None,
        };
        if is_json {
            object.insert(
                name(limit).to_owned(),
                json!({ "limit_msat": limit_msat, "spent_msat": spent_msat }),
            );
        } else {
            let spent = spent_msat.map(|msat| format!(", spent {}", show::sat(msat)));
            show::line(format!("{:8} {}{}", name(limit), show::sat(limit_msat), spent.unwrap_or_default()))?;
        }
    }
    if is_json {
        show::line(json!(object))?;
    }
    Ok(0)
}
