//! A random sequence of what happens to purchases, against a model that is
//! plain sums: no store goes beyond a limit, and its sums are the model's.
#![allow(missing_docs)]

use l402::client::{
    Begun, Budget, FileStore, Limit, MemoryStore, Purchase, PurchaseState, SqliteStore, TokenStore,
};
use l402::{PaymentHash, Preimage};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const START: u64 = 1_800_000_000;
const SAT: u64 = 1_000;
/// Of one request, one origin, an hour, a day, and in all.
const LIMITS_SAT: [u64; 5] = [30, 150, 100, 200, 400];

#[derive(Clone, Debug)]
enum Step {
    Begin { hash: u8, origin: u8, amount_msat: u64, max_fee_msat: u64 },
    Settle { hash: u8, fee_msat: u64, shows: bool },
    Fail { hash: u8 },
    Discard { hash: u8 },
    Wait { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let hash = || 0..40_u8;
    let step = prop_oneof![
        6 => (hash(), 0..3_u8, 1..32 * SAT, 0..2 * SAT).prop_map(|(hash, origin, amount_msat, max_fee_msat)| {
            Step::Begin { hash, origin, amount_msat, max_fee_msat }
        }),
        3 => (hash(), 0..2 * SAT, any::<bool>())
            .prop_map(|(hash, fee_msat, shows)| Step::Settle { hash, fee_msat, shows }),
        1 => hash().prop_map(|hash| Step::Fail { hash }),
        2 => hash().prop_map(|hash| Step::Discard { hash }),
        2 => prop_oneof![0..900_u64, Just(3_599), Just(3_600), 0..50_000_u64].prop_map(|seconds| Step::Wait { seconds }),
    ];
    vec(step, 1..80)
}

/// A payment of the model.
#[derive(Clone, Copy)]
struct Paid {
    hash: u8,
    origin: u8,
    begun_at: u64,
    amount_msat: u64,
    fee_msat: u64,
    state: &'static str,
}

#[derive(Default)]
struct Model(Vec<Paid>);

impl Model {
    fn find(&mut self, hash: u8) -> Option<&mut Paid> {
        self.0.iter_mut().find(|paid| paid.hash == hash)
    }

    /// Of an origin, the hour, the day, and in all.
    fn sums(&self, origin: u8, now: u64) -> [u64; 4] {
        let sum = |counts: &dyn Fn(&Paid) -> bool| {
            let counted = self.0.iter().filter(|paid| counts(paid));
            counted.map(|paid| paid.amount_msat + paid.fee_msat).sum()
        };
        [
            sum(&|paid| paid.origin == origin),
            sum(&|paid| now - paid.begun_at < 3_600),
            sum(&|paid| now - paid.begun_at < 86_400),
            sum(&|_| true),
        ]
    }
}

fn hash(n: u8) -> PaymentHash {
    PaymentHash::from_bytes([n; 32])
}

fn origin(n: u8) -> String {
    format!("https://{n}.example")
}

fn state(purchase: &Purchase) -> &'static str {
    match purchase.state {
        PurchaseState::Pending => "pending",
        PurchaseState::Held { .. } => "held",
        _ => "gone",
    }
}

async fn agrees(store: &dyn TokenStore, steps: &[Step]) {
    let [request, of_origin, hour, day, total] = LIMITS_SAT;
    let budget = Budget::default().with_request_sat(request).with_origin_sat(of_origin).with_hour_sat(hour);
    let budget = budget.with_day_sat(day).with_total_sat(total);
    let (mut model, mut now) = (Model::default(), START);
    for step in steps {
        match *step {
            Step::Begin { hash: n, origin: o, amount_msat, max_fee_msat } => {
                let mut purchase = Purchase::new(hash(n), origin(o), amount_msat, now);
                purchase.max_fee_msat = max_fee_msat;
                let cost = amount_msat + max_fee_msat;
                let sums = model.sums(o, now);
                let limits = [Limit::Origin, Limit::Hour, Limit::Day, Limit::Total];
                let over = std::iter::once((0, Limit::Request)).chain(sums.into_iter().zip(limits));
                let mut over = over.zip(LIMITS_SAT).filter(|((sum, _), limit)| sum + cost > limit * SAT);
                let expected = match (model.find(n), over.next()) {
                    (Some(_), _) => Begun::Exists,
                    (None, Some(((_, limit), _))) => Begun::OverBudget(limit),
                    (None, None) => {
                        let state = "pending";
                        let paid = Paid {
                            hash: n,
                            origin: o,
                            begun_at: now,
                            amount_msat,
                            fee_msat: max_fee_msat,
                            state,
                        };
                        model.0.push(paid);
                        Begun::Started
                    }
                };
                assert_eq!(store.begin(&purchase, &budget, now).await.unwrap(), expected);
                // Fees that were not told before may go beyond, and a begin never.
                if expected == Begun::Started {
                    let spent = store.spent(&origin(o), now).await.unwrap();
                    let sums = [spent.origin_msat, spent.hour_msat, spent.day_msat, spent.total_msat];
                    assert!(sums.iter().zip(&LIMITS_SAT[1..]).all(|(sum, limit)| *sum <= limit * SAT));
                }
            }
            Step::Settle { hash: n, fee_msat, shows } => {
                let preimage = shows.then(|| Preimage::from_bytes([n; 32]));
                let settled = store.settle(hash(n), preimage, fee_msat, now).await;
                assert_eq!(settled.is_ok(), model.find(n).is_some());
                if let Some(paid) = model.find(n).filter(|paid| paid.state == "pending") {
                    (paid.fee_msat, paid.state) = (fee_msat, if shows { "held" } else { "gone" });
                }
            }
            Step::Fail { hash: n } => {
                store.fail(hash(n)).await.unwrap();
                model.0.retain(|paid| paid.hash != n || paid.state != "pending");
            }
            Step::Discard { hash: n } => {
                store.discard(hash(n)).await.unwrap();
                if let Some(paid) = model.find(n).filter(|paid| paid.state == "held") {
                    paid.state = "gone";
                }
            }
            Step::Wait { seconds } => now += seconds,
        }
        for n in 0..3 {
            let spent = store.spent(&origin(n), now).await.unwrap();
            let sums = [spent.origin_msat, spent.hour_msat, spent.day_msat, spent.total_msat];
            assert_eq!(sums, model.sums(n, now), "after {step:?}");
        }
    }
    let kept = store.all().await.unwrap();
    let kept: Vec<_> = kept.iter().map(|purchase| (purchase.payment_hash, state(purchase))).collect();
    let expected: Vec<_> = model.0.iter().rev().map(|paid| (hash(paid.hash), paid.state)).collect();
    assert_eq!(kept, expected);
}

fn run(cases: u32, test: &impl AsyncFn(&[Step])) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let tested = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(test(&steps));
        Ok(())
    });
    tested.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn memory_counts_as_the_model_does() {
    run(1_000, &async |steps| agrees(&MemoryStore::new(), steps).await);
}

#[test]
fn a_file_counts_as_the_model_does() {
    run(15, &async |steps| {
        let dir = tempfile::tempdir().unwrap();
        agrees(&FileStore::open(dir.path().join("tokens.json")).await.unwrap(), steps).await;
    });
}

#[test]
fn sqlite_counts_as_the_model_does() {
    run(30, &async |steps| {
        let dir = tempfile::tempdir().unwrap();
        agrees(&SqliteStore::open(dir.path().join("tokens.db")).await.unwrap(), steps).await;
    });
}
