//! Finds the intended word for a misspelt one.

/// The word of `known` that is closest to `word`; `None` if none is close.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    let limit = (word.chars().count() / 3).max(1);
    let closest = known.iter().map(|name| (distance(&word, name), *name)).min()?;
    (closest.0 <= limit).then_some(closest.1)
}

/// Edit distance: insertions, deletions, substitutions and transpositions from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let moved = replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                match i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    true => moved.min(table[i - 2][j - 2] + 1),
                    false => moved,
                }
            };
        }
    }
    table[a.len()][b.len()]
}
