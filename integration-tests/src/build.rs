//! Building the programs that the demo and the torture run.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{Binaries, Role};

/// Builds the services as a user does, with `cargo build --release`: what runs has no
/// crash points.
pub(crate) fn real() -> anyhow::Result<Binaries> {
    cargo(["--release"])?;
    Binaries::real(&release_folder()?)
}

/// Builds the services for the demo, with the profile and the features that this program
/// was built with: all that they have in common is there already.
pub(crate) fn beside() -> anyhow::Result<Binaries> {
    let folder = own_folder()?;
    let profile = folder.file_name().and_then(|name| name.to_str()).context("no profile")?;
    let profile = if profile == "debug" { "dev" } else { profile };
    let packages = Role::ALL.into_iter().flat_map(|role| ["--package", role.package()]);
    let programs = Role::ALL.into_iter().flat_map(|role| ["--bin", role.package()]);
    let what = ["--profile", profile, "--package", env!("CARGO_PKG_NAME")].into_iter();
    cargo(what.chain(packages).chain(programs))?;
    Binaries::real(&folder)
}

/// Builds this package's thin binaries, for release too: with the test VFS.
pub(crate) fn with_vfs() -> anyhow::Result<Binaries> {
    let names = Binaries::TEST_NAMES.into_iter().flat_map(|name| ["--bin", name]);
    let package = ["--release", "--package", env!("CARGO_PKG_NAME")];
    cargo(package.into_iter().chain(names))?;
    Binaries::test_in(&release_folder()?)
}

fn cargo<'a>(what: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let mut command = Command::new(cargo);
    command.current_dir(workspace).arg("build").args(what);
    let status = command.status().context("cargo cannot be started")?;
    ensure!(status.success(), "the services cannot be built: cargo ended with {status}");
    Ok(())
}

/// Where cargo puts release builds: beside the folder of this program.
fn release_folder() -> anyhow::Result<PathBuf> {
    let own = own_folder()?;
    Ok(own.parent().context("this program is in no target folder")?.join("release"))
}

/// Where cargo has put this program.
fn own_folder() -> anyhow::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.parent().context("this program is in no folder")?.into())
}
