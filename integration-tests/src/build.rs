//! Building the programs that the demo and the torture run.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{Binaries, Role};

/// Builds the services as a user would, so that what runs has no crash points.
pub(crate) fn real() -> anyhow::Result<Binaries> {
    cargo(Role::ALL.into_iter().flat_map(|role| ["--package", role.package()]))?;
    Binaries::real(&release_folder()?)
}

/// Builds this package's thin binaries, for release too: with the test VFS.
pub(crate) fn with_vfs() -> anyhow::Result<Binaries> {
    let names = Binaries::TEST_NAMES.into_iter().flat_map(|name| ["--bin", name]);
    cargo(["--package", env!("CARGO_PKG_NAME")].into_iter().chain(names))?;
    Binaries::test_in(&release_folder()?)
}

fn cargo<'a>(what: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["build", "--quiet", "--release"]).args(what);
    let status = command.status().context("cargo cannot be started")?;
    ensure!(status.success(), "the services cannot be built: cargo ended with {status}");
    Ok(())
}

/// Where cargo puts release builds: beside the folder of this program.
fn release_folder() -> anyhow::Result<PathBuf> {
    let program = env::current_exe()?;
    let target = program.ancestors().nth(2).context("this program is in no target folder")?;
    Ok(target.join("release"))
}
