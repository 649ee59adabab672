//! A wall clock that is off by as much as a file says, while a process runs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dtc_runtime::Environment;

/// The environment variable that names the file. It holds milliseconds, with a sign.
pub(crate) const VARIABLE: &str = "DTC_TEST_CLOCK";
/// How old what was read may be.
const FRESH: Duration = Duration::from_millis(10);

/// The operating system's, with that clock if [`VARIABLE`] is set.
pub fn environment() -> Environment {
    let real = Environment::real();
    let Some(file) = env::var_os(VARIABLE).map(PathBuf::from) else { return real };
    let (right, error) = (Arc::clone(&real.wall_clock), Mutex::new((Instant::now(), read(&file))));
    let wall_clock = Arc::new(move || {
        let mut error = error.lock().unwrap_or_else(PoisonError::into_inner);
        if error.0.elapsed() > FRESH {
            *error = (Instant::now(), read(&file));
        }
        off_by(right(), error.1)
    });
    Environment { wall_clock, ..real }
}

fn read(file: &Path) -> i64 {
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// A time, off by so many milliseconds; never before 1970.
pub(crate) fn off_by(time: Duration, milliseconds: i64) -> Duration {
    let off = Duration::from_millis(milliseconds.unsigned_abs());
    if milliseconds < 0 { time.saturating_sub(off) } else { time + off }
}
