//! A copy of the sources, which may be changed: nobody's own files are.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::catalogue::Mutant;
use crate::project::Project;
use crate::step::Stop;

/// The copy, and where it is built. It stays from run to run, so that little is copied and built again.
pub(super) struct Tree {
    root: PathBuf,
    target: PathBuf,
    /// Locked: there is one run at a time.
    _lock: File,
}

impl Tree {
    /// Makes the copy the same as the project's sources, whatever the last run left in it.
    pub(super) fn copy_of(project: &Project) -> Result<Self, Stop> {
        let directory = project.target.join("mutants");
        let cannot = |error: io::Error| {
            Stop::Failed(format!(
                "cannot copy the sources to {}: {error}",
                directory.display()
            ))
        };
        fs::create_dir_all(&directory).map_err(cannot)?;
        let lock = File::create(directory.join("lock")).map_err(cannot)?;
        if lock.try_lock().is_err() {
            return Err(Stop::Failed(format!(
                "another run is using {}",
                directory.display()
            )));
        }
        let root = directory.join("tree");
        // What no test is built of.
        let is_left_out = |name: &OsString| {
            name == "target" || name == "fuzz" || name.to_string_lossy().starts_with('.')
        };
        let left_out = names(&project.root)
            .map_err(cannot)?
            .into_iter()
            .filter(is_left_out)
            .collect();
        copy(&project.root, &root, &left_out).map_err(cannot)?;
        Ok(Self {
            root,
            target: directory.join("build"),
            _lock: lock,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Makes a change of the crate in `directory`, for as long as the answer lives.
    pub(super) fn apply(&self, directory: &str, mutant: &Mutant) -> Result<Applied, Stop> {
        let path = self.root.join(directory).join(&mutant.file);
        let cannot = |error| Stop::Failed(format!("cannot change {}: {error}", path.display()));
        let original = fs::read_to_string(&path).map_err(cannot)?;
        let changed = mutant.apply(&original).map_err(Stop::Failed)?;
        fs::write(&path, changed).map_err(cannot)?;
        Ok(Applied { path, original })
    }
}

/// A change that was made, and is taken back at the end.
pub(super) struct Applied {
    path: PathBuf,
    original: String,
}

impl Drop for Applied {
    fn drop(&mut self) {
        // Should it fail, the text to replace is missed in the next mutation, or the next run copies it again.
        let _ = fs::write(&self.path, &self.original);
    }
}

fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

/// Files that are the same stay as they are, with their times: cargo does not build from them again.
fn copy(from: &Path, to: &Path, left_out: &BTreeSet<OsString>) -> io::Result<()> {
    if !to.is_dir() {
        fs::create_dir_all(to)?;
    }
    let wanted = names(from)?;
    for name in names(to)?.difference(&wanted) {
        let gone = to.join(name);
        if gone.is_dir() {
            fs::remove_dir_all(gone)?;
        } else {
            fs::remove_file(gone)?;
        }
    }
    for name in wanted.difference(left_out) {
        let (from, to) = (from.join(name), to.join(name));
        if from.is_dir() {
            copy(&from, &to, &BTreeSet::new())?;
        } else {
            let content = fs::read(from)?;
            if fs::read(&to).ok().as_ref() != Some(&content) {
                fs::write(to, content)?;
            }
        }
    }
    Ok(())
}
