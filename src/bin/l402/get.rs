//! `l402 get`: one request, paid for where the server asks.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use l402::client::{Client, Error, Paid, Payer, Quote};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::exit::{Failure, LOCAL, PAID_IN_VAIN, STATUS};
use crate::request::Asked;
use crate::{places, quote, show, wallet};

pub(crate) async fn run(parser: &mut lexopt::Parser) -> Result<u8, Failure> {
    let asked = Asked::read(parser)?;
    let config = Config::load(asked.config.as_deref())?;
    let request = asked.request()?;
    if asked.is_dry_run {
        return quote::run(&asked, &config, request).await;
    }
    let budget = config.budget(asked.max_sat);
    let mut payer = Payer::new(wallet::find(&config)?).with_budget(budget).with_store(places::store().await?);
    payer = config.allow_origins(payer)?;
    let asks = Asks::of(&asked, &config);
    let is_terminal = io::stderr().is_terminal();
    payer = payer.with_confirmation(move |quote| {
        let pays = asks.confirm(quote);
        if pays && is_terminal {
            eprintln!("paying {} to {}", show::sat(quote.amount_msat), show::plain(&quote.origin));
        }
        pays
    });
    if is_terminal {
        payer = payer.on_receipt(|receipt| eprintln!("{}", show::paid(receipt)));
    }
    // Before anything is paid: what was bought has to go somewhere.
    let output = asked.output.as_deref().map(Output::open).transpose()?;
    let max_msat = asked.max_sat.map_or(u64::MAX, |sat| sat.saturating_mul(1_000));
    match Client::new(payer).pay_request(request, max_msat).await {
        Ok(paid) => answer(&asked, output, &paid),
        Err(error) => refused(&asked, error),
    }
}

/// Writes the answer, and gives the code for it.
pub(crate) fn answer(asked: &Asked, output: Option<Output>, paid: &Paid) -> Result<u8, Failure> {
    let code = match (paid.response.status().as_u16(), &paid.receipt) {
        (..400, _) => 0,
        (_, Some(_)) => PAID_IN_VAIN,
        (_, None) => STATUS,
    };
    if code != 0 {
        eprintln!("l402: the answer is {}", paid.response.status());
    }
    let mut file = output.as_ref().map(|output| output.path.clone());
    let saved = output.map_or(Ok(()), |output| output.write(paid.response.body()));
    let printed = if asked.is_json {
        // What is in no file is in the object.
        file = file.filter(|_| saved.is_ok());
        let mut object = of_response(&paid.response, file.as_deref());
        object.insert("receipt".to_owned(), paid.receipt.as_ref().map_or(Value::Null, show::receipt));
        if let Err(failure) = &saved {
            object.insert("error".to_owned(), json!(failure.to_string()));
            object
                .insert("code".to_owned(), json!(if paid.receipt.is_some() { PAID_IN_VAIN } else { LOCAL }));
        }
        show::line(Value::Object(object))
    } else if file.is_none() {
        print(paid.response.body()).map_err(Failure::from)
    } else {
        Ok(())
    };
    match (saved.and(printed), &paid.receipt) {
        (Ok(()), _) => Ok(code),
        (Err(failure), None) => Err(failure),
        (Err(failure), Some(receipt)) => {
            let what = format!("{failure}; {}, payment {}", show::paid(receipt), receipt.payment_hash);
            Err(Failure::new(PAID_IN_VAIN, what))
        }
    }
}

fn print(body: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(body)?;
    stdout.flush()
}

/// One JSON object is printed whatever happens, where it is asked for.
pub(crate) fn refused(asked: &Asked, error: Error) -> Result<u8, Failure> {
    let receipt = error.receipt().map_or(Value::Null, show::receipt);
    let failure = Failure::from(error);
    if asked.is_json {
        let text = failure.to_string();
        show::line(json!({ "error": text, "code": failure.code, "receipt": receipt }))?;
    }
    Err(failure)
}

fn of_response(response: &Response<Bytes>, file: Option<&Path>) -> Map<String, Value> {
    let mut headers = Map::new();
    for (name, value) in response.headers() {
        let values = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        values.as_array_mut().expect("it was made one").push(Value::String(value));
    }
    let mut object = Map::new();
    object.insert("status".to_owned(), json!(response.status().as_u16()));
    object.insert("headers".to_owned(), Value::Object(headers));
    let (key, value) = match (file, std::str::from_utf8(response.body())) {
        (Some(file), _) => ("file", file.display().to_string()),
        (None, Ok(text)) => ("body", text.to_owned()),
        (None, Err(_)) => ("body_base64", STANDARD.encode(response.body())),
    };
    object.insert(key.to_owned(), Value::String(value));
    object
}

/// Who decides whether a price within the limits is paid.
enum Asks {
    /// Whoever wrote the command.
    Nobody,
    /// A person at the terminal, above this many msat.
    Above(u64),
    /// There is none: nothing is paid.
    Refuses,
}

impl Asks {
    fn of(asked: &Asked, config: &Config) -> Self {
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        match is_terminal {
            _ if asked.is_confirmed => Self::Nobody,
            true => Self::Above(config.ask_above_msat()),
            false if asked.max_sat.is_some() => Self::Nobody,
            false => Self::Refuses,
        }
    }

    fn confirm(&self, quote: &Quote) -> bool {
        match self {
            Self::Nobody => true,
            Self::Above(msat) if quote.amount_msat <= *msat => true,
            Self::Above(_) => {
                let (amount, fee) = (show::sat(quote.amount_msat), show::sat(quote.max_fee_msat));
                let whom = show::plain(&format!("{} for {}", quote.origin, quote.path));
                eprint!("pay {amount}, and {fee} of fees at most, to {whom}? [y/N] ");
                let mut line = String::new();
                io::stdin().lock().read_line(&mut line).is_ok()
                    && matches!(line.trim(), "y" | "Y" | "yes" | "Yes")
            }
            Self::Refuses => {
                eprintln!("l402: it asks {}; say --max-sat or --yes", show::sat(quote.amount_msat));
                false
            }
        }
    }
}

/// The file of the body. What was in it stays until there is a whole answer: that
/// is written beside it, and takes its place.
pub(crate) struct Output {
    path: PathBuf,
    file: File,
    /// Where it is written, and where it goes then; `None` for a pipe or a terminal.
    place: Option<(PathBuf, PathBuf)>,
}

impl Output {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = Self::open_at(path);
        opened.map_err(|error| Failure::new(LOCAL, format!("{}: {error}", path.display())))
    }

    fn open_at(path: &Path) -> io::Result<Self> {
        let old = match OpenOptions::new().write(true).open(path) {
            Ok(file) if file.metadata()?.is_file() => Some(file.metadata()?.permissions()),
            Ok(file) => return Ok(Self { path: path.to_owned(), file, place: None }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // A link stays one.
        let target = if old.is_some() { path.canonicalize()? } else { path.to_owned() };
        let mut name = OsString::from(".");
        name.push(target.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        name.push(format!(".{}.part", process::id()));
        let beside = target.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        let output = Self { path: path.to_owned(), file, place: Some((beside, target)) };
        if let Some(permissions) = old {
            output.file.set_permissions(permissions)?;
        }
        Ok(output)
    }

    fn write(mut self, body: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(body).and_then(|()| match &self.place {
            Some((beside, target)) => fs::rename(beside, target),
            None => Ok(()),
        });
        written.map_err(|error| Failure::new(LOCAL, format!("{}: {error}", self.path.display())))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((beside, _)) = &self.place {
            // It is not there any more where the answer was written.
            let _ = fs::remove_file(beside);
        }
    }
}
