//! Why a request was not admitted, and the one table from reason to answer.
//!
//! | HTTP | gRPC | invoice | when |
//! |---|---|---|---|
//! | 402 | 13 | fresh | a new payment mends it: no token, or one that does not open this |
//! | 401 | 16 | none | the credential itself is broken; paying again would not help |
//! | 400 and other 4xx | 3 | none | the request cannot be sold |
//! | 429 | 8 | none | a limit is reached |
//! | 503 | 14 | none | node, ledger or price source cannot be asked now, or a payment has yet to arrive |
//! | 500 | 13 | none | the server is built wrong |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// Why a request was not admitted. It stands in the extensions of the
/// response, and its [`code`](Self::code) in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The request carries no L402 credential.
    MissingCredential,
    /// The token's identifier has a version or format this server does not know.
    UnknownFormat,
    /// The token was signed with a key this server does not hold (any more),
    /// or its uses were counted in memory before a restart.
    UnknownKey,
    /// The token was revoked.
    Revoked,
    /// The token does not open this service.
    WrongService,
    /// The token was bought as an offer that this gate does not have.
    WrongOffer,
    /// The token has expired.
    Expired,
    /// All uses of the token are spent.
    UsedUp,
    /// The token's tier is lower than the gate's.
    TierTooLow,
    /// The token lacks the capability that the gate requires.
    MissingCapability,
    /// The request costs more than the token was sold for.
    PriceTooHigh,
    /// The token is restricted to other methods.
    WrongMethod,
    /// The token has a caveat whose condition this server does not know.
    UnknownCaveat,
    /// The value of a caveat does not parse, or widens an earlier one.
    InvalidCaveat,
    /// The token's invoice was not paid, and no longer can be.
    NotPaid,
    /// The registered condition of this name does not hold for the request.
    ConditionFailed(Arc<str>),

    /// The credential is not `L402 <base64 token>:<64 hex digits>`.
    Malformed(Malformed),
    /// The token was altered, or signed by somebody else.
    BadSignature,
    /// The preimage is not that of the token's payment hash.
    WrongPreimage,
    /// Two different L402 credentials in one request.
    TwoCredentials,

    /// The request does not carry what the condition of this name binds a
    /// token to, or too much of it.
    Unbindable(Arc<str>),
    /// What the request names is not for sale; the seller chose the status.
    NotForSale(StatusCode),

    /// The pass is used more often than its rate allows.
    RateLimited {
        /// When to ask again.
        retry_after: Duration,
    },

    /// The client, or all clients together, asked for too many challenges:
    /// this one carries none.
    TooManyChallenges {
        /// When to ask again.
        retry_after: Duration,
    },

    /// The Lightning node or wallet did not give a usable invoice, or did not
    /// say whether one was paid.
    BackendUnavailable {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The backend has not seen the payment of the token's invoice yet.
    PaymentPending {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Too many wait for an invoice, a price, or word of a payment at this moment.
    Busy,
    /// The ledger could not be asked.
    LedgerUnavailable,
    /// The price could not be asked.
    PriceUnavailable,

    /// The price could not be computed.
    PriceFailed,
    /// An inner gate does not admit what the outer one admitted.
    NestedGate,
    /// The server cannot honour what it sold or would sell: a ledger is
    /// missing, or the key that signs is revoked.
    Misconfigured,
}

/// What is wrong with the form of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// Longer than any credential.
    TooLong,
    /// No preimage beside the token.
    NoPreimage,
    /// Several tokens before one preimage, for which no rule exists.
    SeveralTokens,
    /// The token is not base64 in one of its two alphabets.
    Base64,
    /// The token is not an L402 macaroon.
    Macaroon,
    /// The preimage is not 64 hex digits.
    Preimage,
}

/// A row of the table.
struct Row {
    status: StatusCode,
    grpc: u8,
    code: &'static str,
    detail: &'static str,
}

