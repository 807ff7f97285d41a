//! Several servers share one count in Redis.
#![cfg(all(feature = "redis", feature = "dev", feature = "test-util"))]
#![allow(unreachable_pub)] // helpers that both ledgers' tests include

mod support {
    pub mod servers;
    pub mod shared_ledger;
}

use std::sync::Arc;

use l402::ledger::{Ledger, Reserved};
use l402::{RedisLedger, conformance};
use support::servers::{Proxy, fresh_name, url};
use support::shared_ledger::{self as shared, account, all_text, ask};
use tokio::task::JoinSet;

/// A store of the test's own: where it is, and what its keys begin with.
#[derive(Clone)]
struct Store {
    url: String,
    prefix: String,
}

impl Store {
    fn fresh() -> Self {
        Self { url: url("L402_TEST_REDIS"), prefix: format!("{{{}}}", fresh_name()) }
    }

    async fn connect(&self) -> Arc<dyn Ledger> {
        let ledger = RedisLedger::builder(&self.url).with_prefix(&self.prefix).connect().await;
        Arc::new(ledger.expect("the ledger opens"))
    }

    /// Runs a command as the administrator, on a key of the store.
    async fn run(&self, command: &str, key: &str, args: &[&str]) {
        let client = redis::Client::open(self.url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let key = format!("{}:{key}", self.prefix);
        let _: redis::Value =
            redis::cmd(command).arg(key).arg(args).query_async(&mut connection).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn it_keeps_the_contract_of_ledgers() {
    conformance::ledger::check(Store::fresh().connect().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn two_servers_share_one_count() {
    let store = Store::fresh();
    shared::handles_share_one_count(&[store.connect().await, store.connect().await]).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn what_is_used_up_stays_used_up() {
    let (store, account) = (Store::fresh(), account());
    shared::use_up(&*store.connect().await, account).await;
    assert_eq!(store.connect().await.reserve(&ask(account, 1, 7)).await.unwrap(), Reserved::UsedUp);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn servers_that_start_at_once_make_one_store() {
    let store = Store::fresh();
    let mut starting = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        starting.spawn(async move { store.connect().await });
    }
    let handles = starting.join_all().await;
    assert!(handles.iter().all(|handle| handle.instance() == handles[0].instance()));
    shared::handles_use_up_one_account(&handles).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn a_release_that_races_its_reserve_gives_back() {
    let store = Store::fresh();
    let (one, other) = (store.connect().await, store.connect().await);
    shared::a_release_that_races_its_reserve_gives_back(one, other).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn a_purge_revives_nothing() {
    let store = Store::fresh();
    shared::a_purge_revives_nothing(&[store.connect().await, store.connect().await]).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn an_outage_is_an_error_until_it_ends() {
    let store = Store::fresh();
    let (mut proxy, url) = Proxy::before(&store.url).await;
    let ledger = Store { url, ..store }.connect().await;
    shared::an_outage_is_an_error_until_it_ends(&*ledger, &mut proxy).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn silence_is_an_error_in_time() {
    let store = Store::fresh();
    let (proxy, url) = Proxy::before(&store.url).await;
    let ledger = Store { url, ..store }.connect().await;
    shared::silence_is_an_error_in_time(&*ledger, &proxy).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn revocations_reach_other_servers_and_later_ones() {
    let store = Store::fresh();
    shared::revocations_reach_other_servers(|| store.connect()).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_revocation_that_cannot_be_read_does_not_open() {
    let store = Store::fresh();
    drop(store.connect().await);
    store.run("HSET", "revocations", &["9:00", "0"]).await;
    let error = RedisLedger::builder(&store.url).with_prefix(&store.prefix).connect().await.unwrap_err();
    assert!(all_text(&error).contains("a revocation that cannot be read"), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_store_that_was_emptied_is_an_error_and_then_another_store() {
    let (store, account) = (Store::fresh(), account());
    let ledger = store.connect().await;
    shared::use_up(&*ledger, account).await;
    store.run("DEL", "instance", &[]).await;
    assert!(all_text(&ledger.reserve(&ask(account, 1, 7)).await.unwrap_err()).contains("LOST"));
    let next = store.connect().await;
    assert_ne!(next.instance(), ledger.instance());
    ledger.reserve(&ask(account, 1, 7)).await.unwrap_err();
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let store = Store::fresh();
    let (ledger, account) = (store.connect().await, account());
    let client = redis::Client::open(store.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for remaining in [6, 5] {
        let _: redis::Value = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
        assert_eq!(ledger.reserve(&ask(account, 1, 7)).await.unwrap(), Reserved::Open { remaining });
    }
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn what_is_larger_than_a_double_holds_is_never_more() {
    let ledger = Store::fresh().connect().await;
    let account = account();
    let most = (1 << 53) - 2;
    for (spent, units) in [(0, 1), (1, most / 2), (1 + most / 2, 1)] {
        let left = most - spent - units;
        assert_eq!(
            ledger.reserve(&ask(account, units, u64::MAX)).await.unwrap(),
            Reserved::Open { remaining: left }
        );
    }
    for units in [most / 2, most, most + 1, u64::MAX] {
        assert_eq!(ledger.reserve(&ask(account, units, u64::MAX)).await.unwrap(), Reserved::UsedUp);
    }
    for event in ["one", "two"] {
        ledger.credit(&account, u64::MAX, event, u64::MAX).await.unwrap();
    }
    let left = most - 2 - most / 2;
    assert_eq!(ledger.reserve(&ask(account, left, 7)).await.unwrap(), Reserved::Open { remaining: 0 });
    assert_eq!(ledger.reserve(&ask(account, 1, u64::MAX)).await.unwrap(), Reserved::UsedUp);
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_refused_password_is_not_shown() {
    let url = url("L402_TEST_REDIS");
    let (_, host) = url.split_once('@').unwrap();
    let text = all_text(&RedisLedger::connect(&format!("redis://:hunter2@{host}")).await.unwrap_err());
    assert!(text.contains("Password authentication failed") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn no_error_shows_the_password() {
    for url in [
        "redis://:hunter2",
        "redis://:hunter2@127.0.0.1:1",
        "redis://:hunter2@127.0.0.1:hunter2",
        "redis://:hunter2@127.0.0.1:1/hunter2",
        "rediss://:hunter2@127.0.0.1:1",
        "hunter2",
    ] {
        let builder = RedisLedger::builder(url);
        assert!(!format!("{builder:?}").contains("hunter2"));
        let text = all_text(&builder.connect().await.unwrap_err());
        assert!(!text.contains("hunter2"), "{url}: {text}");
    }
}
