//! The flags of `dtc bench`.

use std::{path::PathBuf, time::Duration};

use anyhow::{bail, ensure};
use clap::{ArgAction, value_parser};
use http::Uri;

use super::{
    choice::{Control, Fault, Mode, When},
    kind::Kind,
};

/// Transactions that one stream may have in flight; the coordinator reads no
/// further.
const PER_STREAM: u32 = 16_384;
/// What the services allow a transaction by default.
const MOST_BRANCHES: i64 = 128;

/// Loads the services with orders, measures them, and checks the books
/// afterwards
///
/// A closed loop: whenever one transaction is answered, the next begins. Only
/// 'committed: true' counts as committed, which is durable by then. Exit code 1 if
/// a committed order was lost or done in part.
#[derive(Debug, clap::Parser)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) services: Services,

    #[command(flatten)]
    pub(crate) load: Load,

    /// Kill or stop the order participant halfway. Orders of stock and money only are
    /// measured, which should not be affected; beside them 32 full orders are always
    /// in flight. It is restarted or continued at the end, and the books are checked
    #[arg(long, value_enum, requires = "local", conflicts_with_all = ["transactions", "branches", "participants"])]
    pub(crate) fault: Option<Fault>,

    /// Repetitions of each run; the table shows the one with the median throughput, the
    /// JSON has all
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u32).range(1..=1000))]
    pub(crate) runs: u32,

    /// Write the results as JSON to this file; '-' is standard output, without the
    /// table
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// No progress on standard error
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// The services under load.
#[derive(Debug, clap::Args)]
pub(crate) struct Services {
    /// The coordinator
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7100", value_parser = url)]
    pub(crate) coordinator: String,

    /// participant-inventory, known to the coordinator as 'inventory'
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7101", value_parser = url)]
    pub(crate) inventory: String,

    /// participant-payment, known to the coordinator as 'payment'
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7102", value_parser = url)]
    pub(crate) payment: String,

    /// participant-order, known to the coordinator as 'order'
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7103", value_parser = url)]
    pub(crate) order: String,

    /// Start the four services for this run, from the folder of this program,
    /// and stop them afterwards
    #[arg(long, conflicts_with_all = ["coordinator", "inventory", "payment", "order"])]
    pub(crate) local: bool,

    /// Folder for data and logs of the services of --local; kept, and reused by a later
    /// run. Default: a temporary folder
    #[arg(long, value_name = "FOLDER", requires = "local")]
    pub(crate) data: Option<PathBuf>,
}

/// The load.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Load {
    /// Transactions in flight; several values, separated by commas, are measured one
    /// after the other
    #[arg(long, value_name = "COUNT[,COUNT...]", default_value = "1024", value_delimiter = ',', value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) in_flight: Vec<u32>,

    /// Duration of the measurement
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) seconds: Duration,

    /// Measure this many transactions instead of a duration
    #[arg(long, value_name = "COUNT", conflicts_with = "seconds", value_parser = value_parser!(u64).range(1..))]
    pub(crate) transactions: Option<u64>,

    /// Duration of the load before the measurement; not counted
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds_or_none, allow_negative_numbers = true)]
    pub(crate) warm_up: Duration,

    /// Share of the orders, 0 to 1, for one and the same SKU and account; the others are
    /// spread evenly
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, allow_negative_numbers = true)]
    pub(crate) skew: f64,

    /// Number of SKUs
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) items: u32,

    /// Number of accounts
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) accounts: u32,

    /// Share of the orders, 0 to 1, that exceed the stock or the balance: one participant
    /// votes to abort, and all roll back
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, allow_negative_numbers = true)]
    pub(crate) aborts: f64,

    /// Concurrency control between orders for the same SKU or account: reservations alone
    /// (escrow), additional exclusive locks at the coordinator, or versions that are read
    /// before (--mode unary), where an order aborts if one changed
    #[arg(long, value_enum, default_value_t = Control::Escrow)]
    pub(crate) control: Control,

    /// Method: ExecuteStream, or one Execute for each transaction
    #[arg(long, value_enum, default_value_t = Mode::Stream)]
    pub(crate) mode: Mode,

    /// Streams that share the load, each on a connection of its own (--mode stream)
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
    pub(crate) streams: u32,

    /// Connections that share the load (--mode unary)
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
    pub(crate) connections: u32,

    /// Threads of the load generator
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,

    /// Send a request key with every transaction (the default)
    #[arg(long, overrides_with = "no_keys")]
    keys: bool,

    /// Send no request keys
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "keys")]
    no_keys: bool,

    /// Moment of the answer: all branches have committed, or the decision is durable
    #[arg(long, value_enum, default_value_t = When::Completion)]
    pub(crate) answer_at: When,

    /// Branches of a transaction: the participants in turn, each time with another SKU,
    /// account and order. Default: one for each participant
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u32).range(1..=MOST_BRANCHES))]
    branches: Option<u32>,

    /// Participants of each transaction
    #[arg(
        long,
        value_name = "NAME[,NAME...]",
        value_delimiter = ',',
        default_value = "inventory,payment,order"
    )]
    pub(crate) participants: Vec<Kind>,
}

impl Load {
    /// Whether transactions have request keys.
    pub(crate) fn has_keys(&self) -> bool {
        !self.no_keys
    }

