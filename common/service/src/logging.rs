//! Logs, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::{LogFormat, ServiceArgs};

/// Starts logging to standard error. To be called once; a later call changes nothing.
pub fn init_logging(args: &ServiceArgs) {
    let filter = match &args.log {
        Some(filter) => EnvFilter::new(filter),
        None => EnvFilter::builder()
            .with_default_directive(tracing::Level::INFO.into())
            .from_env_lossy(),
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let result = match args.log_format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    if result.is_err() {
        tracing::debug!("logging was started before");
    }
}
