//! `l402`: gets a URL, and pays for it where the server asks, within a budget.

mod budget;
mod config;
mod exit;
mod get;
mod places;
mod quote;
mod receipts;
mod request;
mod show;
mod time;
mod tokens;
mod wallet;

use std::process::ExitCode;

use exit::{Failure, USAGE};
use lexopt::prelude::*;

const HELP: &str = include_str!("help.txt");

fn main() -> ExitCode {
    let code = run(&mut lexopt::Parser::from_env()).unwrap_or_else(|failure| {
        eprintln!("l402: {failure}");
        failure.code
    });
    ExitCode::from(code)
}

fn run(parser: &mut lexopt::Parser) -> Result<u8, Failure> {
    let command = match parser.next()? {
        Some(Value(command)) => command.string()?,
        Some(Long("help") | Short('h')) => return help(),
        Some(Long("version") | Short('V')) => {
            show::line(concat!("l402 ", env!("CARGO_PKG_VERSION")))?;
            return Ok(0);
        }
        Some(argument) => return Err(argument.unexpected().into()),
        None => return Err(Failure::new(USAGE, "no command; see `l402 --help`")),
    };
    // There is one text of help.
    if parser.raw_args()?.peek().is_some_and(|argument| argument == "--help" || argument == "-h") {
        return help();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &*command {
            "get" => get::run(parser).await,
            "tokens" => tokens::run(parser).await,
            "receipts" => receipts::run(parser).await,
            "budget" => budget::run(parser).await,
            "help" => help(),
            other => {
                Err(Failure::new(USAGE, format!("no command `{}`; see `l402 --help`", show::plain(other))))
            }
        }
    })
}

fn help() -> Result<u8, Failure> {
    show::line(HELP.trim_end())?;
    Ok(0)
}
