//! The four services of `--local`.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use dtc_proto::dtc::{
    Participant, RegisterRequest, registry_service_client::RegistryServiceClient,
};
use tempfile::TempDir;

use super::{addresses::Addresses, kind::Kind, report::StartUp, service::Service, shop::connect};

/// Processes that were started, and where their files are.
#[derive(Debug)]
pub(crate) struct Local {
    coordinator: Service,
    participants: Vec<(Kind, Service)>,
    // Dropped after the processes that use it.
    folder: Folder,
}

#[derive(Debug)]
enum Folder {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

impl Local {
    /// Starts all four and makes the participants known to the coordinator.
    ///
    /// # Errors
    ///
    /// When one is not there or does not come to serve.
    pub(crate) async fn start(data: Option<&Path>) -> anyhow::Result<Self> {
        let own = env::current_exe().context("where this program is cannot be found out")?;
        let programs = own.parent().context("this program is in no folder")?;
        let names = Kind::ALL.map(program_name);
        for name in names.iter().map(String::as_str).chain(["coordinator"]) {
            if !programs.join(name).is_file() {
                let programs = programs.display();
                bail!(
                    "--local needs {name} in {programs}: build all with one profile, such as `cargo build --profile dist`"
                );
            }
        }
        let folder = match data {
            Some(path) => Folder::Given(path.into()),
            None => Folder::Temporary(tempfile::Builder::new().prefix("dtc-bench-").tempdir()?),
        };
        let start = async |program: &str, name: &str, args| {
            Service::start(&programs.join(program), &folder.path().join(name), args).await
        };
        let coordinator = start("coordinator", "coordinator", vec![]).await?;
        let mut registry =
            RegistryServiceClient::new(connect(&coordinator.url(), "coordinator").await?);
        let mut participants = Vec::new();
        for kind in Kind::ALL {
            let args = vec!["--coordinator".into(), coordinator.url()];
            let service = start(&program_name(kind), kind.name(), args).await?;
            let (name, address) = (kind.name().into(), service.url());
            let participant = Some(Participant { name, address, ..Participant::default() });
            registry.register(RegisterRequest { participant, lease: None }).await?;
            participants.push((kind, service));
        }
        Ok(Self { coordinator, participants, folder })
    }

    /// Where they serve.
    pub(crate) fn addresses(&self) -> Addresses {
        let [inventory, payment, order] = Kind::ALL.map(|kind| self.participant(kind).url());
        Addresses { coordinator: self.coordinator.url(), inventory, payment, order }
    }

    /// How long each took to start.
    pub(crate) fn start_ups(&self) -> Vec<StartUp> {
        let participants = self.participants.iter().map(|(kind, service)| (kind.name(), service));
        [("coordinator", &self.coordinator)]
            .into_iter()
            .chain(participants)
            .map(|(process, service)| StartUp {
                process: process.into(),
                milliseconds: service.start_up.as_secs_f64() * 1e3,
            })
            .collect()
    }

    fn participant(&self, kind: Kind) -> &Service {
        &self.participants[kind as usize].1
    }

    /// The participant whose faults are tried.
    pub(crate) fn order(&mut self) -> &mut Service {
        &mut self.participants[Kind::Order as usize].1
    }

    /// Stops all four.
    ///
    /// # Errors
    ///
    /// When one does not end as it should.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let participants = self.participants.iter_mut().map(|(_, service)| service);
        let mut stopped = Ok(());
        for service in [&mut self.coordinator].into_iter().chain(participants) {
            stopped = stopped.and(service.stop().await);
        }
        stopped
    }

    /// Keeps a temporary folder too; returns it.
    pub(crate) fn keep_folder(&mut self) -> &Path {
        if let Folder::Temporary(folder) = &mut self.folder {
            folder.disable_cleanup(true);
        }
        self.folder.path()
    }
}

fn program_name(kind: Kind) -> String {
    format!("participant-{}", kind.name())
}
