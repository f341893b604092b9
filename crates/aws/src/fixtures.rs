//! What services of tests share that stand in for AWS's.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpStream,
};

/// One request: its first line, and its body.
pub fn asked(stream: &TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).expect("a request");
    while reader.read_line(&mut line).expect("a line of its head") > 2 {
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.trim().parse().expect("a number of bytes");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body of that length");
    (first, body)
}
