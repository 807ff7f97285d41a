//! Where config and tokens are, by the XDG base directories.

use std::env;
use std::path::{Path, PathBuf};

use l402::client::SqliteStore;

use crate::exit::{Failure, LOCAL, USAGE};

pub(crate) fn config() -> Result<PathBuf, Failure> {
    Ok(base("XDG_CONFIG_HOME", ".config")?.join("l402/config.json"))
}

/// Opens the tokens, in a folder for this user alone.
pub(crate) async fn store() -> Result<SqliteStore, Failure> {
    let dir = base("XDG_DATA_HOME", ".local/share")?.join("l402");
    create(&dir)
        .map_err(|error| Failure::new(LOCAL, format!("{} cannot be made: {error}", dir.display())))?;
    SqliteStore::open(dir.join("tokens.db")).await.map_err(|error| Failure::of(LOCAL, &error))
}

fn base(variable: &str, in_home: &str) -> Result<PathBuf, Failure> {
    // One that is relative does not count, says the specification.
    if let Some(dir) = env::var_os(variable).map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        return Ok(dir);
    }
    let home = env::var_os("HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    home.map(|home| home.join(in_home))
        .ok_or_else(|| Failure::new(USAGE, format!("set {variable} or HOME to a folder")))
}

fn create(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}
