//! What a guest starts with: busybox, modules, our programs, and an init that hands over to `shmbus-in-guest`.

use std::fs;
use std::path::Path;

use crate::cpio::Archive;
use crate::error::Error;
use crate::modules::Module;

/// What goes in.
pub(crate) struct Contents<'a> {
    pub(crate) busybox: &'a Path,
    /// Programs by their names in `/bin`.
    pub(crate) programs: &'a [(String, std::path::PathBuf)],
    /// In the order in which they are loaded.
    pub(crate) modules: &'a [Module],
    /// After which of them the next step is taken.
    pub(crate) vfio: &'a [String],
    /// Modules that are loaded when VFIO has taken what it should.
    pub(crate) later_modules: &'a [Module],
    /// Absolute paths.
    pub(crate) files: &'a [(String, Vec<u8>)],
}

impl Contents<'_> {
    /// The archive.
    pub(crate) fn pack(&self) -> Result<Vec<u8>, Error> {
        let mut archive = Archive::default();
        for directory in [
            "bin",
            "dev",
            "lib",
            "lib/modules",
            "proc",
            "run",
            "sys",
            "tmp",
        ] {
            archive.directory(directory);
        }
        let read = |path: &Path| fs::read(path).map_err(Error::file("read", path));
        archive.program("bin/busybox", &read(self.busybox)?);
        archive.link("bin/sh", "busybox");
        for (name, path) in self.programs {
            archive.program(&format!("bin/{name}"), &read(path)?);
        }
        for (name, bytes) in self.modules.iter().chain(self.later_modules) {
            archive.file(&format!("lib/modules/{name}.ko"), bytes);
        }
        let mut made = vec!["bin".to_owned(), "tmp".to_owned()];
        for (path, bytes) in self.files {
            let path = path.trim_start_matches('/');
            for (end, _) in path.match_indices('/') {
                let directory = &path[..end];
                if !made.iter().any(|done| done == directory) {
                    archive.directory(directory);
                    made.push(directory.to_owned());
                }
            }
            archive.program(path, bytes);
        }
        archive.program("init", self.init().as_bytes());
        Ok(archive.finish())
    }

    fn init(&self) -> String {
        let load = |modules: &[Module]| -> String {
            let line = |(name, _): &Module| format!("must insmod /lib/modules/{name}.ko\n");
            modules.iter().map(line).collect()
        };
        let take: String = self.vfio.iter().map(|id| format!("take {id}\n")).collect();
        format!(
            "#!/bin/sh\n\
             export PATH=/bin HOME=/ TERM=dumb\n\
             must() {{\n\
             \x20   \"$@\" || {{ echo \"init: failed: $*\"; poweroff -f; }}\n\
             }}\n\
             take() {{\n\
             \x20   for f in /sys/bus/pci/devices/*; do\n\
             \x20       [ \"$(cat $f/vendor) $(cat $f/device)\" = \"0x$1 0x$2\" ] || continue\n\
             \x20       echo vfio-pci > $f/driver_override\n\
             \x20       [ ! -e $f/driver ] || echo ${{f##*/}} > $f/driver/unbind\n\
             \x20       must eval \"echo ${{f##*/}} > /sys/bus/pci/drivers_probe\"\n\
             \x20   done\n\
             }}\n\
             /bin/busybox --install -s /bin\n\
             must mount -t proc proc /proc\n\
             must mount -t sysfs sysfs /sys\n\
             must mount -t devtmpfs devtmpfs /dev\n\
             must mount -t tmpfs tmpfs /tmp\n\
             {}{take}{}\
             ip link set lo up\n\
             must stty -F /dev/ttyS1 raw -echo\n\
             echo \"init: up after $(cut -d' ' -f1 /proc/uptime) s\"\n\
             exec shmbus-in-guest agent /dev/ttyS1\n",
            load(self.modules),
            load(self.later_modules),
        )
    }
}
