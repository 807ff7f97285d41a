//! What is counted for each client or token, in a table of bounded size.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many places a table has: 65,536 of 24 bytes, so 1.5 MiB where all are
/// taken, and 32 KiB before the first is.
const SETS: usize = 1024;
const PLACES_PER_SET: usize = 64;

/// What is counted for one key.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// From this moment on, in nanoseconds since the epoch, the place says no
    /// more than a fresh one, and is given to whoever needs it.
    pub(crate) until: u64,
    pub(crate) count: u32,
}

/// Hashes of keys, and their places.
type Set = Mutex<Vec<(u64, Place)>>;

/// Places by the keyed hash of what they count for, which nobody outside the
/// process can aim at. Two keys share a place where 64 bits of hash do.
///
/// A key has its place in one set, whose lock is held for a few comparisons: so
/// two threads that meet a key for the first time share one place, and never
/// count it twice.
#[derive(Debug)]
pub(crate) struct Table {
    sets: Box<[Set]>,
    hasher: RandomState,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { sets: (0..SETS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Counts in the key's place; or says when the first place is free, where
    /// all that the key may have are taken.
    pub(crate) fn count<R>(
        &self,
        key: impl Hash,
        now: u64,
        count: impl FnOnce(&mut Place) -> R,
    ) -> Result<R, Duration> {
        let (hash, mut set) = self.set(key);
        let mut idle = None;
        let mut found = None;
        for (i, (other, place)) in set.iter().enumerate() {
            if *other == hash {
                found = Some(i);
                break;
            }
            if idle.is_none() && place.until <= now {
                idle = Some(i);
            }
        }
        let place = if let Some(i) = found {
            i
        } else if let Some(i) = idle {
            set[i] = (hash, Place::default());
            i
        } else if set.len() < PLACES_PER_SET {
            set.push((hash, Place::default()));
            set.len() - 1
        } else {
            let first = set.iter().map(|(_, place)| place.until).min().unwrap_or(now);
            return Err(Duration::from_nanos(first.saturating_sub(now)));
        };
        Ok(count(&mut set[place].1))
    }

    /// Changes the key's place, if it has one.
    pub(crate) fn change(&self, key: impl Hash, change: impl FnOnce(&mut Place)) {
        let (hash, mut set) = self.set(key);
        if let Some((_, place)) = set.iter_mut().find(|(other, _)| *other == hash) {
            change(place);
        }
    }

    fn set(&self, key: impl Hash) -> (u64, MutexGuard<'_, Vec<(u64, Place)>>) {
        let hash = self.hasher.hash_one(key);
        let set = usize::try_from(hash % SETS as u64).expect("fewer than 1,024");
        (hash, self.sets[set].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn places(table: &Table) -> usize {
        table.sets.iter().map(|set| set.lock().unwrap().len()).sum()
    }

    /// Takes a place until this moment.
    fn keep(table: &Table, key: u64, now: u64, until: u64) -> Result<(), Duration> {
        table.count(key, now, |place| place.until = until)
    }

    #[test]
    fn a_full_table_grows_no_more_and_says_when_a_place_is_free() {
        let table = Table::new();
        let refused = (0..200_000).filter_map(|key| keep(&table, key, 10, 50).err()).collect::<Vec<_>>();
        assert_eq!(places(&table), SETS * PLACES_PER_SET);
        assert_eq!(refused.len(), 200_000 - SETS * PLACES_PER_SET);
        assert!(refused.iter().all(|wait| *wait == Duration::from_nanos(40)));
        // Who has a place keeps it, and idle ones are given on.
        let known = (0..200_000).filter(|key| keep(&table, *key, 10, 50).is_ok()).count();
        assert_eq!(known, SETS * PLACES_PER_SET);
        assert!((200_000..230_000).all(|key| keep(&table, key, 50, 90).is_ok()));
        assert_eq!(places(&table), SETS * PLACES_PER_SET);
        let most = table.sets.iter().map(|set| set.lock().unwrap().capacity()).max();
        assert!(most <= Some(PLACES_PER_SET));
        assert!(size_of::<(u64, Place)>() <= 24);
    }

    #[test]
    fn half_a_table_of_busy_keys_turns_nobody_away() {
        let table = Table::new();
        assert!((0..SETS as u64 * 32).all(|key| keep(&table, key, 10, 50).is_ok()));
    }

    #[test]
    fn threads_that_meet_a_key_for_the_first_time_share_its_place() {
        for key in 0..200 {
            let table = Table::new();
            let barrier = std::sync::Barrier::new(4);
            let count = || {
                barrier.wait();
                table.count(key, 10, |place| {
                    *place = Place { until: 20, count: place.count + 1 };
                    place.count
                })
            };
            let mut counts = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect::<Vec<_>>()
            });
            counts.sort_unstable();
            assert_eq!(counts, [1, 2, 3, 4]);
        }
    }

    proptest! {
        #[test]
        fn a_busy_place_remembers_and_an_idle_one_says_nothing_wrong(
            steps in prop::collection::vec((0_u64..40, 0_u64..20, 0_u64..30), 1..400),
        ) {
            let table = Table::new();
            let mut model: HashMap<u64, Place> = HashMap::new();
            let mut now = 0;
            for (key, pause, busy) in steps {
                now += pause;
                let place = table.count(key, now, |place| {
                    let before = *place;
                    *place = Place { until: now + busy, count: place.count + 1 };
                    before
                }).unwrap();
                let known = model.entry(key).or_default();
                if known.until > now {
                    prop_assert_eq!((place.until, place.count), (known.until, known.count));
                } else {
                    prop_assert!(place.until <= now, "an idle place is not busy for anybody else");
                }
                *known = Place { until: now + busy, count: place.count + 1 };
            }
        }
    }
}
