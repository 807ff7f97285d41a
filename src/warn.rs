//! What the operator is told while the server runs.

use std::fmt;
use std::io::{self, Write as _};

/// Whether anybody subscribes to the log.
#[cfg(feature = "tracing")]
pub(crate) fn has_log() -> bool {
    tracing::dispatcher::has_been_set()
}

/// One line in the log, where there is one (feature `tracing`), else on standard
/// error. That it cannot be written stops nothing.
pub(crate) fn warn(line: fmt::Arguments<'_>) {
    #[cfg(feature = "tracing")]
    if has_log() {
        tracing::warn!(target: "l402", "{line}");
        return;
    }
    let _ = writeln!(io::stderr(), "l402: {line}");
}
