//! Logs, on standard error.
//!
//! Invariants:
//! - Nobody waits for the log: lines go through a bounded queue to a thread of
//!   their own. Those that don't fit are dropped and counted, and a log that
//!   cannot be written is no error of the one who logs.
//! - The number of lines follows neither from a backlog nor from what peers send: see
//!   [`LogLimit`].
//! - An error is usually the last line before the process ends, so it is waited
//!   for, within [`PATIENCE`], as long as the log is being read at all.

use std::{
    env,
    io::{self, IsTerminal, Write},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{LogFormat, ServiceArgs, args::without_blanks, log_limit::LogLimit};

/// Lines that wait to be written.
const QUEUE: usize = 8192;
/// How long an error's line, and the last ones, are waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked for lines that were left out.
const SUM_UP: Duration = Duration::from_secs(1);
/// Between two looks for room in a full queue, by those who wait.
const PAUSE: Duration = Duration::from_millis(1);

/// Starts logging to standard error, panics included. To be called once; a later
/// call changes nothing. Drop what is returned last of all: it writes what is
/// queued.
#[must_use]
pub fn init_logging(args: &ServiceArgs) -> LogGuard {
    let filter = match &args.log {
        Some(filter) => EnvFilter::new(filter),
        None => {
            let filter = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
            let builder = EnvFilter::builder().with_default_directive(Level::INFO.into());
            builder.parse_lossy(without_blanks(&filter))
        }
    };
    let lines = match Lines::start(io::stderr()) {
        Ok(lines) => lines,
        // Without a thread nothing else will start either.
        Err(_) => return LogGuard { lines: None },
    };
    let logs = tracing_subscriber::fmt::layer().with_writer(lines.clone());
    let logs = match args.log_format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => logs.json().flatten_event(true).boxed(),
    };
    let limit = LogLimit::default();
    let logs = tracing_subscriber::registry().with(filter).with(logs.with_filter(limit.clone()));
    if logs.try_init().is_err() {
        tracing::debug!("logging was started before");
        return LogGuard { lines: None };
    }
    // The default hook writes to standard error itself, and so may wait forever.
    panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let thread = thread::current();
        tracing::error!(thread = thread.name(), "a bug: {panic}\n{backtrace}");
    }));
    sum_up_regularly(limit);
    LogGuard { lines: Some(lines) }
}

/// For as long as the process lives.
fn sum_up_regularly(limit: LogLimit) {
    let sum_up = move || {
        loop {
            thread::sleep(SUM_UP);
            limit.sum_up();
        }
    };
    if let Err(error) = thread::Builder::new().name("log-limit".into()).spawn(sum_up) {
        tracing::warn!(%error, "suppressed log lines are not counted");
    }
}

/// Writes what is queued when it is dropped.
#[derive(Debug)]
pub struct LogGuard {
    lines: Option<Lines>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            lines.put(Vec::new(), true);
        }
    }
}

struct Line {
    text: Vec<u8>,
    /// Told when it is written.
    written: Option<SyncSender<()>>,
}

/// The queue of lines.
#[derive(Debug, Clone)]
struct Lines {
    queue: SyncSender<Line>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    dropped: AtomicU64,
    /// A line was waited for in vain, and none was written since.
    is_stuck: AtomicBool,
}

impl Lines {
    fn start(mut log: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel::<Line>(QUEUE);
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let write = move || {
            for line in lines {
                // A log that is closed is written to in vain.
                let _ = log.write_all(&line.text);
                shared.is_stuck.store(false, Relaxed);
                if let Some(written) = line.written {
                    let _ = written.send(());
                }
                let dropped = shared.dropped.swap(0, Relaxed);
                if dropped > 0 {
                    let _ = writeln!(
                        log,
                        "{dropped} log lines were dropped: standard error is not being read"
                    );
                }
            }
        };
        thread::Builder::new().name("log".into()).spawn(write)?;
        Ok(Self { queue, state })
    }

    fn put(&self, text: Vec<u8>, wait: bool) {
        let wait = wait && !self.state.is_stuck.load(Relaxed);
        let until = Instant::now() + if wait { PATIENCE } else { Duration::ZERO };
        let (written, is_written) = mpsc::sync_channel(1);
        let mut line = Line { text, written: wait.then_some(written) };
        loop {
            match self.queue.try_send(line) {
                Err(TrySendError::Full(back)) if Instant::now() < until => {
                    line = back;
                    thread::sleep(PAUSE);
                }
                Err(TrySendError::Full(_)) => {
                    self.state.dropped.fetch_add(1, Relaxed);
                    self.state.is_stuck.fetch_or(wait, Relaxed);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
                Ok(()) => break,
            }
        }
        if wait {
            let left = until.saturating_duration_since(Instant::now());
            let in_time = is_written.recv_timeout(left).is_ok();
            self.state.is_stuck.store(!in_time, Relaxed);
        }
    }
}

/// Takes one line.
struct LineWriter<'a> {
    lines: &'a Lines,
    wait: bool,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.lines.put(text.to_vec(), self.wait);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { lines: self, wait: false }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> LineWriter<'a> {
        LineWriter { lines: self, wait: *about.level() == Level::ERROR }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes nothing while it is locked.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_stuck_log_cannot_take_is_dropped_and_counted_and_the_rest_is_written() {
        let log = Log::default();
        let lines = Lines::start(log.clone()).unwrap();
        let held = log.0.lock().unwrap();
        for _ in 0..QUEUE + 10 {
            lines.put(b"line\n".to_vec(), false);
        }
        drop(held);
        lines.put(b"last\n".to_vec(), true);
        drop(LogGuard { lines: Some(lines) });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.matches("line\n").count() >= QUEUE, "{}", text.len());
        assert!(text.contains("log lines were dropped"), "{text}");
    }

    #[test]
    fn an_error_that_is_waited_for_is_written_when_the_wait_ends() {
        let log = Log::default();
        let lines = Lines::start(log.clone()).unwrap();
        lines.put(b"the disk failed\n".to_vec(), true);
        assert_eq!(*log.0.lock().unwrap(), b"the disk failed\n");
    }
}
