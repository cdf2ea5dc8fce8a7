//! Which key was probably meant.

/// The known key closest to `unknown`, if it is close enough to have been meant.
pub(super) fn nearest<'k>(unknown: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let bound = (unknown.chars().count() / 3).max(1);
    known
        .map(|key| (edit_distance(unknown, key), key))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, key)| key)
}

/// How many letters to insert, drop, replace or swap with their neighbour to get from one word to the
/// other; case is free.
fn edit_distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.to_lowercase().chars().collect();
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::{super::known_keys::ROOT, *};

    #[test]
    fn typing_errors_find_their_key() {
        let keys = || ROOT.iter().map(|key| key.name);
        for (typed, meant) in [
            ("cpus", Some("cpu")),
            ("memroy", Some("memory")),
            ("root_disk", Some("rootDisk")),
            ("Runtime", Some("runtime")),
            ("mount", Some("mounts")),
            ("banana", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, keys()), meant, "{typed}");
        }
    }
}
