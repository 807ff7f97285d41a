//! A file that one process has, and that is replaced as a whole.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs4::{FileExt, TryLockError};
use zeroize::Zeroizing;

use super::OpenError;
use crate::client::store::check_private;

pub(super) struct Disk {
    file: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Disk {
    /// Takes the lock of a file, which need not exist.
    pub(super) fn open(file: &Path) -> Result<Self, OpenError> {
        // A link stays one, and leads to the lock of what it links to.
        let file = match fs::canonicalize(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(file)?,
            file => file?,
        };
        let path = beside(&file, ".lock");
        let mut options = OpenOptions::new();
        let lock = private(options.create(true).truncate(false).write(true))
            .open(&path)
            .map_err(|error| format!("its lock {}: {error}", path.display()))?;
        match FileExt::try_lock(&lock) {
            Ok(()) => Ok(Self { file, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(format!(
                "it is open already, and {} is locked; a SqliteStore is for several processes",
                path.display()
            )
            .into()),
            Err(TryLockError::Error(error)) => {
                Err(format!("its lock {} cannot be taken: {error}", path.display()).into())
            }
        }
    }

    /// What the file says; `None` where there is none.
    pub(super) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, OpenError> {
        let mut file = match File::open(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err("it is no file".into());
        }
        check_private(&metadata)?;
        let length = usize::try_from(metadata.len())?;
        // One more, so that what is read moves to no other place in memory.
        let mut text = Zeroizing::new(Vec::with_capacity(length.saturating_add(1)));
        file.read_to_end(&mut text)?;
        Ok(Some(text))
    }

    /// Puts a new file in the place of the old one, when the disk has it.
    pub(super) fn write(&self, text: &[u8]) -> io::Result<()> {
        let new = beside(&self.file, ".tmp");
        let written = replace(&self.file, &new, text);
        if written.is_err() {
            // It holds credentials. Where it is gone already, it became the file.
            let _ = fs::remove_file(&new);
        }
        written
    }
}

fn replace(file: &Path, new: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(new) {
        // What a process left that ended while it wrote.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut written = private(options.create_new(true).write(true)).open(new)?;
    written.write_all(text)?;
    written.sync_all()?;
    drop(written);
    fs::rename(new, file)?;
    // The name is in the folder, which elsewhere cannot be opened to ask for it.
    #[cfg(unix)]
    File::open(file.parent().expect("an absolute path of a file has a folder"))?.sync_all()?;
    Ok(())
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// A file in the same folder, with this behind its name.
fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or(OsStr::new("")).to_owned();
    name.push(end);
    file.with_file_name(name)
}
