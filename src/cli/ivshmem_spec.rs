//! `PATH[,shared][,size=MIB][,max-guests=N]`, as `host --ivshmem` takes it.

use std::path::PathBuf;
use std::str::FromStr;

use shmbus::transports::ivshmem::ServerOptions;
use shmbus::transports::ivshmem::layout::MAX_AREAS;

/// A socket for guests in QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IvshmemSpec {
    pub(crate) path: PathBuf,
    is_shared: bool,
    /// How large a memory is, if that is said.
    mebibytes: Option<u64>,
    max_guests: Option<usize>,
}

/// Why it is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IvshmemSpecError {
    #[error("expected the path of a socket, which has no commas, found {found:?}")]
    Path { found: String },
    #[error("expected shared, size=MIB or max-guests=N, found {found:?}")]
    Option { found: String },
    #[error("the option {name} is given twice")]
    Twice { name: String },
    #[error(
        "expected a size in MiB that is a power of two, from 1 to {MOST_MEBIBYTES}, found {found:?}"
    )]
    Size { found: String },
    #[error("expected 1 to {MAX_AREAS} guests, found {found:?}")]
    Guests { found: String },
}

const MOST_MEBIBYTES: u64 = 1 << 20;

impl FromStr for IvshmemSpec {
    type Err = IvshmemSpecError;

    fn from_str(text: &str) -> Result<Self, IvshmemSpecError> {
        let (path, options) = match text.split_once(',') {
            Some((path, options)) => (path, Some(options)),
            None => (text, None),
        };
        if path.is_empty() {
            let found = text.to_owned();
            return Err(IvshmemSpecError::Path { found });
        }
        let mut spec = Self {
            path: path.into(),
            is_shared: false,
            mebibytes: None,
            max_guests: None,
        };
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            let found = || option.to_owned();
            let (name, is_repeated) = match option.split_once('=') {
                None if option == "shared" => {
                    (option, std::mem::replace(&mut spec.is_shared, true))
                }
                Some((name @ "size", size)) => {
                    let size = size
                        .parse()
                        .ok()
                        .filter(|size: &u64| size.is_power_of_two() && *size <= MOST_MEBIBYTES);
                    let size = size.ok_or_else(|| IvshmemSpecError::Size { found: found() })?;
                    (name, spec.mebibytes.replace(size).is_some())
                }
                Some((name @ "max-guests", guests)) => {
                    let guests = guests.parse().ok();
                    let guests = guests.filter(|guests| (1..=MAX_AREAS).contains(guests));
                    let guests =
                        guests.ok_or_else(|| IvshmemSpecError::Guests { found: found() })?;
                    (name, spec.max_guests.replace(guests).is_some())
                }
                _ => return Err(IvshmemSpecError::Option { found: found() }),
            };
            if is_repeated {
                let name = name.to_owned();
                return Err(IvshmemSpecError::Twice { name });
            }
        }
        Ok(spec)
    }
}

impl IvshmemSpec {
    /// The server's options.
    pub(crate) fn options(&self) -> ServerOptions {
        let defaults = ServerOptions::default();
        ServerOptions {
            is_shared: self.is_shared,
            guests: self.max_guests.unwrap_or(defaults.guests),
            memory_bytes: self.mebibytes.map(|size| size << 20),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_socket_is_what_its_server_does() {
        let spec: IvshmemSpec = "/run/iv".parse().unwrap();
        assert_eq!(spec.path, PathBuf::from("/run/iv"));
        let options = spec.options();
        assert_eq!(
            (options.is_shared, options.guests, options.memory_bytes),
            (false, 16, None)
        );
        let spec: IvshmemSpec = "iv,shared,size=64,max-guests=3".parse().unwrap();
        let options = spec.options();
        assert_eq!(
            (options.is_shared, options.guests, options.memory_bytes),
            (true, 3, Some(64 << 20))
        );
    }

    #[test]
    fn what_makes_no_sense_is_told_with_what_would() {
        for (text, reason) in [
            ("", "expected the path"),
            (",shared", "expected the path"),
            (
                "iv,",
                "expected shared, size=MIB or max-guests=N, found \"\"",
            ),
            ("iv,private", "found \"private\""),
            ("iv,shared,shared", "shared is given twice"),
            ("iv,size=2,size=2", "size is given twice"),
            (
                "iv,size=3",
                "power of two, from 1 to 1048576, found \"size=3\"",
            ),
            ("iv,size=2097152", "from 1 to 1048576"),
            ("iv,size=0", "power of two"),
            ("iv,max-guests=0", "expected 1 to 64 guests"),
            ("iv,max-guests=65", "found \"max-guests=65\""),
        ] {
            let error = text.parse::<IvshmemSpec>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
