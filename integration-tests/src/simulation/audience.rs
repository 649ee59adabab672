//! The history of a run: every line that the services and the simulation log, with
//! the simulated time and the host.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Write},
    rc::Rc,
    time::Duration,
};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
};

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes down what is logged on this thread for as long as it lives.
pub(super) struct Audience {
    folder: String,
    _listening: DefaultGuard,
    _here: Rc<()>,
}

struct Ears;

impl Write for Ears {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(text));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Ears {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = super::now();
        write!(writer, "{:>8.3}", now.as_secs_f64())
    }
}

impl Audience {
    /// From here on; `folder` is left out of the lines.
    pub(super) fn new(filter: &str, folder: &str) -> Self {
        LINES.with_borrow_mut(Vec::clear);
        super::set_now(Duration::ZERO);
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(false)
            .with_timer(SimulatedTime)
            .with_writer(Ears)
            .finish();
        let _listening = tracing::subscriber::set_default(subscriber);
        Self { folder: folder.into(), _listening, _here: Rc::new(()) }
    }

    /// All of it so far.
    pub(super) fn history(&self) -> String {
        let text = LINES.with_borrow(|lines| String::from_utf8_lossy(lines).into_owned());
        text.replace(&self.folder, "~")
    }
}
