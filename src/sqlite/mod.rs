//! What the stores in SQLite files share.
//!
//! `db.rs` opens a file, `worker.rs` is the thread that has it, and does all
//! operations that wait in one transaction.

mod db;
mod worker;

pub(crate) use db::{Db, OpenError, Schema, integer, number};
pub(crate) use worker::{Tables, Thread};

/// What a [`SqliteLedger`](crate::SqliteLedger) waits for before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// Until the disk has the change: a power cut loses nothing. Operations
    /// that come at the same time share one wait.
    #[default]
    Full,
    /// Until the operating system has the change: many times faster where few
    /// requests come at once. A crash of the process loses nothing; after a
    /// power cut the latest uses, some thousands at most, may be there to be
    /// used again.
    Normal,
}
