//! One work's part of a batch, undone alone.

use rusqlite::Connection;

/// Runs `work` so that its error undoes what it wrote, and nothing else of the
/// transaction that `connection` is in.
///
/// # Errors
///
/// What `work` or SQLite returns. If SQLite rolled the whole transaction back,
/// the store finds that out by itself.
///
/// # Panics
///
/// If what `work` wrote cannot be undone although the transaction goes on: it
/// must not be committed then.
pub fn in_savepoint<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    run(connection, "SAVEPOINT work")?;
    let result = work(connection);
    let end = match &result {
        Ok(_) => run(connection, "RELEASE work"),
        Err(_) => {
            run(connection, "ROLLBACK TO work").and_then(|()| run(connection, "RELEASE work"))
        }
    };
    match end {
        Ok(()) => result,
        Err(error) if connection.is_autocommit() => result.and(Err(error.into())),
        Err(error) => panic!("a savepoint could not be ended: {error}"),
    }
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE notes (note TEXT); BEGIN").unwrap();
        connection
    }

    #[test]
    fn what_sqlite_has_rolled_back_is_an_error() {
        let connection = begun();
        let done: rusqlite::Result<()> =
            in_savepoint(&connection, |connection| connection.execute_batch("ROLLBACK"));
        assert!(done.is_err());
    }

    #[test]
    #[should_panic(expected = "a savepoint could not be ended")]
    fn what_cannot_be_undone_alone_is_not_committed() {
        let connection = begun();
        let _: rusqlite::Result<()> =
            in_savepoint(&connection, |connection| connection.execute_batch("RELEASE work"));
    }
}
