//! Requests that a client has free, before the first challenge.

use std::hash::Hash;
use std::time::Duration;

use super::bucket::whole_nanos;
use super::table::Table;

/// So many in each window, which begins with the client's first free request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FreeRequests {
    n: u32,
    /// Nanoseconds.
    per: u64,
}

impl FreeRequests {
    pub(crate) fn new(n: u32, per: Duration) -> Self {
        Self { n, per: whole_nanos(per).max(1) }
    }

    /// Counts one, if there is one left.
    pub(super) fn take(self, table: &Table, key: impl Hash, now: u64) -> bool {
        // Gates that count differently count apart.
        let counted = table.count((self, key), now, |place| {
            if place.until <= now {
                place.until = now.saturating_add(self.per);
                place.count = 0;
            }
            let is_left = place.count < self.n;
            place.count += u32::from(is_left);
            is_left
        });
        counted.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_begins_with_its_first_request_and_ends_for_good() {
        let (table, free) = (Table::new(), FreeRequests::new(2, Duration::from_nanos(10)));
        for (now, expected) in
            [(5, true), (6, true), (7, false), (14, false), (15, true), (24, true), (24, false), (25, true)]
        {
            assert_eq!(free.take(&table, "a", now), expected, "at {now}");
        }
        assert!(free.take(&table, "b", 7), "another client has its own");
    }

    #[test]
    fn a_full_table_leaves_none_free() {
        let (table, free) = (Table::new(), FreeRequests::new(1, Duration::from_secs(1)));
        // Three for each place: no set of the table is left with room.
        let taken = (0..200_000).filter(|client| free.take(&table, client, 0)).count();
        assert_eq!(taken, 65_536);
        assert!(!(0..200_000).any(|client| free.take(&table, client, 0)));
    }

    #[test]
    fn none_are_free_where_the_number_is_zero() {
        assert!(!FreeRequests::new(0, Duration::from_secs(1)).take(&Table::new(), 1, 5));
    }

    proptest! {
        #[test]
        fn a_client_never_has_more_than_n_in_a_window_of_its_own(
            n in 1_u32..5,
            per in 1_u64..100,
            pauses in prop::collection::vec(0_u64..60, 1..200),
        ) {
            let (table, free) = (Table::new(), FreeRequests::new(n, Duration::from_nanos(per)));
            let (mut now, mut window, mut taken) = (1_000, 0, 0);
            for pause in pauses {
                now += pause;
                if now >= window {
                    (window, taken) = (now + per, 0);
                }
                prop_assert_eq!(free.take(&table, 1, now), taken < n);
                taken += 1;
            }
        }
    }
}
