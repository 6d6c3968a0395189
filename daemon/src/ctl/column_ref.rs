//! `COLUMN[:KEY]` at the beginning of an argument.

use super::failure::Failure;
use crate::value_type::DELIMITERS;

/// `COLUMN[:KEY]` at the beginning of an argument.
pub(super) struct ColumnRef<'a> {
    /// The column's name as typed.
    pub column: &'a str,
    key: Option<&'a str>,
}

impl<'a> ColumnRef<'a> {
    /// Splits it from the rest of the argument.
    pub(super) fn split(text: &'a str) -> (ColumnRef<'a>, &'a str) {
        let (column, rest) = word(text);
        match rest.strip_prefix(':') {
            Some(after) => {
                let (key, rest) = word(after);
                (ColumnRef { column, key: Some(key) }, rest)
            }
            None => (ColumnRef { column, key: None }, rest),
        }
    }

    /// The key, without its quotes.
    ///
    /// # Errors
    /// It is empty, or the quotes are not closed.
    pub(super) fn key(&self) -> Result<Option<String>, Failure> {
        match self.key {
            None => Ok(None),
            Some("") => Err(format!("{}: missing key after \":\"", self.column).into()),
            Some(quoted) if quoted.starts_with('"') => {
                let key = serde_json::from_str(quoted).map(Some);
                Ok(key.map_err(|error| format!("{quoted}: {error}"))?)
            }
            Some(plain) => Ok(Some(plain.to_owned())),
        }
    }
}

/// A word or a JSON string (with its quotes) at the beginning of `text`, and the rest.
fn word(text: &str) -> (&str, &str) {
    let end = if text.starts_with('"') {
        let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
        match strings.next() {
            Some(Ok(_)) => strings.byte_offset(),
            _ => text.len(),
        }
    } else {
        text.find(|c| DELIMITERS.contains(c)).unwrap_or(text.len())
    };
    text.split_at(end)
}
