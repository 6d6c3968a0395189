//! The keys of an `[[openvswitch]]`, read and written.

use super::field::{Field, map_field};
use super::reader::Reader;
use crate::config::model::openvswitch::{Record, RecordTable};

const KEYS: [&str; 3] = ["name", "table", "columns"];

/// Reads the table.
pub(super) fn read(reader: &mut Reader<'_, '_, '_>) -> Record {
    reader.refuse_unknown(&KEYS, |_| None);
    let tables = RecordTable::LASTING.map(|table| (table.name(), table));
    Record {
        name: reader.string("name").unwrap_or_default(),
        table: reader.word("table", &tables).unwrap_or(RecordTable::Qos),
        columns: reader.map("columns").unwrap_or_default().into_iter().collect(),
    }
}

/// The keys of an `[[openvswitch]]`.
pub(super) fn fields(record: &Record) -> Vec<Field> {
    vec![
        Field::new("name", record.name.as_str(), false),
        Field::new("table", record.table.name(), false),
        map_field("columns", &record.columns),
    ]
}
