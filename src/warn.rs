//! What the operator is told while the server runs.

use std::fmt;
use std::io::{self, Write as _};

/// One line in the log, where there is one (feature `tracing`), else on standard
/// error. That it cannot be written stops nothing.
pub(crate) fn warn(line: fmt::Arguments<'_>) {
    #[cfg(feature = "tracing")]
    if tracing::dispatcher::has_been_set() {
        tracing::warn!(target: "l402", "{line}");
        return;
    }
    let _ = writeln!(io::stderr(), "l402: {line}");
}
