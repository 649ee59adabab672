//! Crash points: places where a test has a process killed.

/// Kills the process (SIGKILL) here if the environment variable
/// `DTC_CRASH_POINT` says so: `name`, or `name:3` for the third time that the
/// point is reached. Does nothing without the feature `crash-points`.
#[cfg(feature = "crash-points")]
pub fn crash_point(name: &str) {
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

/// Does nothing: the feature `crash-points` is off.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn crash_point(_name: &str) {}
