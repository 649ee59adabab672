//! Rows that hold what nobody wrote: told from good ones by their types, lengths
//! and checksums, and named, so that somebody can look at them.

use rusqlite::{
    Connection, Row,
    types::{FromSql, ValueRef},
};

/// How much of a key that is no key is shown.
const SHOWN: usize = 40;

/// Something in a file that cannot be what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct Damaged {
    place: String,
    why: String,
}

impl Damaged {
    /// In the table's row with this key.
    pub fn new(table: &str, key: &str, column: &str, why: impl Into<String>) -> Self {
        Self { place: format!("table {table}, row {key}, column {column}"), why: why.into() }
    }

    /// At a place of a file.
    pub(crate) fn at(place: String, why: String) -> Self {
        Self { place, why }
    }

    /// What SQLite found, or a reader of rows.
    pub fn of(error: &rusqlite::Error) -> Option<Self> {
        match error {
            rusqlite::Error::ToSqlConversionFailure(cause) => cause.downcast_ref().cloned(),
            error => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            )
            .then(|| Self { place: "SQLite".into(), why: error.to_string() }),
        }
    }
}

impl From<Damaged> for rusqlite::Error {
    fn from(damaged: Damaged) -> Self {
        // The variant that adds no words of its own.
        Self::ToSqlConversionFailure(Box::new(damaged))
    }
}

/// A row that is not trusted.
pub struct CheckedRow<'a> {
    table: &'static str,
    row: &'a Row<'a>,
    key: String,
}

impl<'a> CheckedRow<'a> {
    /// A row of `table` whose first columns are its key.
    pub fn new(table: &'static str, row: &'a Row<'a>, key_columns: usize) -> Self {
        let key = (0..key_columns).map(|index| row.get_ref(index).map_or("?".into(), show));
        Self { table, row, key: key.collect::<Vec<_>>().join("/") }
    }

    /// One column.
    ///
    /// # Errors
    ///
    /// [`Damaged`] where it holds another type than it should.
    pub fn get<T: FromSql>(&self, index: usize) -> rusqlite::Result<T> {
        self.row.get(index).map_err(|_| {
            let why = self.row.get_ref(index).map_or("it is missing".into(), |value| {
                format!("it holds {} ({}), which is no valid value", show(value), value.data_type())
            });
            self.damaged(index, why)
        })
    }

    /// What is wrong with a column.
    pub fn damaged(&self, index: usize, why: impl Into<String>) -> rusqlite::Error {
        let column = self.row.as_ref().column_name(index).unwrap_or("?");
        Damaged::new(self.table, &self.key, column, why).into()
    }
}

fn show(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            format!("'{}'", text.chars().take(SHOWN).collect::<String>().escape_debug())
        }
        ValueRef::Blob(bytes) => match uuid::Uuid::from_slice(bytes) {
            Ok(id) => id.to_string(),
            Err(_) => {
                let bytes = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}"));
                format!("x'{}'", bytes.collect::<String>())
            }
        },
    }
}

/// A CRC-32 of several fields, each with its length.
pub fn checksum(fields: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    hasher.finalize()
}

/// Whether the pages of a table are whole. Reads all of the table.
///
/// # Errors
///
/// [`Damaged`] with what SQLite says of it.
pub fn check_pages(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let found: String =
        connection.query_row(&format!("PRAGMA quick_check({table})"), [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => {
            let why = found.lines().take(3).collect::<Vec<_>>().join("; ");
            Err(Damaged { place: format!("table {table}"), why }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_column_is_named_with_its_row() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "SELECT x'0102' AS id, 7 AS number, 'text' AS payload";
        let read = connection
            .query_row(sql, [], |row| CheckedRow::new("undecided", row, 2).get::<Vec<u8>>(2));
        let damaged = Damaged::of(&read.unwrap_err()).unwrap().to_string();
        assert!(
            damaged.starts_with("table undecided, row x'0102'/7, column payload: "),
            "{damaged}"
        );
    }

    #[test]
    fn a_checksum_tells_where_fields_end() {
        assert_ne!(checksum(&[b"ab", b"c"]), checksum(&[b"a", b"bc"]));
        assert_eq!(checksum(&[b"ab"]), checksum(&[b"ab"]));
    }

    #[test]
    fn a_page_that_is_not_whole_is_found_in_its_table_only() {
        use std::os::unix::fs::FileExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let connection = Connection::open(&path).unwrap();
        let tables = "CREATE TABLE notes (note TEXT); CREATE TABLE others (other TEXT);
                      INSERT INTO notes VALUES ('a'); INSERT INTO others VALUES ('b');";
        connection.execute_batch(tables).unwrap();
        let page: u32 = connection
            .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'notes'", [], |row| {
                row.get(0)
            })
            .unwrap();
        drop(connection);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // Where its row begins.
        file.write_all_at(&[0xFF, 0xFF], u64::from(page - 1) * 4096 + 8).unwrap();
        let connection = Connection::open(&path).unwrap();
        check_pages(&connection, "others").unwrap();
        let damaged = Damaged::of(&check_pages(&connection, "notes").unwrap_err()).unwrap();
        assert!(damaged.to_string().starts_with("table notes: "), "{damaged}");
    }
}