/// When to ask again where nothing else is known.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Refusal {
    fn row(&self) -> Row {
        #[rustfmt::skip] // a table, one row a line
        let (status, grpc, code, detail) = match self {
            Self::MissingCredential => (402, 13, "missing_credential", "this needs a payment"),
            Self::UnknownFormat => (402, 13, "unknown_format", "the token has a format this server does not know; buy a new one"),
            Self::UnknownKey => (402, 13, "unknown_key", "the token was signed with a key that is no longer in use; buy a new one"),
            Self::Revoked => (402, 13, "revoked", "the token was revoked; buy a new one"),
            Self::WrongService => (402, 13, "wrong_service", "the token opens another service; buy one for this"),
            Self::WrongOffer => (402, 13, "wrong_offer", "the token was bought as another offer; buy one for this"),
            Self::Expired => (402, 13, "expired", "the token has expired; buy a new one"),
            Self::UsedUp => (402, 13, "used_up", "all uses of the token are spent; buy a new one"),
            Self::TierTooLow => (402, 13, "tier_too_low", "this needs a token of a higher tier"),
            Self::MissingCapability => (402, 13, "missing_capability", "this needs a token with another capability"),
            Self::PriceTooHigh => (402, 13, "price_too_high", "this costs more than the token was sold for"),
            Self::WrongMethod => (402, 13, "wrong_method", "the token is restricted to other methods"),
            Self::UnknownCaveat => (402, 13, "unknown_caveat", "the token has a caveat this server does not know"),
            Self::InvalidCaveat => (402, 13, "invalid_caveat", "a caveat of the token is invalid"),
            Self::NotPaid => (402, 13, "not_paid", "the invoice of the token was not paid; buy a new one"),
            Self::ConditionFailed(_) => (402, 13, "condition_failed", "a condition of the token does not hold for this request"),

            Self::Malformed(malformed) => (401, 16, malformed.code(), malformed.detail()),
            Self::BadSignature => (401, 16, "bad_signature", "the token was altered or is not of this server"),
            Self::WrongPreimage => (401, 16, "wrong_preimage", "the preimage is not that of the token's invoice"),
            Self::TwoCredentials => (401, 16, "two_credentials", "the request has two different credentials; send one"),

            Self::Unbindable(_) => (400, 3, "unbindable", "the request lacks what a token is bound to, or has too much of it"),
            Self::NotForSale(status) => (status.as_u16(), 3, "not_for_sale", "what the request names is not for sale"),

            Self::RateLimited { .. } => (429, 8, "rate_limited", "the pass is used more often than its rate allows"),
            Self::TooManyChallenges { .. } => (429, 8, "too_many_challenges", "too many invoices were asked for; wait, or send the token of one that was paid"),

            Self::BackendUnavailable { .. } => (503, 14, "backend_unavailable", "the Lightning backend cannot be asked just now"),
            Self::PaymentPending { .. } => (503, 14, "payment_pending", "the payment of the token has not arrived yet"),
            Self::Busy => (503, 14, "busy", "too many wait for an invoice, a price or word of a payment just now"),
            Self::LedgerUnavailable => (503, 14, "ledger_unavailable", "the use cannot be counted just now"),
            Self::PriceUnavailable => (503, 14, "price_unavailable", "the price is not known just now"),

            Self::PriceFailed => (500, 13, "price_failed", "the server could not compute the price"),
            Self::NestedGate => (500, 13, "nested_gate", "the server has a gate within a gate that asks for another token"),
            Self::Misconfigured => (500, 13, "misconfigured", "the server cannot honour its own tokens"),
        };
        let status = StatusCode::from_u16(status).expect("the table holds valid statuses");
        Row { status, grpc, code, detail }
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The gRPC status code of the answer.
    pub fn grpc_code(&self) -> u8 {
        self.row().grpc
    }

    /// A stable name of the reason, for programs.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    /// One sentence for the person behind the client.
    pub fn detail(&self) -> &'static str {
        self.row().detail
    }

    /// Whether a new payment mends it: the answer carries a fresh challenge.
    pub fn is_payable(&self) -> bool {
        self.status() == StatusCode::PAYMENT_REQUIRED
    }

    /// Whether another token would have been admitted.
    pub(crate) fn concerns_token(&self) -> bool {
        self.is_payable() || self.status() == StatusCode::UNAUTHORIZED
    }

    /// The limit that was reached, by its name in events.
    pub(crate) fn limit(&self) -> Option<&'static str> {
        match self {
            Self::RateLimited { .. } => Some("pass_rate"),
            Self::TooManyChallenges { .. } => Some("challenges"),
            Self::Busy => Some("in_flight"),
            _ => None,
        }
    }

    /// When to ask again, where waiting helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::BackendUnavailable { retry_after }
            | Self::PaymentPending { retry_after }
            | Self::RateLimited { retry_after }
            | Self::TooManyChallenges { retry_after } => Some(*retry_after),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER),
            _ => None,
        }
    }
}

impl Malformed {
    fn code(self) -> &'static str {
        match self {
            Self::TooLong => "credential_too_long",
            Self::NoPreimage => "missing_preimage",
            Self::SeveralTokens => "several_tokens",
            Self::Base64 => "malformed_token",
            Self::Macaroon => "malformed_macaroon",
            Self::Preimage => "malformed_preimage",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::TooLong => "the credential is too long",
            Self::NoPreimage => "the preimage is missing; send `L402 <token>:<preimage>`",
            Self::SeveralTokens => "several tokens with one preimage are not supported; send one",
            Self::Base64 => "the token is not base64",
            Self::Macaroon => "the token is not an L402 macaroon",
            Self::Preimage => "the preimage is not 64 hex digits",
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Refusal {}
