//! The coordinator's flags.

use std::{net::SocketAddr, str::FromStr, sync::LazyLock, time::Duration};

use clap::{Parser, ValueEnum};
use dtc::Config;
use dtc_core::Deadlocks;
use dtc_runtime::Environment;
use dtc_service::{ServiceArgs, parse_duration};

use dtc::{Address, Pattern, api::Limits, check_name, journal::Retention};

/// What is not set: the library's defaults.
static DEFAULTS: LazyLock<Config> = LazyLock::new(Config::default);

fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A default that is shown as a number.
fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A distributed transaction coordinator: two-phase commit with presumed abort.
///
/// Clients call dtc.v1.TransactionService; participants serve
/// dtc.v1.ParticipantService and are named with --participant or registered
/// through dtc.v1.RegistryService.
#[derive(Debug, Clone, Parser)]
#[command(name = "coordinator", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,

    /// A participant's name and address; the address of an HTTP participant ends in
    /// /prepare; may be repeated (in the variable: separated by commas)
    #[arg(
        long = "participant",
        env = "DTC_PARTICIPANT",
        value_name = "NAME=http://HOST:PORT[/BASE/prepare]",
        value_delimiter = ','
    )]
    pub(crate) participants: Vec<NamedAddress>,

    /// Addresses that requests may name or register, beside those of --participant:
    /// a host, *.domain, a network such as 10.0.0.0/8, or *, each with an optional
    /// :port; may be repeated (in the variable: separated by commas). Link-local and
    /// metadata addresses are never called
    #[arg(
        long = "allow-participant",
        env = "DTC_ALLOW_PARTICIPANT",
        value_name = "PATTERN",
        value_delimiter = ',',
        default_values_t = DEFAULTS.allowed.clone()
    )]
    pub(crate) allowed: Vec<Pattern>,

    /// Address for inquiries of participants without a link, as http://host:port;
    /// by default the address of --listen, unless that is a wildcard
    #[arg(long, env = "DTC_ADVERTISE", value_name = "URL", value_parser = parse_advertised)]
    pub(crate) advertise: Option<String>,

    /// Longest wait for all votes of a transaction, over all attempts, before it aborts
    #[arg(long, env = "DTC_PREPARE_TIMEOUT", value_name = "DURATION", default_value = text(DEFAULTS.core.options.prepare_timeout), value_parser = positive_duration)]
    pub(crate) prepare_timeout: Duration,

    /// Attempts of prepare for each branch; 0 for no limit but --prepare-timeout
    #[arg(long, env = "DTC_PREPARE_ATTEMPTS", value_name = "COUNT", default_value_t = DEFAULTS.core.options.prepare_attempts)]
    pub(crate) prepare_attempts: u32,

    /// Timeout of one attempt of prepare
    #[arg(long, env = "DTC_PREPARE_ATTEMPT_TIMEOUT", value_name = "DURATION", default_value = text(DEFAULTS.core.options.prepare_attempt_timeout), value_parser = positive_duration)]
    pub(crate) prepare_attempt_timeout: Duration,

    /// Timeout of one attempt of commit or rollback
    #[arg(long, env = "DTC_COMMIT_ATTEMPT_TIMEOUT", value_name = "DURATION", default_value = text(DEFAULTS.core.options.commit_attempt_timeout), value_parser = positive_duration)]
    pub(crate) commit_attempt_timeout: Duration,

    /// Longest wait for the link of a disconnected participant before the first prepare
    /// of a transaction is sent; then it aborts. 0s for no wait
    #[arg(long, env = "DTC_LINK_GRACE", value_name = "DURATION", default_value = text(DEFAULTS.core.options.link_grace), value_parser = parse_duration)]
    pub(crate) link_grace: Duration,

    /// Time without a call of an interactive client after which its transaction is
    /// rolled back
    #[arg(long, env = "DTC_IDLE_TIMEOUT", value_name = "DURATION", default_value = text(DEFAULTS.core.options.idle_timeout), value_parser = positive_duration)]
    pub(crate) idle_timeout: Duration,

    /// Upper bound of the backoff between two attempts
    #[arg(long, env = "DTC_BACKOFF_CAP", value_name = "DURATION", default_value = text(DEFAULTS.core.backoff_cap), value_parser = positive_duration)]
    pub(crate) backoff_cap: Duration,

    /// Attempts of commit or rollback after which a transaction is shown as stalled
    #[arg(long, env = "DTC_STALLED_AFTER", value_name = "COUNT", default_value_t = DEFAULTS.core.stalled_after)]
    pub(crate) stalled_after: u32,

    /// Most transactions in flight; more are refused
    #[arg(long, env = "DTC_MAX_IN_FLIGHT", value_name = "COUNT", default_value_t = count(DEFAULTS.core.max_in_flight), value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_in_flight: u32,

    /// Most unfinished transactions of one participant; more are refused
    #[arg(long, env = "DTC_MAX_PER_PARTICIPANT", value_name = "COUNT", default_value_t = count(DEFAULTS.core.max_per_participant), value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_per_participant: u32,

    /// Most bytes of payloads and prepare outputs in flight; more are refused
    #[arg(long, env = "DTC_MAX_IN_FLIGHT_BYTES", value_name = "BYTES", default_value_t = DEFAULTS.core.max_in_flight_bytes as u64)]
    pub(crate) max_in_flight_bytes: u64,

    /// Most branches of a transaction
    #[arg(long, env = "DTC_MAX_BRANCHES", value_name = "COUNT", default_value_t = count(DEFAULTS.core.max_branches), value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) max_branches: u32,

    /// Largest payload of a branch, in bytes
    #[arg(long, env = "DTC_MAX_PAYLOAD", value_name = "BYTES", default_value_t = count(DEFAULTS.max_payload), value_parser = clap::value_parser!(u32).range(1..=Limits::LARGEST_PAYLOAD as i64))]
    pub(crate) max_payload: u32,

    /// Largest prepare output of a branch, in bytes
    #[arg(long, env = "DTC_MAX_OUTPUT", value_name = "BYTES", default_value_t = count(DEFAULTS.core.max_output), value_parser = clap::value_parser!(u32).range(1..=3 << 20))]
    pub(crate) max_output: u32,

    /// Most queued messages for one participant
    #[arg(long, env = "DTC_MAX_QUEUE", value_name = "COUNT", default_value_t = count(DEFAULTS.max_queue), value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_queue: u32,

    /// Longest wait for locks
    #[arg(long, env = "DTC_LOCK_WAIT", value_name = "DURATION", default_value = text(DEFAULTS.core.options.lock_wait), value_parser = positive_duration)]
    pub(crate) lock_wait: Duration,

    /// Policy against deadlocks between lock requests
    #[arg(long, env = "DTC_DEADLOCKS", value_name = "POLICY", default_value = "wait-die")]
    pub(crate) deadlocks: DeadlockPolicy,

    /// Most locks held and waited for, together
    #[arg(long, env = "DTC_MAX_LOCKS", value_name = "COUNT", default_value_t = count(DEFAULTS.core.max_locks), value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_locks: u32,

    /// Most locks of one request, and of one transaction
    #[arg(long, env = "DTC_MAX_LOCK_KEYS", value_name = "COUNT", default_value_t = count(DEFAULTS.core.max_locks_per_owner), value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) max_lock_keys: u32,

    /// Retention of finished transactions, in service time (time that the coordinator runs)
    #[arg(long, env = "DTC_RETENTION", value_name = "DURATION", default_value = text(DEFAULTS.retention.age), value_parser = parse_duration)]
    pub(crate) retention: Duration,

    /// Size of the journal, in bytes, above which the oldest finished transactions are
    /// removed before --retention has passed; never one that ended less than ten minutes,
    /// or twice the longest timeout, ago
    #[arg(long, env = "DTC_RETENTION_BYTES", value_name = "BYTES", default_value_t = DEFAULTS.retention.max_bytes)]
    pub(crate) retention_bytes: u64,

    /// The journal was restored from a backup: transactions of earlier runs that it does
    /// not know are answered 'not mine' instead of 'aborted', and its epoch is raised above
    /// theirs. For the first start with the restored file only
    #[arg(long, env = "DTC_RESTORED")]
    pub(crate) restored: bool,
}

