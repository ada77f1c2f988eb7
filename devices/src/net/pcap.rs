//! Capture files in the pcap format: every frame of a bus recorded, and a recording played back as a port.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use super::port::{Checksum, ETHERNET_HEADER_BYTES, Port, PortError, Received, Sent};
use crate::clock::monotonic_ns;

/// The longest frame that a recording holds: more than any port takes.
const SNAP_BYTES: u32 = 1 << 18;

/// A capture file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened, read or written.
    #[error("the capture file {file}: {source}")]
    File {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file does not begin as a pcap file does.
    #[error(
        "{file} is no pcap file ({reason}); a pcapng file can be converted by `editcap -F pcap`"
    )]
    NoCapture {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The file holds something else than Ethernet frames.
    #[error("{file} holds frames of link type {found:?}; Ethernet (1) was expected")]
    NotEthernet {
        /// The file.
        file: String,
        /// What it holds.
        found: DataLink,
    },
    /// A record is cut off or makes no sense.
    #[error("record {record} of {file} cannot be read: {reason}")]
    BadRecord {
        /// The file.
        file: String,
        /// The record, counted from 1.
        record: u64,
        /// What is wrong.
        reason: String,
    },
}

/// Writes frames to a pcap file, with nanosecond time stamps.
///
/// An error, such as a full disk, ends the recording and not the bus: [`Recorder::finish`] tells it.
pub struct Recorder {
    /// `None` after an error.
    writer: Option<PcapWriter<BufWriter<Box<dyn Write + Send>>>>,
    file: String,
    frames: u64,
    error: Option<CaptureError>,
}

impl Recorder {
    /// Makes a file, or empties an existing one.
    ///
    /// # Errors
    ///
    /// [`CaptureError::File`].
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let file = path.display().to_string();
        let output = File::create(path).map_err(|source| CaptureError::File {
            file: file.clone(),
            source,
        })?;
        Self::new(Box::new(output), file)
    }

    /// Records to any writer; `file` names it in errors.
    ///
    /// # Errors
    ///
    /// [`CaptureError::File`] when the file's header cannot be written.
    pub fn new(output: Box<dyn Write + Send>, file: String) -> Result<Self, CaptureError> {
        let header = PcapHeader {
            snaplen: SNAP_BYTES,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        match PcapWriter::with_header(BufWriter::new(output), header) {
            Ok(writer) => Ok(Self {
                writer: Some(writer),
                file,
                frames: 0,
                error: None,
            }),
            Err(error) => Err(write_error(&file, error)),
        }
    }

    /// Adds a frame that was seen at `time`.
    pub fn record(&mut self, frame: &[u8], time: SystemTime) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let kept = &frame[..frame.len().min(SNAP_BYTES as usize)];
        // The format counts seconds in 32 bits from 1970.
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = time.min(Duration::from_secs(u64::from(u32::MAX)));
        match writer.write_packet(&PcapPacket::new(time, frame.len() as u32, kept)) {
            Ok(_) => self.frames += 1,
            Err(error) => {
                let error = write_error(&self.file, error);
                tracing::warn!(%error, frames = self.frames, "the recording ends here");
                self.writer = None;
                self.error = Some(error);
            }
        }
    }

    /// Frames recorded so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    ///
    /// [`CaptureError::File`]: the one that ended the recording, if one did.
    pub fn finish(mut self) -> Result<u64, CaptureError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if let Some(writer) = self.writer.take() {
            writer
                .into_writer()
                .flush()
                .map_err(|source| CaptureError::File {
                    file: self.file.clone(),
                    source,
                })?;
        }
        Ok(self.frames)
    }
}

fn write_error(file: &str, error: PcapError) -> CaptureError {
    let source = match error {
        PcapError::IoError(source) => source,
        other => std::io::Error::other(other.to_string()),
    };
    CaptureError::File {
        file: file.to_owned(),
        source,
    }
}

/// How fast a recording is played back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as its frames are taken.
    Unpaced,
    /// With the distances in time that the frames were recorded with, from the first [`Port::receive`] on.
    AsRecorded,
}

/// A frame that was read and is not due yet.
struct Upcoming {
    bytes: usize,
    /// When it is due, in nanoseconds of `CLOCK_MONOTONIC`.
    due_ns: u64,
}

/// A recording as a port: its frames come in by it, and what is sent to it is gone.
pub struct Replay {
    reader: PcapReader<BufReader<Box<dyn Read + Send>>>,
    file: String,
    pace: Pace,
    frame: Box<[u8]>,
    upcoming: Option<Upcoming>,
    /// The first frame's time stamp, and when it was played back, in nanoseconds of `CLOCK_MONOTONIC`.
    started: Option<(Duration, u64)>,
    records: u64,
    ended: bool,
}

