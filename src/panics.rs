//! Closures of the operator, whose panics end no connection.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a closure says; `None` where it panics.
pub(crate) fn unless_panics<T>(closure: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(closure)).ok()
}
