//! What the operator is told while the server runs.

use std::fmt;
use std::io::{self, Write as _};

/// One line on standard error. That it cannot be written stops nothing.
pub(crate) fn warn(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "l402: {line}");
}
