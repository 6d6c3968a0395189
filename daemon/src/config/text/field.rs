//! A key of a table and its value, as written into a file.

use std::collections::BTreeMap;

use toml_edit::{Array, InlineTable, Value};

/// One key of a table and its value.
#[derive(Clone)]
pub(super) struct Field {
    /// The key as it is spelled in the file.
    pub key: &'static str,
    /// Its value; `None` = the key is absent.
    pub value: Option<Value>,
    /// Whether leaving the key out means the same.
    pub is_default: bool,
}

impl Field {
    pub(super) fn new(key: &'static str, value: impl Into<Value>, is_default: bool) -> Self {
        Self { key, value: Some(value.into()), is_default }
    }

    pub(super) fn optional(key: &'static str, value: Option<impl Into<Value>>) -> Self {
        Self { key, value: value.map(Into::into), is_default: false }
    }

    /// A key that is absent.
    pub(super) fn absent(key: &'static str) -> Self {
        Self { key, value: None, is_default: false }
    }
}

pub(super) fn map_field(key: &'static str, map: &BTreeMap<String, impl ToString>) -> Field {
    let table: InlineTable =
        map.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
    Field::optional(key, (!map.is_empty()).then_some(table))
}

pub(super) fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn path(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Puts a list of strings into a table, unless it is empty.
pub(super) fn put_list(table: &mut InlineTable, key: &str, texts: impl Iterator<Item = String>) {
    let list = Array::from_iter(texts);
    if !list.is_empty() {
        table.insert(key, list.into());
    }
}
