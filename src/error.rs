//! What the operator has to mend: configuration that does not build.

use std::error::Error as StdError;
use std::fmt;

/// Why an issuer, a gate, a key ring or a store was not built. [`kind`](Self::kind)
/// says which, for programs; the text says what to do.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A root key is missing, too short or unreadable, or two keys of a ring share an id.
    Key,
    /// The backend takes payments on another network than the issuer sells on.
    Network,
    /// A service, offer, capability or condition has a name that is not allowed.
    Name,
    /// Another gate builder of this issuer has the service name.
    DuplicateService,
    /// The offers of a gate contradict each other or what the gate requires.
    Offer,
    /// A metered offer without a ledger.
    NoLedger,
    /// A ledger cannot be opened.
    Ledger,
    /// A token store of a paying client cannot be opened.
    TokenStore,
    /// The addresses of trusted proxies cannot be read, or are everybody's.
    Proxies,
    /// The route of the page is no path, or a gate has a page and its issuer no route.
    #[cfg(feature = "page")]
    #[cfg_attr(docsrs, doc(cfg(feature = "page")))]
    Page,
    /// A payment backend is not configured as it has to be: an address, a file,
    /// a credential, or a settlement that it cannot tell of.
    Backend,
    /// A checkout or one of its payment methods is not configured as it has to be.
    Checkout,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of mistake it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
