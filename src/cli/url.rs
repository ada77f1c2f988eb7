//! `HOST[:PORT]/PATH`, as `guest net fetch` takes it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// Where a file is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) host: Ipv4Addr,
    pub(crate) port: u16,
    /// Starts with a slash; not escaped.
    pub(crate) path: String,
}

/// Why it is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("expected HOST[:PORT]/PATH, found no slash in {found:?}")]
    NoPath { found: String },
    #[error("expected an IPv4 address, found {found:?} (there is no name service on the bus)")]
    Host { found: String },
    #[error("expected a port from 1 to 65535, found {found:?}")]
    Port { found: String },
    #[error("expected UTF-8 in the path, found {found:?}")]
    Path { found: String },
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.strip_prefix("http://").unwrap_or(text);
        let (authority, path) = text.split_once('/').ok_or_else(|| UrlError::NoPath {
            found: text.to_owned(),
        })?;
        let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
        // Whoever sends the request escapes what must be.
        let path = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| UrlError::Path {
                found: path.to_owned(),
            })?;
        Ok(Self {
            host: host.parse().map_err(|_| UrlError::Host {
                found: host.to_owned(),
            })?,
            port: port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| UrlError::Port {
                    found: port.to_owned(),
                })?,
            path: format!("/{path}"),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.host, self.port, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_with_and_without_port_and_scheme() {
        for text in ["10.0.0.1/a/b", "10.0.0.1:80/a/b", "http://10.0.0.1/a/b"] {
            assert_eq!(
                text.parse::<Url>().unwrap().to_string(),
                "10.0.0.1:80/a/b",
                "{text}"
            );
        }
    }

    #[test]
    fn a_path_may_be_escaped() {
        for text in ["10.0.0.1/a b%c3%a9", "10.0.0.1/a%20bé"] {
            assert_eq!(text.parse::<Url>().unwrap().path, "/a bé", "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, error) in [
            ("10.0.0.1", "no slash"),
            ("example/x", "IPv4"),
            ("10.0.0.1:0/x", "port"),
            ("10.0.0.1/%ff", "UTF-8"),
        ] {
            let message = text.parse::<Url>().unwrap_err().to_string();
            assert!(message.contains(error), "{text}: {message}");
        }
    }
}
