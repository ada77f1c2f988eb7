//! The first process in a guest: it runs what comes over a serial line, as many commands at a time as are asked for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};
use shmbus_vm::wire::Frame;

/// One of several that write frames.
type Line = Arc<Mutex<File>>;

/// The process groups of commands that have not ended.
type Groups = Arc<Mutex<BTreeMap<u32, Pid>>>;

/// Serves until the line breaks.
pub(crate) fn serve(path: &str) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let line: Line = Arc::new(Mutex::new(file.try_clone()?));
    let groups = Groups::default();
    send(&line, &Frame::Ready)?;
    let mut from = BufReader::new(file);
    loop {
        match Frame::read(&mut from)? {
            Frame::Run(id, command) => start(id, &command, &line, &groups)?,
            Frame::Signal(id, signal) => {
                let groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
                if let (Some(group), Some(signal)) =
                    (groups.get(&id), Signal::from_named_raw(signal))
                {
                    // It may just have ended.
                    let _ = kill_process_group(*group, signal);
                }
            }
            Frame::Ready | Frame::Output(..) | Frame::End(..) => {}
        }
    }
}

fn start(id: u32, command: &[u8], line: &Line, groups: &Groups) -> io::Result<()> {
    let (output, writer) = io::pipe()?;
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(OsStr::from_bytes(command))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let child = shell.spawn()?;
    // It holds the writing ends of the pipe, which would never be at its end.
    drop(shell);
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let mut groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.insert(id, group);
    }
    let (line, groups) = (Arc::clone(line), Arc::clone(groups));
    thread::spawn(move || {
        // Nobody is left to tell, if the line is broken.
        let _ = follow(id, child, output, &line, &groups);
    });
    Ok(())
}

fn follow(
    id: u32,
    mut child: Child,
    mut output: impl Read,
    line: &Line,
    groups: &Groups,
) -> io::Result<()> {
    let mut bytes = [0; 4096];
    while let count @ 1.. = output.read(&mut bytes)? {
        send(line, &Frame::Output(id, bytes[..count].to_vec()))?;
    }
    let status = child.wait()?;
    let mut groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
    groups.remove(&id);
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1);
    send(line, &Frame::End(id, code))
}

fn send(line: &Line, frame: &Frame) -> io::Result<()> {
    let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
    frame.write(&mut *line)
}
