//! Where a body ends: lengths and chunks (RFC 9112, section 6 and 7). Strict, because two readers that disagree about
//! the end of a request are how one client speaks in another's name.

use std::io::Write;

use crate::link::Buffer;

/// Digits of a chunk size: 2^60 is more than any body.
const SIZE_DIGITS: u8 = 15;
/// Bytes of all chunk extensions of one chunk; they are dropped.
const EXTENSION: u32 = 256;
/// Bytes of all trailer fields.
const TRAILERS: usize = 8 * 1024;

/// A body that breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Bad(pub &'static str);

/// A body is larger than it may be.
pub const TOO_LARGE: Bad = Bad("the body of the request is too large");

/// A head is longer than it may be.
pub const HEAD_TOO_LARGE: Bad = Bad("the head of the request is too large");

/// `X-Forwarded-For` names more stations than [`crate::head::STATIONS`].
pub const TOO_FAR: Bad = Bad("X-Forwarded-For names more than 30 addresses");

/// How much of a message's body is still to come.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing more.
    #[default]
    Empty,
    Length(u64),
    Chunked(Box<Chunks>),
    /// An answer that ends with its connection.
    UntilClose,
}

impl Body {
    pub fn chunked() -> Self {
        Self::Chunked(Box::default())
    }