/// See [`Deadlocks`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DeadlockPolicy {
    /// A holder of locks that would wait for an older owner is refused
    WaitDie,
    /// Cycles of waits are detected, and the youngest owner in one is refused
    Detect,
}

impl From<DeadlockPolicy> for Deadlocks {
    fn from(policy: DeadlockPolicy) -> Self {
        match policy {
            DeadlockPolicy::WaitDie => Self::WaitDie,
            DeadlockPolicy::Detect => Self::Detect,
        }
    }
}

/// A participant as a flag names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedAddress {
    pub(crate) name: String,
    pub(crate) address: Address,
}

impl FromStr for NamedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').ok_or(
            "write it as name=http://host:port, for example inventory=http://127.0.0.1:7101",
        )?;
        check_name(name)?;
        Ok(Self { name: name.into(), address: address.parse()? })
    }
}

/// Where this coordinator answers gRPC, in its one spelling.
fn parse_advertised(text: &str) -> Result<String, String> {
    let address: Address = text.parse()?;
    if address.is_http() {
        return Err(format!("'{address}' has a path; write it as http://host:port"));
    }
    Ok(address.to_string())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    let good = duration >= Duration::from_millis(1) && duration <= Duration::from_secs(86_400);
    good.then_some(duration).ok_or_else(|| "from 1ms to 24h".into())
}

