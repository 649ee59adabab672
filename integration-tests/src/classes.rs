//! What a run of the simulation or the torture may have beside the usual faults: what
//! lies at the edges of the promise.

use std::{fmt, str::FromStr};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// One kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Finished work is forgotten after seconds.
    Retention,
    /// The bound of bytes is always reached, and the floor of age is seconds: what ended
    /// goes then, and nothing sooner.
    Bytes,
    /// Wall clocks jump by days, for a second or for good.
    Days,
    /// Participants over HTTP and unary gRPC, with answers of every code.
    Neighbours,
    /// The same, and they speak of runs that never were.
    Forgeries,
    /// Their outputs and payloads have any size.
    Sizes,
    /// Participants have several names and addresses, which move.
    Names,
    /// Each start of the coordinator has other flags.
    Flags,
    /// Somebody often resolves, retries and forgets, while participants are away.
    Operators,
    /// The coordinator's disk is lost, and a backup taken before that is restored.
    Restores,
    /// A database is moved away under its process, and back when that has ended.
    Displaced,
}

impl Class {
    pub(crate) const ALL: [Self; 11] = [
        Self::Retention,
        Self::Bytes,
        Self::Days,
        Self::Neighbours,
        Self::Forgeries,
        Self::Sizes,
        Self::Names,
        Self::Flags,
        Self::Operators,
        Self::Restores,
        Self::Displaced,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Bytes => "bytes",
            Self::Days => "days",
            Self::Neighbours => "neighbours",
            Self::Forgeries => "forgeries",
            Self::Sizes => "sizes",
            Self::Names => "names",
            Self::Flags => "flags",
            Self::Operators => "operators",
            Self::Restores => "restores",
            Self::Displaced => "displaced",
        }
    }
}

/// Classes as a flag names them: some, `all` or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Classes(pub(crate) Vec<Class>);

impl Default for Classes {
    fn default() -> Self {
        Self(Class::ALL.into())
    }
}

impl Classes {
    pub(crate) fn has(&self, class: Class) -> bool {
        self.0.contains(&class)
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("all");
        }
        let names: Vec<_> = self.0.iter().map(|class| class.name()).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

impl FromStr for Classes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |name: &str| {
            let found = Class::ALL.into_iter().find(|class| class.name() == name);
            found.ok_or_else(|| {
                let names: Vec<_> = Class::ALL.iter().map(|class| class.name()).collect();
                format!("'{name}' is no class; there are all, none, {}", names.join(", "))
            })
        };
        match text {
            "none" => Ok(Self(Vec::new())),
            "all" => Ok(Self::default()),
            text => text.split(',').map(named).collect::<Result<_, _>>().map(Self),
        }
    }
}

/// Flags of one start of the coordinator, and not of others.
pub(crate) fn flags_of_start(seed: u64, start: u32) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed ^ u64::from(start) << 40);
    let mut flags = Vec::new();
    let mut sometimes = |share: f64, flag: &str, value: &mut dyn FnMut(&mut StdRng) -> String| {
        if random.random_bool(share) {
            flags.extend([flag.to_owned(), value(&mut random)]);
        }
    };
    sometimes(0.4, "--max-payload", &mut |it| it.random_range(10..120_u32).to_string());
    sometimes(0.2, "--max-branches", &mut |it| it.random_range(1..4_u32).to_string());
    sometimes(0.3, "--max-lock-keys", &mut |_| "1".into());
    sometimes(0.5, "--commit-attempt-timeout", &mut |it| {
        format!("{}ms", it.random_range(100..3_000))
    });
    sometimes(0.5, "--backoff-cap", &mut |it| format!("{}ms", it.random_range(100..5_000)));
    sometimes(0.3, "--idle-timeout", &mut |it| format!("{}ms", it.random_range(500..9_000)));
    flags
}
