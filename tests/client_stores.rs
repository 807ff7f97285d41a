//! Token stores: the contract, and what a file adds to it.
#![allow(missing_docs)]

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use l402::client::{Begun, Budget, FileStore, MemoryStore, Purchase, SqliteStore, StoreError, TokenStore};
use l402::{Error, ErrorKind, PaymentHash, Preimage, conformance};
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;
const ORIGIN: &str = "https://api.example";
const TOKEN: &str = "c2VjcmV0LXRva2Vu";
const PREIMAGE: [u8; 32] = [0xab; 32];

fn purchase(n: u8) -> Purchase {
    let mut purchase = Purchase::new(PaymentHash::from_bytes([n; 32]), ORIGIN, 10_000, NOW);
    purchase.token = TOKEN.into();
    purchase
}

async fn begin(store: &dyn TokenStore, n: u8) -> Result<Begun, StoreError> {
    store.begin(&purchase(n), &Budget::default(), NOW).await
}

async fn hold(store: &dyn TokenStore, n: u8) {
    assert_eq!(begin(store, n).await.unwrap(), Begun::Started);
    let preimage = Some(Preimage::from_bytes(PREIMAGE));
    store.settle(PaymentHash::from_bytes([n; 32]), preimage, 1, NOW).await.unwrap();
}

async fn spent(store: &dyn TokenStore) -> u64 {
    store.spent(ORIGIN, NOW).await.unwrap().total_msat
}

/// The file cannot be opened, and this is why.
fn is_refused(opened: Result<impl Sized, Error>, file: &Path, why: &str) {
    let error = opened.map(drop).expect_err(why);
    assert_eq!(error.kind(), ErrorKind::TokenStore);
    let text = format!("{error} {error:?}");
    assert!(text.contains(&format!("token store {} cannot be opened", file.display())), "{text}");
    assert!(text.contains(why), "{why}: {text}");
    no_secret(&text);
}

fn no_secret(text: &str) {
    let preimage = Preimage::from_bytes(PREIMAGE).to_hex();
    assert!(!text.contains(TOKEN) && !text.contains(&preimage) && !text.contains("171, 171"), "{text}");
}

