//! What the system says of a process.

use std::error::Error;
use std::fs;

/// Nanoseconds of processor time that the first thread of a process has had.
pub(crate) fn processor_ns(process: u32) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    let first = text.split_whitespace().next().unwrap_or_default();
    Ok(first.parse()?)
}

/// Bytes of memory that nobody else has, and of shared memory that is mapped and was touched.
pub(crate) fn memory(process: u32) -> Result<(u64, u64), Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let of = |key: &str| -> Result<u64, Box<dyn Error>> {
        let line = text.lines().find(|line| line.starts_with(key));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: u64 = number.ok_or("the status says nothing of memory")?.parse()?;
        Ok(kib * 1024)
    };
    Ok((of("RssAnon:")?, of("RssShmem:")?))
}

/// How many descriptors a process has.
pub(crate) fn descriptors(process: u32) -> Result<u64, Box<dyn Error>> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64)
}
