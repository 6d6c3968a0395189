//! The words of a filter, with their places.

/// A word, a parenthesis, or the end of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Empty at the end.
    pub text: &'a str,
    /// Where it begins, in characters from 1.
    pub column: usize,
}

/// Splits a text into its tokens; the last one is the end. `!`, `&&` and `||` become words.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut column) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = length(rest, first);
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(Token { text: word(token), column });
        }
        column += token.chars().count();
        rest = after;
    }
    tokens.push(Token { text: "", column });
    tokens
}

/// The length of the first token, or of the space, in bytes.
fn length(rest: &str, first: char) -> usize {
    let ends_word = |letter: char| letter.is_whitespace() || "()!&|".contains(letter);
    match first {
        _ if rest.starts_with("&&") || rest.starts_with("||") => 2,
        _ if ends_word(first) => first.len_utf8(),
        _ => rest.find(ends_word).unwrap_or(rest.len()),
    }
}

fn word(token: &str) -> &str {
    match token {
        "!" => "not",
        "&&" => "and",
        "||" => "or",
        other => other,
    }
}
