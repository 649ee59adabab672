//! A coordinator and the shop's three participants.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::{Addresses, Process, Shop, Start, process::with_test_vfs};

/// One of the four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `coordinator`.
    Coordinator,
    /// `participant-inventory`.
    Inventory,
    /// `participant-payment`.
    Payment,
    /// `participant-order`.
    Order,
}

impl Role {
    /// All four, the coordinator first.
    pub const ALL: [Self; 4] = [Self::Coordinator, Self::Inventory, Self::Payment, Self::Order];

    /// Its name, as in the coordinator's registry and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Inventory => "inventory",
            Self::Payment => "payment",
            Self::Order => "order",
        }
    }

    /// The package, and so the program, that plays it.
    pub fn package(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Inventory => "participant-inventory",
            Self::Payment => "participant-payment",
            Self::Order => "participant-order",
        }
    }
}

/// The programs of a cluster.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
    names: [&'static str; 4],
    vfs: bool,
}

impl Binaries {
    /// Of this package's thin binaries, by role.
    pub(crate) const TEST_NAMES: [&'static str; 4] =
        ["test-coordinator", "test-inventory", "test-payment", "test-order"];

    /// This package's thin binaries, built with the test that runs: with crash
    /// points and the test VFS.
    ///
    /// # Errors
    ///
    /// When they are not where cargo puts them.
    pub fn test() -> anyhow::Result<Self> {
        let test = env::current_exe()?;
        let folder = test
            .ancestors()
            .skip(1)
            .find(|folder| !folder.ends_with("deps"))
            .context("the test has a folder")?;
        Self::test_in(folder)
    }

    /// As [`test`](Self::test), from this folder.
    pub(crate) fn test_in(folder: &Path) -> anyhow::Result<Self> {
        Self { folder: folder.into(), names: Self::TEST_NAMES, vfs: true }.existing()
    }

    /// The real ones, from cargo's output folder.
    ///
    /// # Errors
    ///
    /// When they were not built.
    pub fn real(folder: &Path) -> anyhow::Result<Self> {
        let names = Role::ALL.map(Role::package);
        Self { folder: folder.into(), names, vfs: false }.existing()
    }

    /// The program of a role.
    pub fn path(&self, role: Role) -> PathBuf {
        self.folder.join(self.names[role as usize]).with_extension(env::consts::EXE_EXTENSION)
    }

    fn existing(self) -> anyhow::Result<Self> {
        for role in Role::ALL {
            let path = self.path(role);
            ensure!(path.exists(), "{} was not built", path.display());
        }
        Ok(self)
    }
}

/// Four processes, each with its own database in one temporary folder.
#[derive(Debug)]
pub struct Cluster {
    /// The coordinator.
    pub coordinator: Process,
    /// The stock.
    pub inventory: Process,
    /// The accounts.
    pub payment: Process,
    /// The orders.
    pub order: Process,
    binaries: Binaries,
    addresses: Addresses,
    folder: TempDir,
}

impl Cluster {
    /// Starts this package's thin binaries.
    ///
    /// # Errors
    ///
    /// When one of them doesn't come to serve.
    pub async fn start() -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(Binaries::test()?, Addresses::pick())?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// A cluster that is not running yet.
    ///
    /// # Errors
    ///
    /// When there is no temporary folder to be had.
    pub fn prepare(binaries: Binaries, addresses: Addresses) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dtc-").tempdir()?;
        let process = |role: Role, address, start: Start| {
            let start = if binaries.vfs { with_test_vfs(start) } else { start };
            Process::new(role.name(), &binaries.path(role), folder.path(), address).always(start)
        };
        let coordinator = format!("http://{}", addresses.coordinator);
        let participant = |role, address| {
            process(role, address, Start::new().arg("--coordinator").arg(&coordinator))
        };
        let inventory = participant(Role::Inventory, addresses.inventory);
        let payment = participant(Role::Payment, addresses.payment);
        let order = participant(Role::Order, addresses.order);
        let known =
            [(Role::Inventory, &inventory), (Role::Payment, &payment), (Role::Order, &order)]
                .into_iter()
                .fold(Start::new(), |start, (role, process)| {
                    start.arg("--participant").arg(format!(
                        "{}=http://{}",
                        role.name(),
                        process.address()
                    ))
                });
        let coordinator = process(Role::Coordinator, addresses.coordinator, known);
        Ok(Self { coordinator, inventory, payment, order, binaries, addresses, folder })
    }

    /// Starts all that do not run.
    ///
    /// # Errors
    ///
    /// When one of them doesn't come to serve.
    pub async fn start_all(&mut self) -> anyhow::Result<()> {
        for role in Role::ALL {
            let process = self.process(role);
            if process.id().is_none() {
                process.start().await?;
            }
        }
        Ok(())
    }

    /// The process of a role.
    pub fn process(&mut self, role: Role) -> &mut Process {
        match role {
            Role::Coordinator => &mut self.coordinator,
            Role::Inventory => &mut self.inventory,
            Role::Payment => &mut self.payment,
            Role::Order => &mut self.order,
        }
    }

    /// The databases of all four.
    pub fn databases(&self) -> [PathBuf; 4] {
        [&self.coordinator, &self.inventory, &self.payment, &self.order].map(Process::database)
    }

    /// A customer and bookkeeper of this cluster.
    pub fn shop(&self) -> Shop {
        Shop::new(self.addresses)
    }

    /// Where the four serve.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The programs that it runs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Where all files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills all four and starts them again.
    ///
    /// # Errors
    ///
    /// When one of them doesn't come to serve.
    pub async fn restart_all(&mut self) -> anyhow::Result<()> {
        for role in Role::ALL {
            self.process(role).kill();
        }
        self.start_all().await
    }

    /// Kills all four, loses what they had not synced, and starts them again.
    ///
    /// # Errors
    ///
    /// When files cannot be replaced, or a process doesn't come to serve.
    pub async fn lose_power_everywhere(&mut self) -> anyhow::Result<()> {
        for role in Role::ALL {
            self.process(role).kill();
        }
        for role in Role::ALL {
            self.process(role).lose_power()?;
        }
        self.start_all().await
    }

    /// Lets the processes run on and keeps the folder; returns it.
    pub fn keep(mut self) -> PathBuf {
        for role in Role::ALL {
            self.process(role).detach();
        }
        self.keep_folder()
    }

    /// Keeps the folder when this value is dropped; returns it.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().into()
    }
}
