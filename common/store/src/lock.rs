//! One process a file: a lock beside it, which names who has it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{
    OpenError,
    place::{FILE_MODE, beside},
};

/// Held as long as it lives; the operating system frees it when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    pub(crate) fn acquire(journal: &Path) -> Result<Self, OpenError> {
        let path = beside(journal, ".lock");
        let io = |action| {
            let path = path.clone();
            move |cause| OpenError::Io { action, path, cause }
        };
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(&path).map_err(io("cannot open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok_and(|length| length > 0);
                let holder = match known {
                    true => format!("process {}", holder.trim()),
                    false => "which one is unknown".into(),
                };
                return Err(OpenError::Held { path: journal.into(), holder });
            }
            Err(TryLockError::Error(cause)) => return Err(io("cannot lock")(cause)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io("cannot write the lock file"))?;
        Ok(Self { file })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}