    /// What each branch of a transaction is.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let count = self.branches.map_or(self.participants.len(), |count| count as usize);
        self.participants.iter().copied().cycle().take(count).collect()
    }

    /// Streams or connections.
    pub(crate) fn lanes(&self) -> u32 {
        match self.mode {
            Mode::Stream => self.streams,
            Mode::Unary => self.connections,
        }
    }

    /// What one flag alone cannot show to be wrong.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (index, kind) in self.participants.iter().enumerate() {
            let first = self.participants.iter().position(|other| other == kind);
            ensure!(first == Some(index), "--participants names {} twice", kind.name());
        }
        let kinds = self.kinds();
        let groups = kinds.len().div_ceil(self.participants.len());
        for (flag, count) in [("items", self.items), ("accounts", self.accounts)] {
            ensure!(
                groups <= count as usize,
                "--{flag} {count} is too few for {} branches, which need {groups} different ones",
                kinds.len()
            );
        }
        if self.aborts > 0.0 && !kinds.iter().any(|kind| *kind != Kind::Order) {
            bail!("--aborts {} needs inventory or payment among the branches", self.aborts);
        }
        ensure!(
            self.control != Control::Versions || self.mode == Mode::Unary,
            "--control versions reads before each order, which --mode unary does"
        );
        let most = PER_STREAM * self.streams;
        if let (Mode::Stream, Some(count)) =
            (self.mode, self.in_flight.iter().find(|count| **count > most))
        {
            bail!(
                "--in-flight {count} is more than --streams {} takes, {PER_STREAM} each; use --streams {}",
                self.streams,
                count.div_ceil(PER_STREAM)
            );
        }
        Ok(())
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "not a share; write a number from 0 to 1, such as 0.2".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = seconds_or_none(text).ok().filter(|seconds| !seconds.is_zero());
    seconds.ok_or_else(|| "write seconds from 0.001 to 86400, such as 10".into())
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    let seconds = seconds.map(|seconds| Duration::from_millis((seconds * 1e3) as u64));
    seconds.ok_or_else(|| "write seconds from 0 to 86400, such as 2".into())
}

/// An address as gRPC clients take it, without a slash at the end.
fn url(text: &str) -> Result<String, String> {
    let good = |uri: &Uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.port_u16().is_some()
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
    };
    match text.parse::<Uri>() {
        Ok(uri) if good(&uri) => Ok(text.trim_end_matches('/').into()),
        _ => Err("no address; write it as http://host:port, such as http://127.0.0.1:7100".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn parse(flags: &[&str]) -> Result<Args, String> {
        let flags = ["bench"].iter().chain(flags);
        let args = Args::try_parse_from(flags).map_err(|error| error.to_string())?;
        args.load.check().map_err(|error| error.to_string())?;
        Ok(args)
    }

    #[test]
    fn every_flag_has_a_help_text() {
        let command = Args::command();
        command.clone().debug_assert();
        assert!(command.get_arguments().all(|arg| arg.get_help().is_some()));
    }

    #[test]
    fn a_bad_flag_is_named_with_its_value_and_what_would_be_right() {
        for (flags, value, right) in [
            (&["--skew", "1.5"][..], "1.5", "0 to 1"),
            (&["--aborts", "NaN"], "NaN", "0 to 1"),
            (&["--seconds", "0"], "'0'", "0.001 to 86400"),
            (&["--warm-up", "-1"], "-1", "0 to 86400"),
            (&["--in-flight", "8,0"], "'0'", "1..="),
            (&["--participants", "inventory,shipping"], "shipping", "payment"),
            (&["--participants", "order,order"], "order", "twice"),
            (&["--coordinator", "localhost:7100"], "localhost:7100", "http://host:port"),
            (&["--coordinator", "http://h:1/x"], "http://h:1/x", "http://host:port"),
            (&["--mode", "carrier-pigeon"], "carrier-pigeon", "stream, unary"),
            (&["--data", "x"], "--data", "--local"),
            (&["--local", "--order", "http://h:1"], "--local", "--order"),
            (&["--branches", "7", "--items", "2"], "--items 2", "3 different"),
            (&["--participants", "order", "--aborts", "1"], "--aborts 1", "inventory or payment"),
            (&["--fault", "kill"], "--fault", "--local"),
            (&["--local", "--fault", "kill", "--branches", "3"], "--fault", "--branches"),
            (&["--in-flight", "20000"], "20000", "--streams 2"),
            (&["--control", "versions"], "--control versions", "--mode unary"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(value) && error.contains(right), "{flags:?}: {error}");
        }
    }

    #[test]
    fn branches_take_the_participants_in_turn() {
        use Kind::{Inventory, Order, Payment};
        let kinds = |flags: &[&str]| parse(flags).unwrap().load.kinds();
        assert_eq!(kinds(&[]), [Inventory, Payment, Order]);
        assert_eq!(kinds(&["--branches", "1"]), [Inventory]);
        assert_eq!(kinds(&["--branches", "4"]), [Inventory, Payment, Order, Inventory]);
        assert_eq!(kinds(&["--participants", "payment,order"]), [Payment, Order]);
    }

    #[test]
    fn the_last_of_keys_and_no_keys_counts() {
        let has_keys = |flags: &[&str]| parse(flags).unwrap().load.has_keys();
        assert!(has_keys(&[]) && has_keys(&["--keys"]) && has_keys(&["--no-keys", "--keys"]));
        assert!(!has_keys(&["--no-keys"]) && !has_keys(&["--keys", "--no-keys"]));
    }
}
