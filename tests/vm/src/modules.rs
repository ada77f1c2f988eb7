//! A kernel's modules in an order in which they load. The packages come without `modules.dep`: what a module needs is
//! read from the module.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::parts::Kernel;

/// The modules of one kernel, by name.
pub(crate) struct Modules {
    kernel: Kernel,
    directory: PathBuf,
    files: BTreeMap<String, PathBuf>,
}

/// A module to load: its name and its contents.
pub(crate) type Module = (String, Vec<u8>);

impl Modules {
    /// Those in a directory.
    pub(crate) fn find(kernel: Kernel, directory: &Path) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(Error::file("list", directory))? {
            let path = entry.map_err(Error::file("list", directory))?.path();
            if let Some(name) = path.file_stem() {
                files.insert(canonical(&name.to_string_lossy()), path);
            }
        }
        Ok(Self {
            kernel,
            directory: directory.to_owned(),
            files,
        })
    }

    /// The named ones and all that they need, each after what it needs.
    pub(crate) fn in_order<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Module>, Error> {
        let mut order = Vec::new();
        for name in names {
            self.add(&canonical(name), &mut order)?;
        }
        Ok(order)
    }

    /// Whether there is such a module; some kernels have built in what others have as a module.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.contains_key(&canonical(name))
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) -> Result<(), Error> {
        if order.iter().any(|(done, _)| done == name) {
            return Ok(());
        }
        let path = self.files.get(name).ok_or_else(|| Error::NoModule {
            name: name.to_owned(),
            kernel: self.kernel.name(),
            modules: self.directory.clone(),
        })?;
        let bytes = fs::read(path).map_err(Error::file("read", path))?;
        for needed in needed(&bytes) {
            self.add(&needed, order)?;
        }
        order.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// File names have hyphens where the kernel has underscores.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// What `.modinfo` lists: zero-terminated strings `depends=a,b`.
fn needed(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let rest = &module[start + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let directory = tempfile::tempdir().unwrap();
        for (name, needs) in [
            ("vfio-pci", "vfio-pci-core,vfio"),
            ("vfio-pci-core", "vfio"),
            ("vfio", ""),
            ("other", ""),
        ] {
            let path = directory.path().join(format!("{name}.ko"));
            fs::write(path, format!("ELF\0license=GPL\0depends={needs}\0name=x\0")).unwrap();
        }
        let modules = Modules::find(Kernel::V6_1, directory.path()).unwrap();
        let order = modules.in_order(["vfio_pci", "vfio"]).unwrap();
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["vfio", "vfio_pci_core", "vfio_pci"]);
        let missing = modules.in_order(["uio"]).unwrap_err();
        assert!(matches!(missing, Error::NoModule { name, .. } if name == "uio"));
    }
}
