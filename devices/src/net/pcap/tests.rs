use std::sync::{Arc, Mutex};

use super::*;

/// A file in memory that can be looked at while it is written, and that fills up.
#[derive(Clone)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl Disk {
    fn new(room: usize) -> Self {
        Self {
            bytes: Arc::default(),
            room,
        }
    }
}

impl Write for Disk {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap();
        if bytes.len() + from.len() > self.room {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        bytes.extend_from_slice(from);
        Ok(from.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn recording(frames: &[&[u8]]) -> Vec<u8> {
    let disk = Disk::new(usize::MAX);
    let mut recorder = Recorder::new(Box::new(disk.clone()), "disk".to_owned()).unwrap();
    for (index, frame) in frames.iter().enumerate() {
        recorder.record(
            frame,
            UNIX_EPOCH + Duration::from_nanos(1_000_000_001 + 30_000_000 * index as u64),
        );
    }
    assert_eq!(recorder.finish().unwrap(), frames.len() as u64);
    let bytes = disk.bytes.lock().unwrap();
    bytes.clone()
}

fn replay(bytes: &[u8], pace: Pace) -> Result<Replay, CaptureError> {
    Replay::new(
        Box::new(std::io::Cursor::new(bytes.to_vec())),
        "disk".to_owned(),
        pace,
    )
}

#[test]
fn what_was_recorded_is_played_back() {
    let long = [7; 65_535];
    let bytes = recording(&[b"first frame of all", &long, b"runt"]);
    assert_eq!(
        bytes[..4],
        0xa1b2_3c4d_u32.to_ne_bytes(),
        "nanoseconds, in the machine's byte order"
    );
    let mut replay = replay(&bytes, Pace::Unpaced).unwrap();
    let mut frame = vec![0; 70_000];
    let checksum = Checksum::InFrame;
    assert_eq!(
        replay.receive(&mut frame).unwrap(),
        Received::Frame {
            bytes: 18,
            checksum
        }
    );
    assert_eq!(&frame[..18], b"first frame of all");
    assert_eq!(
        replay.receive(&mut frame).unwrap(),
        Received::Frame {
            bytes: 65_535,
            checksum
        }
    );
    assert_eq!(frame[..65_535], long);
    assert_eq!(replay.receive(&mut frame).unwrap(), Received::Discarded);
    assert_eq!(replay.receive(&mut frame).unwrap(), Received::Empty);
    assert!(replay.has_ended());
}

#[test]
fn a_paced_replay_keeps_the_distances() {
    let bytes = recording(&[&[1; 20], &[2; 20]]);
    let mut replay = replay(&bytes, Pace::AsRecorded).unwrap();
    let mut frame = [0; 100];
    let start_ns = monotonic_ns();
    assert!(matches!(
        replay.receive(&mut frame).unwrap(),
        Received::Frame { .. }
    ));
    while replay.receive(&mut frame).unwrap() == Received::Empty {
        assert!(replay.next_due().unwrap() >= start_ns + 30_000_000);
        std::thread::yield_now();
    }
    assert!(monotonic_ns() >= start_ns + 30_000_000);
    assert_eq!(frame[0], 2);
}

#[test]
fn bad_files_say_what_is_wrong() {
    let good = recording(&[&[1; 20], &[2; 20]]);
    let error = replay(b"not a capture at all, but long enough", Pace::Unpaced)
        .err()
        .unwrap();
    assert!(matches!(&error, CaptureError::NoCapture { .. }), "{error}");
    assert!(matches!(
        replay(&good[..10], Pace::Unpaced),
        Err(CaptureError::NoCapture { .. })
    ));

    let mut raw = good.clone();
    raw[20..24].copy_from_slice(&101_u32.to_ne_bytes());
    assert!(matches!(
        replay(&raw, Pace::Unpaced),
        Err(CaptureError::NotEthernet { .. })
    ));

    let mut frame = [0; 100];
    let mut cut = replay(&good[..good.len() - 1], Pace::Unpaced).unwrap();
    cut.receive(&mut frame).unwrap();
    let error = cut.receive(&mut frame).unwrap_err().to_string();
    assert_eq!(
        error,
        "record 2 of disk cannot be read: the file ends in the middle of it"
    );

    let mut huge = good.clone();
    huge[32..36].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(
        replay(&huge, Pace::Unpaced)
            .unwrap()
            .receive(&mut frame)
            .is_err()
    );
    let error = Replay::open(Path::new("/nonexistent/x.pcap"), Pace::Unpaced)
        .err()
        .unwrap();
    assert!(error.to_string().contains("/nonexistent/x.pcap"));
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let mut recorder = Recorder::new(Box::new(Disk::new(20_000)), "disk".to_owned()).unwrap();
    for _ in 0..100 {
        recorder.record(&[0; 1000], UNIX_EPOCH);
    }
    assert!(recorder.frames() < 100);
    assert!(matches!(recorder.finish(), Err(CaptureError::File { .. })));
}
