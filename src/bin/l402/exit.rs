//! Why a command failed, and the code that it exits with. The table is in
//! `help.txt`.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use l402::client::{Error, ErrorKind};

pub(crate) const LOCAL: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const REFUSED: u8 = 3;
pub(crate) const FAILED: u8 = 4;
pub(crate) const UNCERTAIN: u8 = 5;
pub(crate) const PAID_IN_VAIN: u8 = 6;
pub(crate) const NETWORK: u8 = 7;
pub(crate) const STATUS: u8 = 22;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// With the causes of the error.
    pub(crate) fn of(code: u8, error: &(dyn StdError + 'static)) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self { code, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::show::plain(&self.message))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(code_of(&error), &error)
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::new(USAGE, format!("{error}; see `l402 --help`"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::of(LOCAL, &error)
    }
}

impl From<l402::client::StoreError> for Failure {
    fn from(error: l402::client::StoreError) -> Self {
        Self::of(LOCAL, &error)
    }
}

fn code_of(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Uncertain | ErrorKind::InFlight | ErrorKind::Wallet => UNCERTAIN,
        ErrorKind::NoPreimage | ErrorKind::Preimage | ErrorKind::PaidAgain => PAID_IN_VAIN,
        _ if error.receipt().is_some() => PAID_IN_VAIN,
        ErrorKind::PaymentFailed => FAILED,
        ErrorKind::Transport | ErrorKind::Timeout | ErrorKind::TooLong => NETWORK,
        ErrorKind::Origin => USAGE,
        ErrorKind::Store => LOCAL,
        _ => REFUSED,
    }
}
