//! Wanted × current -> open, keep, close: pure.

use std::collections::BTreeMap;

use super::rules::{Forward, Place};

/// What has to be done, in this order: a place is free only once what was there is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) close: Vec<Place>,
    pub(super) open: Vec<Forward>,
    /// Kept listening; only who wants it may have changed.
    pub(super) keep: Vec<Forward>,
    /// Wanted beyond the limit.
    pub(super) too_many: Vec<Forward>,
}

/// Compares what is wanted with what is open. Beyond `limit` what is open goes first.
pub(super) fn reconcile(
    wanted: &[Forward],
    current: &BTreeMap<Place, Forward>,
    limit: usize,
) -> Steps {
    let mut steps = Steps::default();
    let mut wanted_places = BTreeMap::new();
    for forward in wanted {
        wanted_places.entry(forward.place()).or_insert(forward);
    }
    for (place, open) in current {
        match wanted_places.get(place) {
            Some(forward) if forward.guest == open.guest => {}
            _ => steps.close.push(*place),
        }
    }
    for (place, forward) in &wanted_places {
        match current.get(place) {
            Some(open) if open.guest == forward.guest => steps.keep.push((*forward).clone()),
            _ => steps.open.push((*forward).clone()),
        }
    }
    let room = limit.saturating_sub(steps.keep.len());
    if steps.open.len() > room {
        steps.too_many = steps.open.split_off(room);
    }
    steps
}

#[cfg(test)]
mod tests {
    use colima_core::ports::Protocol;
    use proptest::prelude::*;

    use super::*;

    fn any_forward() -> impl Strategy<Value = Forward> {
        (1_u16..8, 1_u16..3, any::<bool>()).prop_map(|(host, guest, tcp)| Forward {
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            host: ([127, 0, 0, 1], host).into(),
            guest: ([127, 0, 0, 1], guest).into(),
            published: None,
        })
    }

    proptest! {
        #[test]
        fn the_steps_lead_to_what_is_wanted(
            wanted in proptest::collection::vec(any_forward(), 0..12),
            current in proptest::collection::vec(any_forward(), 0..12),
            limit in 0_usize..14,
        ) {
            let mut current: BTreeMap<Place, Forward> =
                current.into_iter().map(|forward| (forward.place(), forward)).collect();
            current = current.into_iter().take(limit).collect();
            let mut wanted_places: BTreeMap<Place, Forward> = BTreeMap::new();
            for forward in &wanted {
                wanted_places.entry(forward.place()).or_insert_with(|| forward.clone());
            }
            let steps = reconcile(&wanted, &current, limit);
            let mut after = current.clone();
            for place in &steps.close {
                prop_assert!(after.remove(place).is_some(), "closed what was not open");
            }
            for forward in &steps.keep {
                prop_assert!(after.contains_key(&forward.place()), "kept what was closed");
            }
            for forward in &steps.open {
                prop_assert!(after.insert(forward.place(), forward.clone()).is_none(), "opened twice");
            }
            prop_assert!(after.len() <= limit);
            for forward in &steps.too_many {
                prop_assert_eq!(after.len(), limit, "there was room");
                prop_assert!(wanted_places.remove(&forward.place()).is_some());
            }
            prop_assert_eq!(&after, &wanted_places);
            // Nothing to do is nothing done.
            let again = reconcile(&wanted, &after, limit);
            prop_assert!(again.close.is_empty());
            prop_assert!(again.open.is_empty());
        }
    }
}
