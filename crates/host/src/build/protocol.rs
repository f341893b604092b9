//! What a build's runner and its node say to each other: one job in, frames out.
//!
//! The runner shares its container with the customer's commands, so its frames are as hostile as theirs: each is bounded,
//! and all that a forged one could do is to tell a lie about the customer's own build.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use model::{
    Secret,
    port::{PhaseStatus, TestReport},
    secret, spec,
};
use serde::{Deserialize, Serialize};

use super::report::Case;

/// The most that one frame carries.
pub const FRAME_BYTES: usize = 1 << 20;
/// A job is larger than no sane buildspec with its variables.
const JOB_BYTES: u64 = 16 << 20;

/// All that a runner is told. It comes through standard input and is written nowhere.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub buildspec: spec::Buildspec,
    /// The whole environment of the commands but the secrets.
    pub variables: BTreeMap<String, String>,
    #[serde(serialize_with = "secret::all_in_the_clear")]
    pub secrets: BTreeMap<String, Secret>,
    pub source_directory: String,
    /// Where there are some, they are expanded, and nothing is built.
    pub keys: Vec<String>,
    /// Begins the names of report groups, as CodeBuild's project does.
    pub project: String,
    /// How often this build was made before and failed.
    pub retried: u32,
    /// Seconds since 1970 that every file of the artifact gets.
    pub mtime: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Began {
        phase: String,
    },
    Command {
        text: String,
    },
    /// A command ended with another status than 0.
    CommandFailed {
        text: String,
        code: i32,
    },
    Ended {
        phase: String,
        status: PhaseStatus,
        message: Option<String>,
    },
    /// A line of the runner's own for the log.
    Note {
        text: String,
    },
    Report(Box<TestReport>),
    /// Tests of a report group, before its report.
    Cases {
        group: String,
        cases: Vec<Case>,
    },
    /// The bytes that follow are those of this artifact; `None` is the one that becomes the revision.
    Artifact {
        identifier: Option<String>,
        /// What the buildspec calls it, expanded.
        name: Option<String>,
    },
    Exported(BTreeMap<String, String>),
    /// What the job's keys came to, in their order, or why one cannot be read. The only frame of such a job.
    Expanded(Vec<Result<String, String>>),
    /// The last frame.
    Finished {
        succeeded: bool,
        /// It failed in a way that its buildspec wants to be tried again.
        again: bool,
    },
}

#[derive(Debug, PartialEq)]
pub enum Frame {
    /// What commands wrote.
    Output(Vec<u8>),
    /// The next bytes of the artifact's tar.
    Artifact(Vec<u8>),
    Event(Event),
}

impl Job {
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, self)?;
        to.flush()
    }

    pub fn read(from: impl Read) -> io::Result<Self> {
        Ok(serde_json::from_reader(io::BufReader::new(from.take(JOB_BYTES)))?)
    }
}

/// Writes frames: a kind, a length in 4 bytes, the bytes.
#[derive(Debug)]
pub struct Frames<W>(pub W);

impl<W: Write> Frames<W> {
    pub fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes
            .chunks(FRAME_BYTES)
            .try_for_each(|piece| self.frame(b'o', piece))
    }

    pub fn artifact(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes
            .chunks(FRAME_BYTES)
            .try_for_each(|piece| self.frame(b'a', piece))
    }

    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        let bytes = serde_json::to_vec(event)?;
        match bytes.len() > FRAME_BYTES {
            true => Err(io::Error::other("an event is too large to be told")),
            false => self.frame(b'e', &bytes),
        }
    }

    pub fn note(&mut self, text: impl Into<String>) -> io::Result<()> {
        self.event(&Event::Note { text: text.into() })
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len())
            .expect("a frame is bounded")
            .to_be_bytes();
        let head = [kind, length[0], length[1], length[2], length[3]];
        self.0.write_all(&head)?;
        self.0.write_all(bytes)?;
        self.0.flush()
    }
}

/// The next frame; `None` at the end. A malformed one is an error.
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    match from.read(&mut head[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut head[1..])?,
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > FRAME_BYTES {
        return Err(io::Error::other("a frame is too large"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some(match head[0] {
        b'o' => Frame::Output(bytes),
        b'a' => Frame::Artifact(bytes),
        // Its error would tell what is in the frame.
        b'e' => Frame::Event(
            serde_json::from_slice(&bytes).map_err(|_| io::Error::other("an event is of no known kind"))?,
        ),
        _ => return Err(io::Error::other("a frame is of no known kind")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut frames = Frames(Vec::new());
        frames.output(b"hello\n").unwrap();
        frames.note("x").unwrap();
        frames.artifact(&vec![7; FRAME_BYTES + 1]).unwrap();
        let mut bytes = &frames.0[..];
        assert_eq!(
            read_frame(&mut bytes).unwrap(),
            Some(Frame::Output(b"hello\n".to_vec()))
        );
        let note = Frame::Event(Event::Note { text: "x".to_owned() });
        assert_eq!(read_frame(&mut bytes).unwrap(), Some(note));
        assert_eq!(
            read_frame(&mut bytes).unwrap(),
            Some(Frame::Artifact(vec![7; FRAME_BYTES]))
        );
        assert_eq!(read_frame(&mut bytes).unwrap(), Some(Frame::Artifact(vec![7])));
        assert_eq!(read_frame(&mut bytes).unwrap(), None);
    }

    #[test]
    fn hostile_frames_are_errors() {
        for bytes in [
            &b"o\xff\xff\xff\xff"[..],
            b"o\0\0\0\x05abc",
            b"z\0\0\0\0",
            b"e\0\0\0\x02{}",
            b"o\0",
        ] {
            assert!(read_frame(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }
}