    pub fn is_over(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// It may be of so many bytes and no more; 0 is no limit. One whose length is known is refused at once.
    pub fn limit(&mut self, most: u64) -> Result<(), Bad> {
        match self {
            Self::Length(length) if most > 0 && *length > most => Err(TOO_LARGE),
            Self::Chunked(chunks) => {
                chunks.most = most;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Takes what is there of the body out of `input` and gives it to `sink`, unframed. Trailer fields, which come last,
    /// are returned when the body ends with some.
    pub fn take(&mut self, input: &mut Buffer, sink: impl FnMut(&[u8])) -> Result<Option<Vec<u8>>, Bad> {
        let mut sink = sink;
        match self {
            Self::Empty => Ok(None),
            Self::UntilClose => {
                sink(input.filled_part());
                input.consume(input.len());
                Ok(None)
            }
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                sink(&input.filled_part()[..count]);
                input.consume(count);
                self.passed(count);
                Ok(None)
            }
            Self::Chunked(chunks) => {
                let (used, over) = chunks.decode(input.filled_part(), sink)?;
                input.consume(used);
                let trailers = over.then(|| std::mem::take(&mut chunks.trailers));
                if over {
                    *self = Self::Empty;
                }
                Ok(trailers.filter(|trailers| !trailers.is_empty()))
            }
        }
    }

    /// `count` bytes of a body of known length have passed by another way.
    pub fn passed(&mut self, count: usize) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(count as u64);
            if *left == 0 {
                *self = Self::Empty;
            }
        }
    }
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As it is: its length is known to the reader, or the end of the connection ends it.
    Plain,
    Chunked,
}

impl Framing {
    pub fn data(self, out: &mut Vec<u8>, data: &[u8]) {
        match self {
            Self::Plain => out.extend_from_slice(data),
            Self::Chunked if data.is_empty() => {}
            Self::Chunked => {
                let _ = write!(out, "{:x}\r\n", data.len());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The end of the body. `trailers` are whole lines.
    pub fn end(self, out: &mut Vec<u8>, trailers: Option<&[u8]>) {
        if self == Self::Chunked {
            out.extend_from_slice(b"0\r\n");
            out.extend_from_slice(trailers.unwrap_or_default());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A reader of chunked bodies that takes its input in any pieces.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// Size of the chunk, then what is left of it.
    left: u64,
    digits: u8,
    extension: u32,
    trailers: Vec<u8>,
    /// Bytes of the body so far, and how many there may be; 0 is no limit.
    total: u64,
    most: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the line that ends the body.
    Trailer,
    TrailerLine,
    TrailerEnd,
    LastEnd,
    Over,
}

impl Chunks {
    /// Reads on. Returns how many bytes belonged to the body and whether it is over; bytes after it are not touched.
    pub fn decode(&mut self, input: &[u8], sink: impl FnMut(&[u8])) -> Result<(usize, bool), Bad> {
        let mut sink = sink;
        let mut at = 0;
        while at < input.len() && self.state != State::Over {
            if self.state == State::Data {
                let rest = &input[at..];
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                self.total += count as u64;
                if self.most > 0 && self.total > self.most {
                    return Err(TOO_LARGE);
                }
                sink(&rest[..count]);
                at += count;
                self.left -= count as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok((at, self.state == State::Over))
    }

    fn step(&mut self, byte: u8) -> Result<State, Bad> {
        match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte),
            (State::Size, b';') if self.digits > 0 => Ok(State::Extension),
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeEnd),
            (State::Size, _) => Err(Bad("a chunk size is not a number")),
            (State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension += 1;
                match self.extension {
                    ..=EXTENSION => Ok(State::Extension),
                    _ => Err(Bad("a chunk extension is too long")),
                }
            }
            (State::Extension, _) => Err(Bad("a chunk extension holds a control character")),
            (State::SizeEnd, b'\n') => Ok(self.sized()),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::Trailer, b'\r') => Ok(State::LastEnd),
            (State::Trailer | State::TrailerLine, b'\t' | b' '..=b'~' | 0x80..) => self.trailer(byte),
            (State::TrailerLine, b'\r') => {
                self.trailers.push(byte);
                Ok(State::TrailerEnd)
            }
            (State::TrailerEnd, b'\n') => {
                self.trailers.push(byte);
                Ok(State::Trailer)
            }
            (State::LastEnd, b'\n') => {
                self.trailers = super::parse::trailers(&self.trailers)?;
                Ok(State::Over)
            }
            _ => Err(Bad("a line of a chunked body does not end in CR LF")),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, Bad> {
        let value = char::from(byte).to_digit(16).unwrap_or_default();
        self.left = self.left << 4 | u64::from(value);
        self.digits += 1;
        match self.digits {
            ..=SIZE_DIGITS => Ok(State::Size),
            _ => Err(Bad("a chunk size is too large")),
        }
    }

    fn sized(&mut self) -> State {
        (self.digits, self.extension) = (0, 0);
        match self.left {
            0 => State::Trailer,
            _ => State::Data,
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Bad> {
        self.trailers.push(byte);
        match self.trailers.len() {
            ..TRAILERS => Ok(State::TrailerLine),
            _ => Err(Bad("the trailer fields are too long")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, the trailers, and how many bytes were used.
    type Decoded = (Vec<u8>, Vec<u8>, usize);

    fn decode(pieces: &[&[u8]]) -> Result<Option<Decoded>, Bad> {
        let (mut chunks, mut body, mut used) = (Chunks::default(), Vec::new(), 0);
        for piece in pieces {
            let (count, over) = chunks.decode(piece, |data| body.extend_from_slice(data))?;
            used += count;
            if over {
                return Ok(Some((body, chunks.trailers, used)));
            }
            assert_eq!(count, piece.len(), "a reader that wants more has used all");
        }
        Ok(None)
    }

    #[test]
    fn good_bodies() {
        for (input, body, trailers, rest) in [
            ("0\r\n\r\n", "", "", ""),
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", "", "GET"),
            ("00A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", "0123456789x", "", ""),
            ("5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n", "hello", "", ""),
            (
                "1\r\nx\r\n0\r\nGrpc-Status: 0\r\nA:b\r\n\r\n",
                "x",
                "Grpc-Status: 0\r\nA: b\r\n",
                "",
            ),
            (
                "0\r\nContent-Length: 5\r\nHost: x\r\nOk: 1\r\n\r\n",
                "",
                "Ok: 1\r\n",
                "",
            ),
        ] {
            let (got, fields, used) = decode(&[input.as_bytes()]).unwrap().unwrap();
            assert_eq!(got, body.as_bytes(), "{input:?}");
            assert_eq!(fields, trailers.as_bytes(), "{input:?}");
            assert_eq!(&input[used..], rest, "{input:?}");
        }
    }

    #[test]
    fn bad_bodies() {
        for input in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            " 1\r\n",
            "1 \r\nx\r\n",
            "0x1\r\nx\r\n",
            "1\nx\r\n",
            "1\r\nx\n",
            "1\r\nxy\r\n",
            "1\rx",
            "1000000000000000\r\n",
            ";a\r\n",
            "0\r\n\n",
            "0\r\n: x\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\0\r\n\r\n",
            "1;\0\r\nx\r\n",
        ] {
            assert!(decode(&[input.as_bytes()]).is_err(), "{input:?}");
        }
        assert!(decode(&[&[b"1;".as_slice(), &[b'a'; 300], b"\r\nx"].concat()]).is_err());
        assert!(decode(&[&[b"0\r\nA: ".as_slice(), &[b'a'; 9000]].concat()]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_alike_in_any_pieces(
            input in prop::collection::vec(prop_oneof![4 => prop::sample::select(b"0123fF;\r\n: aX".to_vec()), 1 => any::<u8>()], 0..200),
            cut in 0..200usize,
        ) {
            let cut = cut.min(input.len());
            let whole = decode(&[&input]);
            let parts = decode(&[&input[..cut], &input[cut..]]);
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn a_body_written_in_chunks_reads_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
            cuts in prop::collection::vec(0..600usize, 0..5),
            trailer in prop::bool::ANY,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                Framing::Chunked.data(&mut wire, chunk);
            }
            let fields = b"A: b\r\n";
            Framing::Chunked.end(&mut wire, trailer.then_some(fields.as_slice()));
            let length = wire.len();
            wire.extend_from_slice(b"next");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(length)).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
            let (body, trailers, used) = decode(&pieces).unwrap().unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(trailers.as_slice(), if trailer { fields.as_slice() } else { b"" });
            prop_assert_eq!(used, length);
        }
    }
}
