//! What a relay says (NIP-01).

use serde_json::Value;

use super::event::Event;
use crate::backend::{BackendError, BackendErrorKind};

/// A message of a relay (NIP-01), as far as it is ours to read.
pub(super) enum FromRelay {
    Event(Event),
    /// The relay does not take our event.
    Refused {
        id: String,
        error: BackendError,
    },
    /// All that was stored has been sent.
    Stored(String),
    /// The relay ended a subscription.
    Closed {
        id: String,
        error: BackendError,
    },
}

impl FromRelay {
    /// Reads a message; `None` for what is not ours to read.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut message: Vec<Value> = serde_json::from_str(text).ok()?;
        let mut item = |index: usize| message.get_mut(index).map(Value::take);
        let text_of = |value: Option<Value>| match value {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        match text_of(item(0))?.as_str() {
            "EVENT" => Some(Self::Event(serde_json::from_value(item(2)?).ok()?)),
            "OK" if item(2)? == Value::Bool(false) => {
                Some(Self::Refused { id: text_of(item(1))?, error: refusal(&text_of(item(3))?) })
            }
            "EOSE" => Some(Self::Stored(text_of(item(1))?)),
            "CLOSED" => Some(Self::Closed { id: text_of(item(1))?, error: refusal(&text_of(item(2))?) }),
            _ => None,
        }
    }
}

/// The error that a relay's reason tells, by the word before its colon.
fn refusal(reason: &str) -> BackendError {
    let (kind, what) = match reason.split(':').next().unwrap_or_default() {
        "rate-limited" => (BackendErrorKind::RateLimited { retry_after: None }, "relay limits our rate"),
        "auth-required" => (BackendErrorKind::Auth, "relay wants clients to log in (NIP-42): use another"),
        "restricted" | "blocked" => (BackendErrorKind::Auth, "relay does not serve us: use another"),
        _ => (BackendErrorKind::Backend, "relay refuses our requests"),
    };
    BackendError::new(kind, what)
}
