//! Finds the intended word for a misspelt one.

/// The word of `known` that is closest to `word`; `None` if none is close.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = |text: &str| text.to_lowercase().replace('_', "-");
    let word = folded(word);
    let limit = (word.chars().count() / 3).max(1);
    let distance = |name: &str| strsim::damerau_levenshtein(&word, &folded(name));
    let closest = known.iter().map(|name| (distance(name), *name)).min()?;
    (closest.0 <= limit).then_some(closest.1)
}

/// `; did you mean NAME?`, or nothing if no known name is close.
pub fn suggestion(word: &str, known: &[&str]) -> String {
    nearest(word, known).map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_name_is_found_and_a_distant_one_is_not() {
        let known = ["add-port", "del-port", "list-ports"];
        assert_eq!(nearest("add_prot", &known), Some("add-port"));
        assert_eq!(nearest("lst-ports", &known), Some("list-ports"));
        assert_eq!(nearest("dance", &known), None);
        assert_eq!(nearest("x", &["ab"]), None);
        assert_eq!(suggestion("delport", &known), "; did you mean del-port?");
        assert_eq!(suggestion("", &[]), "");
    }
}
