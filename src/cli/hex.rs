//! Checksums from text.

use super::error::CliError;

/// A SHA-256 from its 64 digits.
pub(crate) fn decode_sha256(text: &str) -> Result<[u8; 32], CliError> {
    let bad = || CliError::BadChecksum {
        found: text.to_owned(),
    };
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(bad());
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| bad())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use shmbus::devices::net::app::fetch::hex;

    use super::*;

    #[test]
    fn a_checksum_survives_being_text() {
        let bytes: [u8; 32] = std::array::from_fn(|index| index as u8 * 7);
        assert_eq!(decode_sha256(&hex(&bytes)).unwrap(), bytes);
        for bad in ["", "12", &"g".repeat(64), &"+f".repeat(32), &"é".repeat(32)] {
            assert!(decode_sha256(bad).is_err(), "{bad}");
        }
    }
}
