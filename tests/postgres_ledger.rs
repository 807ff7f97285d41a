//! Several servers share one count in PostgreSQL.
#![cfg(all(feature = "postgres", feature = "dev", feature = "test-util"))]
#![allow(unreachable_pub)] // helpers that both ledgers' tests include

mod support {
    pub mod servers;
    pub mod shared_ledger;
}

use std::sync::Arc;

use l402::ledger::{Ledger, Reserved};
use l402::{PostgresLedger, conformance};
use support::servers::{Proxy, fresh_name, url};
use support::shared_ledger::{self as shared, account, all_text, ask};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

/// Runs SQL as the administrator.
async fn sql(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the server listens");
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.expect("it is run");
    drop(client);
    connection.await.expect("no panic").expect("a clean end");
}

/// A database of the test's own.
async fn database() -> String {
    let (server, name) = (url("L402_TEST_POSTGRES"), fresh_name());
    sql(&server, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
    server.replace("/postgres", &format!("/{name}")).replacen(&format!("/{name}://"), "/postgres://", 1)
}

async fn connect(url: &str) -> Arc<dyn Ledger> {
    Arc::new(PostgresLedger::connect(url).await.expect("the ledger opens"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn it_keeps_the_contract_of_ledgers() {
    conformance::ledger::check(connect(&database().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn two_servers_share_one_count() {
    let url = database().await;
    shared::handles_share_one_count(&[connect(&url).await, connect(&url).await]).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn what_is_used_up_stays_used_up() {
    let (url, account) = (database().await, account());
    shared::use_up(&*connect(&url).await, account).await;
    assert_eq!(connect(&url).await.reserve(&ask(account, 1, 7)).await.unwrap(), Reserved::UsedUp);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn servers_that_start_at_once_make_one_schema() {
    let url = database().await;
    let mut starting = JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        starting.spawn(async move { connect(&url).await });
    }
    shared::handles_use_up_one_account(&starting.join_all().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn a_release_that_races_its_reserve_gives_back() {
    let url = database().await;
    let (one, other) = (connect(&url).await, connect(&url).await);
    shared::a_release_that_races_its_reserve_gives_back(one, other).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn a_purge_revives_nothing() {
    let url = database().await;
    shared::a_purge_revives_nothing(&[connect(&url).await, connect(&url).await]).await;
}

/// The row goes while a reserve of it waits: the reserve looked before, and
/// makes the row anew after.
#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_reserve_that_waits_for_a_purge_revives_nothing() {
    let (url, account) = (database().await, account());
    let ledger = connect(&url).await;
    ledger.reserve(&ask(account, 6, 7)).await.unwrap();
    let again = ask(account, 1, 7);

    let (purger, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    purger.batch_execute(&format!("BEGIN; SELECT l402.purge({})", again.expires_at + 1)).await.unwrap();
    let waiting = tokio::spawn(async move { ledger.reserve(&again).await });
    let waits = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'l402' \
        AND datname = current_database() AND wait_event_type = 'Lock'";
    while purger.query(waits, &[]).await.unwrap().is_empty() {
        purger.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
        assert!(!waiting.is_finished(), "it did not wait");
    }
    purger.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Reserved::Expired);
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn an_outage_is_an_error_until_it_ends() {
    let (mut proxy, url) = Proxy::before(&database().await).await;
    let ledger = connect(&url).await;
    shared::an_outage_is_an_error_until_it_ends(&*ledger, &mut proxy).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn silence_is_an_error_in_time() {
    let (proxy, url) = Proxy::before(&database().await).await;
    let ledger = connect(&url).await;
    shared::silence_is_an_error_in_time(&*ledger, &proxy).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn revocations_reach_other_servers_and_later_ones() {
    let url = database().await;
    shared::revocations_reach_other_servers(|| connect(&url)).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_revocation_that_cannot_be_read_does_not_open() {
    let url = database().await;
    drop(connect(&url).await);
    sql(&url, "INSERT INTO l402.revocations VALUES (9, '')").await;
    let error = PostgresLedger::connect(&url).await.unwrap_err();
    assert!(all_text(&error).contains("a revocation that cannot be read"), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_schema_of_a_later_version_does_not_open() {
    let url = database().await;
    drop(connect(&url).await);
    sql(&url, "INSERT INTO l402.schema_version VALUES (1000)").await;
    let error = PostgresLedger::connect(&url).await.unwrap_err();
    assert!(all_text(&error).contains("later version"), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_role_that_may_create_nothing_uses_the_schema() {
    let url = database().await;
    let admin = connect(&url).await;
    let (role, password) = (fresh_name(), "a");
    sql(
        &url,
        &format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{password}'; GRANT USAGE ON SCHEMA l402 TO {role};
            GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA l402 TO {role}"
        ),
    )
    .await;
    let (_, host) = url.split_once('@').unwrap();
    let shop = connect(&format!("postgres://{role}:{password}@{host}")).await;
    shared::handles_share_one_count(&[admin, shop]).await;
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn another_isolation_level_is_an_error() {
    for level in ["repeatable%20read", "serializable"] {
        let url = database().await;
        let options = level.replace("%20", "%5C%20");
        let ledger = connect(&format!("{url}?options=-c%20default_transaction_isolation%3D{options}")).await;
        let ask = ask(account(), 1, 7);
        let error = ledger.reserve(&ask).await.unwrap_err();
        assert!(all_text(&error).contains("read committed"), "{error:?}");
        ledger.release(&ask.id, ask.now).await.unwrap_err();
        assert_eq!(ledger.account(&ask.id.account()).await.unwrap(), None);
    }
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_session_that_does_not_wait_for_the_disk_waits_for_counts() {
    let url = database().await;
    drop(connect(&url).await);
    let check = "IF current_setting('synchronous_commit') <> 'on' THEN RAISE 'it is off'; END IF";
    for call in [
        "reserve('', '', 1, 1, 1, 1, 1, 0)",
        "commit('', '')",
        "release('', '', 0, 0)",
        "credit('', 1, '', 0)",
        "revoke(2::smallint, '', 0)",
    ] {
        let call = format!("SELECT l402.{call}; DO $$ BEGIN {check}; END $$");
        sql(&url, &format!("SET synchronous_commit = off; BEGIN; {call}; COMMIT")).await;
    }
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn what_is_larger_than_a_column_is_never_more() {
    let ledger = connect(&database().await).await;
    let account = account();
    let most = i64::MAX as u64 - 1;
    assert_eq!(
        ledger.reserve(&ask(account, 1, u64::MAX)).await.unwrap(),
        Reserved::Open { remaining: most - 1 }
    );
    for units in [most, most + 1, u64::MAX] {
        assert_eq!(ledger.reserve(&ask(account, units, u64::MAX)).await.unwrap(), Reserved::UsedUp);
    }
    for event in ["one", "two"] {
        ledger.credit(&account, u64::MAX, event, u64::MAX).await.unwrap();
    }
    assert_eq!(ledger.reserve(&ask(account, most - 1, 7)).await.unwrap(), Reserved::Open { remaining: 0 });
    assert_eq!(ledger.reserve(&ask(account, 1, u64::MAX)).await.unwrap(), Reserved::UsedUp);
}

#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn a_refused_password_is_not_shown() {
    let url = database().await;
    let (_, host) = url.split_once('@').unwrap();
    let error = PostgresLedger::connect(&format!("postgres://l402:hunter2@{host}")).await.unwrap_err();
    let text = all_text(&error);
    assert!(text.contains("authentication failed") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn no_error_shows_the_password() {
    for url in [
        "postgres://shop:hunter2",
        "postgres://shop:hunter2@127.0.0.1:1/shop",
        "postgres://shop:hun?ter2=hunter2@127.0.0.1/shop",
        "postgres://shop:hunter2@127.0.0.1:hunter2/shop",
        "postgres://shop:hunter2@127.0.0.1:1/shop?hunter2=1",
        "postgres://shop:hunter2@db.invalid/shop",
        "user=shop password=hunter2 host=127.0.0.1 port=1",
        "user=shop password='hunter2",
    ] {
        let text = all_text(&PostgresLedger::connect(url).await.unwrap_err());
        assert!(!text.contains("hunter2"), "{url}: {text}");
    }
}

#[tokio::test]
async fn a_way_that_others_can_read_has_to_be_asked_for() {
    for (url, is_refused) in [
        ("postgres://shop@db.example/shop", true),
        ("postgres://shop@192.0.2.1/shop?sslmode=prefer", true),
        ("postgres://shop@127.0.0.1:1/shop?sslmode=require", true),
        ("host=localhost hostaddr=192.0.2.1 user=shop", true),
        ("postgres://shop@127.0.0.1:1,db.example:1/shop", true),
        ("postgres://shop@127.0.0.1:1/shop", false),
        ("postgres://shop@localhost:1/shop", false),
        ("postgres://shop@[::1]:1/shop", false),
        ("host=/nowhere user=shop", false),
        ("postgres://shop@db.invalid/shop?sslmode=disable", false),
    ] {
        let error = PostgresLedger::connect(url).await.unwrap_err();
        assert_eq!(all_text(&error).contains("would not be encrypted"), is_refused, "{url}: {error:?}");
    }
}
