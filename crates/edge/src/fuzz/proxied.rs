//! The word of a proxy.

use std::{
    future::Future,
    net::SocketAddr,
    task::{Context, Poll, Waker},
};

use crate::proxy;

/// Reads the word of a proxy from any bytes. What was read, written anew, must read the same.
///
/// # Panics
/// When it does not.
pub fn proxied(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut input = bytes;
        let mut reading = std::pin::pin!(proxy::read(&mut input));
        // Bytes in memory are never waited for.
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(word) => word,
            Poll::Pending => panic!("it waits for bytes that are there"),
        }
    };
    if let Ok(Some((from, to))) = read(bytes) {
        for again in [proxy::write_first(from, to), proxy::write_second(from, to)] {
            let word = read(&again).expect("what is written can be read");
            let same = |(a, b): (SocketAddr, SocketAddr)| (a.ip().to_canonical(), b.ip().to_canonical());
            assert!(
                word.is_none_or(|word| same(word) == same((from, to))),
                "another word"
            );
        }
    }
}
