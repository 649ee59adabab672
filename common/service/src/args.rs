//! The flags that all services share. Each is also an environment variable.

use std::{
    error::Error,
    ffi::OsString,
    net::{AddrParseError, SocketAddr},
    num::ParseIntError,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, ValueEnum, error::ContextKind};
use tracing_subscriber::EnvFilter;

/// Flags of every service.
#[derive(Debug, Clone, Args)]
pub struct ServiceArgs {
    /// Address and port to listen on, for gRPC, HTTP and /metrics. Port 0 takes a free
    /// one, which is logged
    #[arg(long, env = "DTC_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// Folder for this service's database; created if missing
    #[arg(long, env = "DTC_DATA", value_name = "FOLDER", default_value = "data")]
    pub data: PathBuf,

    /// Bytes of disk to keep free: with less, new work is refused, while prepared and
    /// decided transactions go on. 0 switches the check off
    #[arg(long, env = "DTC_MIN_FREE", value_name = "BYTES", default_value_t = 64 << 20)]
    pub min_free: u64,

    /// File to write the port to once requests are served; for scripts that use port 0
    #[arg(long, env = "DTC_PORT_FILE", value_name = "FILE")]
    pub port_file: Option<PathBuf>,

    /// Format of log lines: 'text' for terminals, 'json' for programs
    #[arg(long, env = "DTC_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Log level (error, warn, info, debug, trace) or filter, such as
    /// 'info,coordinator=debug'. Default: RUST_LOG, or 'info'
    #[arg(long, env = "DTC_LOG", value_name = "FILTER", value_parser = parse_filter)]
    pub log: Option<String>,

    /// Threads that serve connections. Default: half of the cores, at least one, as
    /// the storage has threads of its own
    #[arg(long, env = "DTC_WORKER_THREADS", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub worker_threads: Option<u16>,

    /// Longest wait for running requests when the service is stopped
    #[arg(
        long,
        env = "DTC_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = parse_duration
    )]
    pub drain_timeout: Duration,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For terminals.
    Text,
    /// One JSON object a line.
    Json,
}

/// Parses the process's flags, with `listen` as the default of `--listen`. Ends
/// the process, with the reason and [`Exit::Configuration`](dtc_runtime::Exit), when
/// they are wrong, and after `--help`.
pub fn parse_args<P: Parser>(listen: &'static str) -> P {
    parse_args_from(P::command(), listen, std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Parses flags, the first of which is the program's name, as `command` has them.
///
/// # Errors
///
/// clap's, for people.
pub fn parse_args_from<P: Parser>(
    command: clap::Command,
    listen: &'static str,
    flags: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<P, clap::Error> {
    let command = command.mut_arg("listen", |arg| arg.required(false).default_value(listen));
    let mut matches = command.try_get_matches_from(flags).map_err(with_what_would_be_right)?;
    P::from_arg_matches_mut(&mut matches)
}

/// The reasons of std's parsers say what is wrong only.
fn with_what_would_be_right(error: clap::Error) -> clap::Error {
    let Some(cause) = error.source() else {
        return error;
    };
    let right = if cause.is::<ParseIntError>() {
        "write a whole number, such as 1000"
    } else if cause.is::<AddrParseError>() {
        "write ADDRESS:PORT, such as 127.0.0.1:7100"
    } else {
        return error;
    };
    let (flag, value) = (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue));
    let (Some(flag), Some(value)) = (flag, value) else {
        return error;
    };
    let said = format!("invalid value '{value}' for '{flag}': {cause}; {right}\n");
    clap::Error::raw(error.kind(), said)
}

/// A duration such as `500ms`, `5s`, `2m` or `1h 30m`, for clap's `value_parser`.
///
/// # Errors
///
/// A sentence that says what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write for example 500ms, 5s, 2m or 1h"))
}

fn parse_filter(text: &str) -> Result<String, String> {
    let text = without_blanks(text);
    match EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{error}; write for example info or info,coordinator=debug")),
    }
}

/// A filter's directives with no blanks around them: the parser of tracing-subscriber
/// 0.3.23 cuts a directive that begins with one in the wrong places, and panics where that
/// is within a character.
pub(crate) fn without_blanks(filter: &str) -> String {
    filter.split(',').map(str::trim).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[derive(Parser)]
    struct OnlyService {
        #[command(flatten)]
        service: ServiceArgs,
    }

    fn parse(args: &[&str]) -> Result<ServiceArgs, String> {
        let args = ["service", "--listen", "127.0.0.1:0"].iter().chain(args);
        OnlyService::try_parse_from(args)
            .map(|args| args.service)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_read_and_a_bad_one_is_named_with_what_would_be_good() {
        assert_eq!(
            parse(&["--drain-timeout", "1500ms"]).unwrap().drain_timeout,
            Duration::from_millis(1500)
        );
        let error = parse(&["--drain-timeout", "soon"]).unwrap_err();
        assert!(error.contains("soon") && error.contains("500ms"), "{error}");
    }

    #[test]
    fn a_number_or_address_that_cannot_be_read_is_named_with_what_would_be_right() {
        for (given, says) in [
            ("--min-free=lots", ["'lots'", "'--min-free <BYTES>'", "whole number, such as 1000"]),
            ("--min-free=-1", ["'-1'", "'--min-free <BYTES>'", "whole number, such as 1000"]),
            ("--worker-threads=x", ["'x'", "'--worker-threads <COUNT>'", "whole number"]),
            ("--listen=here", ["'here'", "'--listen <ADDRESS:PORT>'", "127.0.0.1:7100"]),
        ] {
            let flags = ["service", given];
            let error = parse_args_from::<OnlyService>(OnlyService::command(), "[::1]:0", flags);
            let error = error.err().expect("refused");
            assert_eq!(error.exit_code(), 2);
            let said = error.to_string();
            assert!(says.iter().all(|part| said.contains(part)), "{given}: {said}");
        }
    }

    #[test]
    fn blanks_beside_a_filters_commas_count_for_nothing() {
        let filter = |text| parse(&["--log", text]).map(|args| args.log.unwrap());
        let plain = "info,coordinator=debug";
        assert_eq!(filter(" info, coordinator=debug ").unwrap(), plain);
        assert_eq!(filter(" \u{1BC90}=debug").unwrap(), "\u{1BC90}=debug");
    }

    #[test]
    fn a_bad_filter_or_format_is_refused() {
        let error = parse(&["--log", "info,coordinator=loud"]).unwrap_err();
        assert!(error.contains("coordinator=debug"), "{error}");
        let error = parse(&["--log-format", "xml"]).unwrap_err();
        assert!(error.contains("text, json"), "{error}");
    }

    #[test]
    fn every_flag_has_an_environment_variable_and_a_help_text() {
        let command = OnlyService::command();
        for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
            let flag = arg.get_long().expect("a long flag");
            let variable = format!("DTC_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
            assert!(arg.get_help().is_some(), "{flag}");
        }
    }
}