impl Args {
    /// For the library; `port` is what is listened on.
    pub(crate) fn config(self, environment: &Environment, port: u16) -> Config {
        let (retention, advertised) = (self.retained(environment), self.advertised(port));
        let participants = self.participants.into_iter().map(|it| (it.name, it.address));
        Config {
            core: dtc_core::Config {
                options: dtc_core::Options {
                    prepare_timeout: self.prepare_timeout,
                    prepare_attempts: self.prepare_attempts,
                    prepare_attempt_timeout: self.prepare_attempt_timeout,
                    commit_attempt_timeout: self.commit_attempt_timeout,
                    idle_timeout: self.idle_timeout,
                    lock_wait: self.lock_wait,
                    link_grace: self.link_grace,
                    ..DEFAULTS.core.options
                },
                max_in_flight: self.max_in_flight as usize,
                max_per_participant: self.max_per_participant as usize,
                max_in_flight_bytes: usize::try_from(self.max_in_flight_bytes)
                    .unwrap_or(usize::MAX),
                max_output: self.max_output as usize,
                max_branches: self.max_branches as usize,
                backoff_cap: self.backoff_cap,
                stalled_after: self.stalled_after,
                deadlocks: self.deadlocks.into(),
                max_locks: self.max_locks as usize,
                max_locks_per_owner: self.max_lock_keys as usize,
                ..DEFAULTS.core
            },
            max_payload: self.max_payload as usize,
            max_queue: self.max_queue as usize,
            retention,
            allowed: self.allowed,
            participants: participants.collect(),
            advertised,
        }
    }

    /// What clean-up is to leave. Whatever a transaction waits for is over twice when
    /// its duplicates are no longer known.
    fn retained(&self, environment: &Environment) -> Retention {
        let longest = [
            self.prepare_timeout,
            self.prepare_attempt_timeout,
            self.commit_attempt_timeout,
            self.idle_timeout,
            self.backoff_cap,
            self.lock_wait,
        ];
        let longest = longest.into_iter().max().unwrap_or_default();
        let floor = DEFAULTS.retention.floor.max(longest.saturating_mul(2));
        let floor = environment.retention_floor.unwrap_or(floor);
        Retention { age: self.retention, max_bytes: self.retention_bytes, floor }
    }

    /// Where participants can ask it, if anywhere.
    fn advertised(&self, port: u16) -> Option<String> {
        let ip = self.service.listen.ip();
        let own = (!ip.is_unspecified()).then(|| SocketAddr::new(ip, port));
        self.advertise.clone().or_else(|| own.map(|own| format!("http://{own}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use proptest::prelude::*;

    #[test]
    fn every_flag_has_an_environment_variable_and_a_help_text() {
        let command = Args::command();
        command.clone().debug_assert();
        for arg in command
            .get_arguments()
            .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        {
            let flag = arg.get_long().expect("a long flag");
            let variable = format!("DTC_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
            assert!(arg.get_help().is_some(), "{arg}");
        }
    }

    #[test]
    fn a_bad_participant_is_named_with_what_would_be_good() {
        for (text, part) in [
            ("inventory", "name=http://host:port"),
            ("In ventory=http://127.0.0.1:1", "'In ventory'"),
            ("inventory=127.0.0.1:7101", "'127.0.0.1:7101'"),
            ("inventory=http://127.0.0.1", "http://host:port"),
            ("inventory=http://169.254.169.254:80", "link-local"),
            ("inventory=http://127.0.0.1:1/path", "http://host:port"),
        ] {
            let error = text.parse::<NamedAddress>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let good: NamedAddress = "inventory=http://LOCALHOST:7101/".parse().unwrap();
        assert_eq!(good.address.to_string(), "http://localhost:7101");
    }

    /// What people and scripts write, and what nobody would.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "-?[0-9]{1,30}",
            "[0-9]{1,20}(ns|ms|s|m|h|d|years)?( [0-9]{1,3}s)?",
            "(http|https|ftp|HTTP)?:?/?/?[a-zA-Z0-9.\\[\\]:@?#/-]{0,30}(:[0-9]{1,6})?/?",
            "[a-z0-9-]{0,70}=http://[a-z0-9.]{0,10}:[0-9]{1,6}",
            "[a-z:,=]{0,20}",
            "x{3000}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_value_of_any_flag_is_taken_or_refused_by_the_flags_name(value in value()) {
            for arg in Args::command().get_arguments() {
                let Some(flag) = arg.get_long().filter(|_| arg.get_action().takes_values()) else {
                    continue;
                };
                let given = format!("--{flag}={value}");
                let mut flags = vec!["service", &given];
                if flag != "listen" {
                    flags.push("--listen=127.0.0.1:0");
                }
                if let Err(error) = Args::try_parse_from(flags) {
                    prop_assert_eq!(error.exit_code(), 2);
                    let said = error.to_string();
                    prop_assert!(said.contains(&format!("--{flag}")), "{}: {}", given, said);
                }
            }
        }
    }
}
