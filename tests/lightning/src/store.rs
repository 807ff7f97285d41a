//! Where a node keeps its state: in memory, since on disk it would be the
//! slowest part of a payment.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ldk_node::lightning::io::{Error, ErrorKind};
use ldk_node::lightning::util::persist::{KVStore, KVStoreSync};

type Key = (String, String, String);
type Ready<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<BTreeMap<Key, Vec<u8>>>);

impl MemoryStore {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KVStoreSync for MemoryStore {
    fn read(&self, first: &str, second: &str, key: &str) -> Result<Vec<u8>, Error> {
        let value = self.entries().get(&named(first, second, key)).cloned();
        value.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such key"))
    }

    fn write(&self, first: &str, second: &str, key: &str, value: Vec<u8>) -> Result<(), Error> {
        self.entries().insert(named(first, second, key), value);
        Ok(())
    }

    fn remove(&self, first: &str, second: &str, key: &str, _lazy: bool) -> Result<(), Error> {
        self.entries().remove(&named(first, second, key));
        Ok(())
    }

    fn list(&self, first: &str, second: &str) -> Result<Vec<String>, Error> {
        let entries = self.entries();
        let there = entries.keys().filter(|key| key.0 == first && key.1 == second);
        Ok(there.map(|key| key.2.clone()).collect())
    }
}

/// The same, done before the future is there.
impl KVStore for MemoryStore {
    fn read(&self, first: &str, second: &str, key: &str) -> Ready<Vec<u8>> {
        Box::pin(ready(KVStoreSync::read(self, first, second, key)))
    }

    fn write(&self, first: &str, second: &str, key: &str, value: Vec<u8>) -> Ready<()> {
        Box::pin(ready(KVStoreSync::write(self, first, second, key, value)))
    }

    fn remove(&self, first: &str, second: &str, key: &str, lazy: bool) -> Ready<()> {
        Box::pin(ready(KVStoreSync::remove(self, first, second, key, lazy)))
    }

    fn list(&self, first: &str, second: &str) -> Ready<Vec<String>> {
        Box::pin(ready(KVStoreSync::list(self, first, second)))
    }
}

fn named(first: &str, second: &str, key: &str) -> Key {
    (first.to_owned(), second.to_owned(), key.to_owned())
}
