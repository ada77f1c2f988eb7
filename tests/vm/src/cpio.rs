//! An archive that the kernel unpacks at start: cpio, "new ASCII format" (Linux,
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// The kind of a file, in `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive in the making. Directories come before what is in them.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// A directory, everybody's to read.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// A file that may be run.
    pub(crate) fn program(&mut self, path: &str, bytes: &[u8]) {
        self.entry(path, REGULAR | 0o755, bytes);
    }

    /// A file that is read.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.entry(path, REGULAR | 0o644, bytes);
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, target.as_bytes());
    }

    /// The archive with its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        let path = path.trim_start_matches('/');
        self.entries += 1;
        // The format counts in 32 bits; a machine's memory is less than that here.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(b"070701");
        let links = 1;
        let (owner, group, time, device, checksum) = (0, 0, 0, (0, 0), 0);
        for field in [
            self.entries, // the number of the inode
            mode,
            owner,
            group,
            links,
            time,
            length,
            device.0,
            device.1,
            device.0, // what a device node stands for
            device.1,
            name_length,
            checksum,
        ] {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(bytes);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_bytes_each_padded() {
        let mut archive = Archive::default();
        archive.file("/a/bc", b"12345");
        let start = concat!(
            "070701", "00000001", "000081A4", "00000000", "00000000", "00000001", "00000000",
            "00000005", "00000000", "00000000", "00000000", "00000000", "00000005", "00000000",
        );
        let bytes = archive.finish();
        assert_eq!(bytes[..110], *start.as_bytes());
        // The header and the name are 115 bytes with the name's end; the contents are 5.
        assert_eq!(bytes[110..124], *b"a/bc\0\x0012345\0\0\0");
    }
}