impl Replay {
    /// Opens a recording.
    ///
    /// # Errors
    ///
    /// [`CaptureError`] when it cannot be opened, or is no pcap file of Ethernet frames.
    pub fn open(path: &Path, pace: Pace) -> Result<Self, CaptureError> {
        let file = path.display().to_string();
        let input = File::open(path).map_err(|source| CaptureError::File {
            file: file.clone(),
            source,
        })?;
        Self::new(Box::new(input), file, pace)
    }

    /// Plays back from any reader; `file` names it in errors.
    ///
    /// # Errors
    ///
    /// As for [`Replay::open`].
    pub fn new(
        input: Box<dyn Read + Send>,
        file: String,
        pace: Pace,
    ) -> Result<Self, CaptureError> {
        let reader =
            PcapReader::new(BufReader::new(input)).map_err(|error| CaptureError::NoCapture {
                file: file.clone(),
                reason: reason(error),
            })?;
        let found = reader.header().datalink;
        if found != DataLink::ETHERNET {
            return Err(CaptureError::NotEthernet { file, found });
        }
        Ok(Self {
            reader,
            file,
            pace,
            frame: vec![0; SNAP_BYTES as usize].into(),
            upcoming: None,
            started: None,
            records: 0,
            ended: false,
        })
    }

    /// Records read so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether all frames were played back.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// When the next frame is due, in nanoseconds of `CLOCK_MONOTONIC`: known once [`Port::receive`] has found that it is
    /// not due yet.
    pub fn next_due(&self) -> Option<u64> {
        self.upcoming.as_ref().map(|upcoming| upcoming.due_ns)
    }

    /// Reads the next record, if none is waiting.
    fn read_ahead(&mut self) -> Result<(), CaptureError> {
        if self.upcoming.is_some() || self.ended {
            return Ok(());
        }
        let bad = |record, reason| CaptureError::BadRecord {
            file: self.file.clone(),
            record,
            reason,
        };
        let resolution = self.reader.header().ts_resolution;
        // The raw packet: the cooked one refuses frames that were cut to the recording's snap length.
        let record = match self.reader.next_raw_packet() {
            None => {
                self.ended = true;
                return Ok(());
            }
            Some(record) => record,
        };
        self.records += 1;
        let number = self.records;
        let packet = record.map_err(|error| bad(number, reason(error)))?;
        let Some(frame) = self.frame.get_mut(..packet.data.len()) else {
            let reason = format!(
                "{} bytes; at most {SNAP_BYTES} were expected",
                packet.data.len()
            );
            return Err(bad(number, reason));
        };
        frame.copy_from_slice(&packet.data);
        let fraction = match resolution {
            TsResolution::MicroSecond => Duration::from_micros(u64::from(packet.ts_frac)),
            TsResolution::NanoSecond => Duration::from_nanos(u64::from(packet.ts_frac)),
        };
        let time = Duration::from_secs(u64::from(packet.ts_sec)) + fraction;
        let (first, start_ns) = *self.started.get_or_insert_with(|| (time, monotonic_ns()));
        // Recordings are not always in order. Their seconds have 32 bits: the nanoseconds fit.
        let offset_ns = time.saturating_sub(first).as_nanos() as u64;
        self.upcoming = Some(Upcoming {
            bytes: packet.data.len(),
            due_ns: start_ns.saturating_add(offset_ns),
        });
        Ok(())
    }
}

impl Port for Replay {
    fn receive(&mut self, frame: &mut [u8]) -> Result<Received, PortError> {
        if let Err(error) = self.read_ahead() {
            self.ended = true;
            return Err(error.into());
        }
        let is_early = |due_ns| due_ns > monotonic_ns();
        if self.pace == Pace::AsRecorded && self.next_due().is_some_and(is_early) {
            return Ok(Received::Empty);
        }
        let Some(Upcoming { bytes, .. }) = self.upcoming.take() else {
            return Ok(Received::Empty);
        };
        if bytes < ETHERNET_HEADER_BYTES || bytes > frame.len() {
            return Ok(Received::Discarded);
        }
        frame[..bytes].copy_from_slice(&self.frame[..bytes]);
        Ok(Received::Frame {
            bytes,
            checksum: Checksum::InFrame,
        })
    }

    fn send(&mut self, _frame: &[u8], _checksum: Checksum) -> Result<Sent, PortError> {
        Ok(Sent::Taken)
    }
}

fn reason(error: PcapError) -> String {
    match error {
        PcapError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the file ends in the middle of it".to_owned()
        }
        PcapError::IoError(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
