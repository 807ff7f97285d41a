//! Token stores: the contract, and what a file adds to it.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;

use l402::client::{FileStore, MemoryStore, SqliteStore, TokenStore};
use l402::conformance;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    let store = Arc::new(MemoryStore::new());
    conformance::token_store::check(async || store.clone() as Arc<dyn TokenStore>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_keeps_the_contract() {
    let folder = Folder::new();
    let file = folder.file("tokens.json");
    conformance::token_store::check(async || {
        Arc::new(FileStore::open(&file).await.unwrap()) as Arc<dyn TokenStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    let folder = Folder::new();
    let file = folder.file("tokens.db");
    conformance::token_store::check(async || {
        Arc::new(SqliteStore::open(&file).await.unwrap()) as Arc<dyn TokenStore>
    })
    .await;
}
