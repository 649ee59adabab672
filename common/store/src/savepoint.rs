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
