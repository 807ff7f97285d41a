//! The config file: JSON, of which every part may be left out.

use std::path::{Path, PathBuf};

use l402::client::{Budget, Payer};
use serde::Deserialize;

use crate::exit::{Failure, USAGE};
use crate::places;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where it was read from.
    #[serde(skip)]
    pub(crate) file: PathBuf,
    pub(crate) wallet: Option<WalletPart>,
    budget: BudgetPart,
    origins: Vec<String>,
    ask_above_sat: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WalletPart {
    pub(crate) kind: String,
    pub(crate) url: Option<String>,
    pub(crate) network: Option<String>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) certificate_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the names in the file")]
struct BudgetPart {
    request_sat: Option<u64>,
    origin_sat: Option<u64>,
    hour_sat: Option<u64>,
    day_sat: Option<u64>,
    total_sat: Option<u64>,
}

/// What is wrong, with line and column. Of a value of another kind serde shows the
/// value, which may be a secret.
fn said(cause: &serde_json::Error) -> String {
    let text = cause.to_string();
    let names_a_field =
        ["unknown field", "missing field", "duplicate field"].iter().any(|words| text.starts_with(words));
    if names_a_field || !cause.is_data() {
        return text;
    }
    format!("a value of another kind than is taken at line {} column {}", cause.line(), cause.column())
}

impl Config {
    /// The file that is named, which has to be there; or the usual one.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, Failure> {
        let file = match named {
            Some(file) => file.to_owned(),
            None => places::config()?,
        };
        let error = |what: String| Failure::new(USAGE, format!("config {}: {what}", file.display()));
        let mut config: Self = match std::fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).map_err(|cause| error(said(&cause)))?,
            Err(cause) if named.is_none() && cause.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(cause) => return Err(error(cause.to_string())),
        };
        config.file = file;
        Ok(config)
    }

    /// The limits, with what one request may cost: where the file does not say,
    /// whoever asks does.
    pub(crate) fn budget(&self, max_sat: Option<u64>) -> Budget {
        let mut budget = Budget::default();
        let part = &self.budget;
        if let Some(sat) =
            part.request_sat.map_or(max_sat, |most| Some(max_sat.map_or(most, |sat| sat.min(most))))
        {
            budget = budget.with_request_sat(sat);
        }
        for (limit, with) in [
            (part.origin_sat, Budget::with_origin_sat as fn(Budget, u64) -> Budget),
            (part.hour_sat, Budget::with_hour_sat),
            (part.day_sat, Budget::with_day_sat),
            (part.total_sat, Budget::with_total_sat),
        ] {
            if let Some(sat) = limit {
                budget = with(budget, sat);
            }
        }
        budget
    }

    /// Pays the origins of the file, or every one where it names none.
    pub(crate) fn allow_origins(&self, mut payer: Payer) -> Result<Payer, Failure> {
        for origin in &self.origins {
            payer = payer.allow_origin(origin).map_err(|error| {
                let what = format!("config {}: \"origins\": `{origin}`: {error}", self.file.display());
                Failure::new(USAGE, what)
            })?;
        }
        Ok(payer)
    }

    /// Above which price a person is asked, in msat.
    pub(crate) fn ask_above_msat(&self) -> u64 {
        self.ask_above_sat.unwrap_or(10).saturating_mul(1_000)
    }
}