#[cfg(unix)]
fn set_mode(file: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

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

#[tokio::test]
async fn what_another_process_may_not_do_is_said_with_what_may() {
    let folder = Folder::new();
    let file = folder.file("tokens.json");
    let first = FileStore::open(&file).await.unwrap();
    hold(&first, 1).await;
    is_refused(FileStore::open(&file).await, &file, "it is open already");
    is_refused(FileStore::open(&file).await, &file, "a SqliteStore is for several processes");
    #[cfg(unix)]
    {
        let link = folder.file("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        is_refused(FileStore::open(&link).await, &link, "it is open already");
        drop(first);
        let linked = FileStore::open(&link).await.unwrap();
        hold(&linked, 2).await;
        drop(linked);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "a link stays one");
        assert_eq!(spent(&FileStore::open(&file).await.unwrap()).await, 2 * 10_001);
    }
}

#[tokio::test]
async fn a_file_that_was_half_written_leaves_the_old_one() {
    let folder = Folder::new();
    let file = folder.file("tokens.json");
    hold(&FileStore::open(&file).await.unwrap(), 1).await;
    let old = fs::read(&file).unwrap();
    for left in [&b"{"[..], b"", &old] {
        fs::write(folder.file("tokens.json.tmp"), left).unwrap();
        let store = FileStore::open(&file).await.unwrap();
        assert_eq!(spent(&store).await, 10_001);
        assert_eq!(begin(&store, 2).await.unwrap(), Begun::Started, "what was left is not in the way");
        assert!(!folder.file("tokens.json.tmp").exists());
        store.fail(PaymentHash::from_bytes([2; 32])).await.unwrap();
    }
    assert_eq!(fs::read(&file).unwrap(), old);
}

#[tokio::test]
async fn a_file_that_is_not_understood_is_never_an_empty_one() {
    let folder = Folder::new();
    let file = folder.file("tokens.json");
    {
        let store = FileStore::open(&file).await.unwrap();
        hold(&store, 1).await;
        begin(&store, 2).await.unwrap();
    }
    let whole = String::from_utf8(fs::read(&file).unwrap()).unwrap();
    assert!(whole.contains(TOKEN));
    let mut broken: Vec<_> =
        (0..whole.len()).step_by(7).map(|at| (whole[..at].to_owned(), "cut off")).collect();
    broken.extend([
        (whole.replace("\"version\":1", "\"version\":2"), "another release of l402 wrote it (version 2"),
        (whole.replace("\"version\":1,", ""), "it is broken"),
        (whole.replace("10000", &format!("\"{TOKEN}\"")), "it is broken"),
        (whole.replace("\"amount_msat\"", &format!("\"{TOKEN}\"")), "it is broken"),
        (whole.replace("abab", "x"), "it is broken"),
        (whole.replace("10000", "-1"), "it is broken"),
        (format!("{whole}{whole}"), "it is broken"),
        ("[]".into(), "it is broken"),
        ("\0".repeat(100), "it is broken"),
    ]);
    for (text, why) in broken {
        fs::write(&file, &text).unwrap();
        is_refused(FileStore::open(&file).await, &file, why);
        assert_eq!(fs::read(&file).unwrap(), text.as_bytes(), "it is left as it was");
    }
    fs::write(&file, whole).unwrap();
    assert_eq!(spent(&FileStore::open(&file).await.unwrap()).await, 20_001, "it can be put back");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named() {
    let folder = Folder::new();
    fs::create_dir(folder.file("folder")).unwrap();
    fs::write(folder.file("letter"), "dear reader, ".repeat(100)).unwrap();
    #[cfg(unix)]
    set_mode(&folder.file("letter"), 0o600);
    let (none, dir, letter) = (folder.file("no/such/folder"), folder.file("folder"), folder.file("letter"));
    is_refused(FileStore::open(&none).await, &none, "No such file or directory");
    is_refused(SqliteStore::open(&none).await, &none, "No such file or directory");
    is_refused(FileStore::open(&dir).await, &dir, "it is no file");
    is_refused(FileStore::open(&letter).await, &letter, "it is broken at line 1");
    is_refused(SqliteStore::open(&letter).await, &letter, "file is not a database");
    is_refused(FileStore::open("").await, Path::new(""), "empty path");
}

#[cfg(unix)]
#[tokio::test]
async fn what_others_may_read_is_refused_and_what_is_made_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let (json, db) = (folder.file("tokens.json"), folder.file("tokens.db"));
    {
        let stores: [&dyn TokenStore; 2] =
            [&FileStore::open(&json).await.unwrap(), &SqliteStore::open(&db).await.unwrap()];
        for store in stores {
            hold(store, 1).await;
        }
        for entry in fs::read_dir(folder.0.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602] {
        set_mode(&json, mode);
        set_mode(&db, mode);
        is_refused(FileStore::open(&json).await, &json, "chmod 600");
        is_refused(SqliteStore::open(&db).await, &db, "chmod 600");
    }
    for mode in [0o600, 0o700] {
        set_mode(&json, mode);
        set_mode(&db, mode);
        FileStore::open(&json).await.unwrap();
        SqliteStore::open(&db).await.unwrap();
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_written_did_not_happen() {
    let folder = Folder::new();
    let file = folder.file("tokens.json");
    let store = FileStore::open(&file).await.unwrap();
    hold(&store, 1).await;
    // A folder in its place: the new file cannot be made.
    fs::create_dir(folder.file("tokens.json.tmp")).unwrap();
    let error = begin(&store, 2).await.unwrap_err();
    assert_eq!(error.to_string(), "token store is unavailable");
    no_secret(&format!("{error:?} {}", error.source().unwrap()));
    assert_eq!(spent(&store).await, 10_001);
    assert_eq!(begin(&store, 1).await.unwrap(), Begun::Exists, "what writes nothing is answered");
    fs::remove_dir(folder.file("tokens.json.tmp")).unwrap();
    assert_eq!(begin(&store, 2).await.unwrap(), Begun::Started);
}

#[tokio::test]
async fn a_change_that_was_begun_is_made_though_nobody_waits() {
    let folder = Folder::new();
    let stores: [&dyn TokenStore; 2] = [
        &FileStore::open(folder.file("tokens.json")).await.unwrap(),
        &SqliteStore::open(folder.file("tokens.db")).await.unwrap(),
    ];
    for store in stores {
        let (purchase, budget) = (purchase(1), Budget::default());
        let mut begun = store.begin(&purchase, &budget, NOW);
        let waker = std::task::Waker::noop();
        assert!(begun.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        drop(begun);
        assert_eq!(spent(store).await, 10_000);
    }
}

#[tokio::test]
async fn a_discarded_token_is_in_no_file() {
    let folder = Folder::new();
    let preimage = Preimage::from_bytes(PREIMAGE).to_hex();
    {
        let stores: [&dyn TokenStore; 2] = [
            &FileStore::open(folder.file("tokens.json")).await.unwrap(),
            &SqliteStore::open(folder.file("tokens.db")).await.unwrap(),
        ];
        for store in stores {
            hold(store, 1).await;
            store.discard(PaymentHash::from_bytes([1; 32])).await.unwrap();
            no_secret(&format!("{store:?} {:?}", store.all().await.unwrap()));
        }
    }
    // The last to close it takes the journal away; the thread does so when it ends.
    rusqlite::Connection::open(folder.file("tokens.db"))
        .and_then(|db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
        .unwrap();
    for entry in fs::read_dir(folder.0.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains(TOKEN) && !text.contains(&preimage), "{}", path.display());
    }
}

#[tokio::test]
async fn a_token_that_expired_is_gone_when_the_next_is_bought() {
    let folder = Folder::new();
    let stores: [&dyn TokenStore; 3] = [
        &MemoryStore::new(),
        &FileStore::open(folder.file("tokens.json")).await.unwrap(),
        &SqliteStore::open(folder.file("tokens.db")).await.unwrap(),
    ];
    for store in stores {
        let mut first = purchase(1);
        first.valid_until = Some(NOW + 60);
        store.begin(&first, &Budget::default(), NOW).await.unwrap();
        store.settle(first.payment_hash, Some(Preimage::from_bytes(PREIMAGE)), 0, NOW).await.unwrap();
        store.begin(&purchase(2), &Budget::default(), NOW + 59).await.unwrap();
        assert_eq!(store.of_origin(ORIGIN).await.unwrap().len(), 2);
        store.begin(&purchase(3), &Budget::default(), NOW + 60).await.unwrap();
        assert_eq!(store.of_origin(ORIGIN).await.unwrap().len(), 2, "{store:?}");
        assert_eq!(store.all().await.unwrap().len(), 3);
        assert!(store.all().await.unwrap()[2].token.is_empty());
    }
}

/// Rows as this crate writes them, many of them: what `book.rs` tests of a book.
#[tokio::test]
async fn receipts_beyond_the_most_are_dropped_into_sums_of_sqlite() {
    let folder = Folder::new();
    let file = folder.file("tokens.db");
    let store = SqliteStore::open(&file).await.unwrap();
    let rows = |state: &str, from: u32, to: u32| {
        let preimage = if state == "held" { "hex(zeroblob(32))" } else { "NULL" };
        let sql = format!(
            "WITH RECURSIVE series (n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM series WHERE n < {to} - 1)
            INSERT INTO l402_purchase (payment_hash, origin, path, scope, token, invoice, amount_msat,
                max_fee_msat, pay_by, is_single_use, begun_at, state, preimage)
            SELECT CAST(format('%032d', n) AS BLOB), '{ORIGIN}', '', '', 'token', '', 1, 0, 0, 0, {NOW},
                '{state}', {preimage}
            FROM series"
        );
        rusqlite::Connection::open(&file).unwrap().execute(&sql, []).unwrap();
    };
    rows("gone", 0, 10_003);
    assert_eq!(begin(&store, 1).await.unwrap(), Begun::Started);
    let all = store.all().await.unwrap();
    assert_eq!(all.len(), 10_001, "10,000 receipts, and what is pending");
    let spent = store.spent(ORIGIN, NOW).await.unwrap();
    assert_eq!([spent.origin_msat, spent.hour_msat, spent.day_msat, spent.total_msat], [20_003; 4]);
    let later = store.spent(ORIGIN, NOW + 3_660).await.unwrap();
    assert_eq!(
        [later.origin_msat, later.hour_msat, later.day_msat],
        [20_003, 0, 20_003],
        "the hour moves on"
    );
    let later = store.spent(ORIGIN, NOW + 86_460).await.unwrap();
    assert_eq!([later.day_msat, later.total_msat], [0, 20_003], "the day moves on");

    rows("held", 20_000, 29_999);
    assert_eq!(begin(&store, 2).await.unwrap(), Begun::Started);
    let open = store.of_origin(ORIGIN).await.unwrap();
    assert_eq!(open.len(), 10_000, "the oldest that is held is gone, and not the one that is pending");
    assert_eq!(open.last().unwrap().payment_hash, PaymentHash::from_bytes([1; 32]));
    rusqlite::Connection::open(&file)
        .and_then(|db| {
            db.execute("UPDATE l402_purchase SET state = 'pending', preimage = NULL WHERE state = 'held'", [])
        })
        .unwrap();
    let error = begin(&store, 3).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("10,000 payments are pending"), "{error:?}");
}

#[tokio::test]
async fn a_ledger_and_a_token_store_may_share_a_file() {
    let folder = Folder::new();
    let file = folder.file("both.db");
    let ledger = l402::SqliteLedger::open(&file).await.unwrap();
    let store = SqliteStore::open(&file).await.unwrap();
    hold(&store, 1).await;
    drop((ledger, store));
    l402::SqliteLedger::open(&file).await.unwrap();
    assert_eq!(spent(&SqliteStore::open(&file).await.unwrap()).await, 10_001);
}

#[tokio::test]
async fn a_lock_that_is_not_given_up_is_an_error_and_no_payment() {
    let folder = Folder::new();
    let file = folder.file("tokens.db");
    let store = SqliteStore::open(&file).await.unwrap();
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = begin(&store, 1).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("database is locked"), "{error:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(spent(&store).await, 0);
    assert_eq!(begin(&store, 1).await.unwrap(), Begun::Started);
}

#[tokio::test]
async fn a_later_version_of_the_tables_is_refused() {
    let folder = Folder::new();
    let file = folder.file("tokens.db");
    drop(SqliteStore::open(&file).await.unwrap());
    let later = rusqlite::Connection::open(&file).unwrap();
    later.execute("UPDATE l402_meta SET value = 2 WHERE key = 'client_version'", []).unwrap();
    is_refused(SqliteStore::open(&file).await, &file, "a later release of l402 wrote it");
}
