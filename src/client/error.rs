//! Why a request has no answer, or was not paid for.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use super::budget::Limit;
use super::quote::Quote;
use super::receipt::Receipt;
use crate::preimage::PaymentHash;

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a request of the paying client has no answer. [`kind`](Self::kind) says
/// which, for programs; the text says what to do. No secret is in it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<BoxError>,
    quote: Option<Quote>,
    receipt: Option<Receipt>,
}

/// The kinds of [`Error`].
///
/// Down to [`Wallet`](Self::Wallet) this request paid nothing, unless
/// [`Error::receipt`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL cannot be read, or the request names no origin and the layer was
    /// given none.
    Origin,
    /// The server asks for a payment, and sends no L402 challenge that can be read.
    NoChallenge,
    /// The invoice is not BOLT 11, its signature does not hold, or it lacks what every
    /// invoice has.
    Invoice,
    /// The invoice leaves its amount to the payer.
    NoAmount,
    /// The invoice is of another network than the wallet.
    Network,
    /// The invoice has expired, or is about to.
    Expired,
    /// The invoice pays for another token than the one that is offered.
    PaymentHash,
    /// The invoice was begun to be paid before, for another token or by another
    /// payer of the wallet.
    InvoiceUsed,
    /// The price and the fee would go beyond this limit.
    OverBudget(Limit),
    /// The credential would be sent over plain http to another machine.
    PlainHttp,
    /// The origin is not on the allow-list.
    OriginNotAllowed,
    /// The confirmation callback said no.
    NotConfirmed,
    /// Nothing is paid in a dry run: [`Error::quote`] says what it would have cost.
    DryRun,
    /// The request's body is gone, and cannot be sent a second time.
    Body,
    /// A redirect leads to another origin.
    Redirect,
    /// More than five redirects.
    TooManyRedirects,
    /// The token store is unavailable, or shows a token that is none.
    Store,
    /// The wallet cannot be asked what became of an earlier payment.
    Wallet,
    /// An earlier payment to the origin is on its way, or was begun so lately that
    /// it may be; or another request buys there for longer than is waited. Nothing
    /// new is paid before that has ended.
    InFlight,
    /// The wallet says that the payment failed, or could not be asked before it was
    /// sent: nothing was paid.
    PaymentFailed,
    /// The payment may have been made. It is looked up before anything new is
    /// paid to this origin.
    Uncertain,
    /// The payment was made, and the wallet shows no preimage.
    NoPreimage,
    /// The preimage is not the invoice's: the wallet tells what is not so.
    Preimage,
    /// The server asks for a payment again, right after one.
    PaidAgain,
    /// The server was not reached, or its answer broke off.
    Transport,
    /// The answer did not come in time.
    Timeout,
    /// The answer is longer than allowed.
    TooLong,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { kind, message, source: None, quote: None, receipt: None }))
    }

    pub(crate) fn invoice_used() -> Self {
        let what = "the server's invoice was used before, for another token or by another payer of the wallet: \
                    nothing is paid";
        Self::new(ErrorKind::InvoiceUsed, what)
    }

    pub(crate) fn in_flight(hash: PaymentHash) -> Self {
        let what =
            format!("payment {hash}, begun before, is on its way: nothing new is paid until it has ended");
        Self::new(ErrorKind::InFlight, what)
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn with_quote(mut self, quote: Quote) -> Self {
        self.0.quote = Some(quote);
        self
    }

    pub(crate) fn with_receipt(mut self, receipt: Option<Receipt>) -> Self {
        self.0.receipt = receipt.or(self.0.receipt);
        self
    }

    /// The error of the service beneath; one of ours stays what it is.
    pub(crate) fn of_service(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(error) => Self::new(ErrorKind::Transport, "the server gave no answer").with_source(error),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the server asked for, where that is why nothing was paid.
    pub fn quote(&self) -> Option<&Quote> {
        self.0.quote.as_ref()
    }

    /// What this request paid before it failed: the token is held, or gone, as
    /// the text says.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.0.receipt.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .field("quote", &self.0.quote)
            .field("receipt", &self.0.receipt)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_pointer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }
}
