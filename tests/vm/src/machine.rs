//! A machine as a test describes it, and QEMU's command line for it.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::guest::Guest;
use crate::initramfs::Contents;
use crate::modules::Modules;
use crate::parts::{Kernel, Parts, Qemu};
use crate::programs;

/// Takes what tells PCI devices apart before another driver does.
const VFIO: [&str; 2] = ["vfio_iommu_type1", "vfio_pci"];

/// A kernel that starts quickly without hardware support, and ends QEMU when it panics.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable \
                                random.trust_cpu=on";

/// A machine to be started. Devices appear on the PCI bus in the order in which they are added, from `0000:00:01.0` on,
/// behind the IOMMU.
#[derive(Clone, Debug)]
pub struct Machine {
    parts: Parts,
    qemu: Qemu,
    kernel: Kernel,
    memory_mib: u32,
    shares_memory: bool,
    processors: u32,
    iommu: Option<String>,
    arguments: Vec<OsString>,
    kernel_arguments: Vec<String>,
    modules: Vec<String>,
    vfio: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Machine {
    /// One processor, 512 MiB, an emulated IOMMU, and no devices.
    #[must_use]
    pub fn new(parts: &Parts, qemu: Qemu, kernel: Kernel) -> Self {
        Self {
            parts: parts.clone(),
            qemu,
            kernel,
            memory_mib: 512,
            shares_memory: false,
            processors: 1,
            iommu: Some("intel-iommu,intremap=on,caching-mode=on".to_owned()),
            arguments: Vec::new(),
            kernel_arguments: Vec::new(),
            modules: Vec::new(),
            vfio: Vec::new(),
            files: Vec::new(),
        }
    }

    /// So much memory.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// The memory is a memfd that a device process can map (vhost-user, vfio-user).
    #[must_use]
    pub fn shares_memory(mut self) -> Self {
        self.shares_memory = true;
        self
    }

    /// So many processors, each with a thread of the host's.
    #[must_use]
    pub fn processors(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// No IOMMU: VFIO takes nothing.
    #[must_use]
    pub fn without_iommu(mut self) -> Self {
        self.iommu = None;
        self
    }

    /// Another IOMMU than the usual one, as QEMU's `-device` has it.
    #[must_use]
    pub fn iommu(mut self, device: &str) -> Self {
        self.iommu = Some(device.to_owned());
        self
    }

    /// A device, as QEMU's `-device` has it.
    #[must_use]
    pub fn device(self, device: &str) -> Self {
        self.arguments(["-device", device])
    }

    /// What is at the other end of a network device, as QEMU's `-netdev` has it.
    #[must_use]
    pub fn netdev(self, netdev: &str) -> Self {
        self.arguments(["-netdev", netdev])
    }

    /// What is at the other end of a line, as QEMU's `-chardev` has it.
    #[must_use]
    pub fn chardev(self, chardev: &str) -> Self {
        self.arguments(["-chardev", chardev])
    }

    /// Anything else that QEMU takes.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// A word for the kernel's command line.
    #[must_use]
    pub fn kernel_argument(mut self, argument: &str) -> Self {
        self.kernel_arguments.push(argument.to_owned());
        self
    }

    /// A module to load, unless the kernel has it built in. What it needs is loaded too.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// The PCI devices with these ids (`"1af4 1041"`) are bound to `vfio-pci`, before modules are loaded that might
    /// take them.
    #[must_use]
    pub fn vfio(mut self, id: &str) -> Self {
        self.vfio.push(id.to_owned());
        self
    }

    /// A file that the guest finds, for example a script: it may be run.
    #[must_use]
    pub fn file(mut self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), contents.into()));
        self
    }

    /// What it consists of, with versions: `QEMU 7.2, Linux 6.1.176`.
    #[must_use]
    pub fn name(&self) -> String {
        let (qemu, kernel) = (self.qemu.name(), self.kernel.name());
        let (qemu, kernel) = (self.parts.version(qemu), self.parts.version(kernel));
        format!("QEMU {qemu}, Linux {kernel}")
    }

    /// Starts it, and waits until it takes commands.
    ///
    /// # Errors
    ///
    /// [`Error`], with the console if it came so far.
    pub fn boot(self) -> Result<Guest, Error> {
        let directory = tempfile::Builder::new()
            .prefix("shmbus-vm-")
            .tempdir()
            .map_err(Error::file("create a directory in", Path::new("/tmp")))?;
        let initrd = directory.path().join("initrd");
        fs::write(&initrd, self.initramfs()?).map_err(Error::file("write", &initrd))?;
        let command = self.command(&initrd);
        Guest::start(self.name(), command, directory)
    }

    fn initramfs(&self) -> Result<Vec<u8>, Error> {
        let directory = self.parts.kernel(self.kernel).join("modules");
        let modules = Modules::find(self.kernel, &directory)?;
        let vfio = if self.vfio.is_empty() { &[][..] } else { &VFIO };
        let first = modules.in_order(vfio.iter().copied())?;
        let named = self.modules.iter().map(String::as_str);
        let mut later = modules.in_order(named.filter(|name| modules.has(name)))?;
        later.retain(|(name, _)| first.iter().all(|(loaded, _)| loaded != name));
        Contents {
            busybox: &self.parts.busybox(),
            programs: &programs::build()?,
            modules: &first,
            vfio: &self.vfio,
            later_modules: &later,
            files: &self.files,
        }
        .pack()
    }

    fn command(&self, initrd: &Path) -> Command {
        let qemu = self.parts.qemu(self.qemu);
        // Whatever becomes of the thread that starts it, nothing is left behind. The process's id stays the same.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(qemu.join("lib/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(qemu.join("lib"))
            .arg(qemu.join("bin/qemu-system-x86_64"))
            .arg("-L")
            .arg(qemu.join("share"))
            // Modules of an installed QEMU are of another build.
            .env("QEMU_MODULE_DIR", qemu.join("modules"));

        let memory = format!("{}M", self.memory_mib);
        let mut machine = "q35,kernel-irqchip=split".to_owned();
        if self.shares_memory {
            machine.push_str(",memory-backend=memory");
            command.args([
                "-object",
                &format!("memory-backend-memfd,id=memory,size={memory},share=on"),
            ]);
        }
        command
            .args(["-accel", "tcg,thread=multi", "-M", &machine, "-cpu", "max"])
            .args(["-m", &memory, "-smp", &self.processors.to_string()])
            .args(["-nodefaults", "-display", "none", "-monitor", "none"])
            .args(["-no-reboot", "-net", "none"])
            // The console and QEMU's own messages share standard error; commands have the other streams.
            .args(["-chardev", "file,id=console,path=/dev/fd/2"])
            .args(["-serial", "chardev:console"])
            .args(["-chardev", "stdio,id=commands,signal=off"])
            .args(["-serial", "chardev:commands"]);
        if let Some(iommu) = &self.iommu {
            command.args(["-device", iommu]);
        }
        command
            .args(&self.arguments)
            .arg("-kernel")
            .arg(self.parts.kernel(self.kernel).join("vmlinux"))
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", &self.kernel_line()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn kernel_line(&self) -> String {
        let mut line = KERNEL_ARGUMENTS.to_owned();
        if self.iommu.is_some() {
            line.push_str(" intel_iommu=on");
        }
        for argument in &self.kernel_arguments {
            line.push(' ');
            line.push_str(argument);
        }
        line
    }
}
