//! The end of a build that nobody listens to any more: its node and whatever watches it were killed at once.

use std::{io, os::fd::OwnedFd, process, thread};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Ends this process, and so its container, when the reader of `output` is gone.
pub(super) fn end(output: OwnedFd) -> io::Result<()> {
    let watch = move || {
        // What cannot be waited for says nothing about its reader.
        if until_unread(&output).is_ok() {
            process::exit(1);
        }
    };
    thread::Builder::new().name("alone".to_owned()).spawn(watch)?;
    Ok(())
}

/// Waits until nobody can read what is written into a pipe any more (`poll(2)`: `POLLERR`).
fn until_unread(output: &OwnedFd) -> io::Result<()> {
    // Asks for nothing: whether there is room for more makes no difference.
    let mut all = [PollFd::new(output, PollFlags::empty())];
    loop {
        match poll(&mut all, None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_without_a_reader_is_noticed_and_no_other() {
        let (reader, writer) = io::pipe().unwrap();
        let (writer, mut same) = (OwnedFd::from(writer.try_clone().unwrap()), writer);
        let (noticed, notices) = std::sync::mpsc::channel();
        thread::spawn(move || noticed.send(until_unread(&writer).is_ok()));
        // Neither what is written nor a second reader that goes is the end.
        io::Write::write_all(&mut same, &[0; 4096]).unwrap();
        drop(reader.try_clone().unwrap());
        let early = notices.recv_timeout(std::time::Duration::from_millis(100));
        assert!(early.is_err(), "somebody reads");
        drop(reader);
        assert!(notices.recv().unwrap());
    }
}
