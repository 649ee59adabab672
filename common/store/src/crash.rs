//! Crash points: places where a test has a process killed.

/// Kills the process (SIGKILL) here if the environment variable
/// `DTC_CRASH_POINT` says so: `name`, or `name:3` for the third time that the
/// point is reached. Compiles to nothing where debug assertions are off.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::reached($name);
    };
}

/// What [`crash_point!`] calls.
#[doc(hidden)]
#[cfg(debug_assertions)]
pub fn reached(name: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var("DTC_CRASH_POINT").ok()?;
        Some(match wanted.split_once(':') {
            Some((name, times)) => (name.into(), times.parse().unwrap_or(1)),
            None => (wanted, 1),
        })
    });
    static REACHED: AtomicU64 = AtomicU64::new(0);

    let Some((wanted, times)) = &*WANTED else { return };
    if wanted == name && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *times {
        use nix::sys::signal::{Signal, kill};
        let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
        // The signal ends the process; nothing after this point may run before it does.
        loop {
            std::thread::park();
        }
    }
}

/// What [`crash_point!`] calls where it compiles to nothing.
#[doc(hidden)]
#[cfg(not(debug_assertions))]
pub fn reached(_name: &str) {}
