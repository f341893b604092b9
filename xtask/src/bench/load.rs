//! Visitors who never rest, half of them with a connection for each request. Each answer that is not a 200 of the
//! app, and each connection that fails, is a lost request.

use std::{
    io::{BufRead as _, BufReader, Error, Read as _, Result, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Visitors of each of the two kinds.
const VISITORS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);
/// Lost requests that are told in full.
const TOLD: usize = 20;

pub struct Load {
    stop: Arc<AtomicBool>,
    visitors: Vec<JoinHandle<Seen>>,
    losses: Arc<Mutex<Vec<String>>>,
}

/// What visitors saw.
#[derive(Default)]
pub struct Seen {
    pub requests: u64,
    pub lost: u64,
    /// The first of the lost ones.
    pub losses: Vec<String>,
    /// Of good answers, in milliseconds.
    pub latencies: Vec<f64>,
}

impl Load {
    /// Begins. A good answer holds `text`.
    pub fn on(edge: &str, host: &str, text: &str) -> Self {
        let (stop, losses) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let visitors = (0..2 * VISITORS).map(|number| {
            let visitor = Visitor {
                edge: edge.to_owned(),
                host: host.to_owned(),
                text: text.to_owned(),
                keep: number % 2 == 1,
                stop: Arc::clone(&stop),
                losses: Arc::clone(&losses),
            };
            std::thread::spawn(move || visitor.run())
        });
        let visitors = visitors.collect();
        Self {
            stop,
            visitors,
            losses,
        }
    }

    pub fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for visitor in std::mem::take(&mut self.visitors) {
            let seen = visitor.join().unwrap_or_else(|_| Seen {
                lost: 1,
                ..Seen::default()
            });
            all.requests += seen.requests;
            all.lost += seen.lost;
            all.latencies.extend(seen.latencies);
        }
        all.losses = std::mem::take(&mut *self.losses.lock().unwrap_or_else(PoisonError::into_inner));
        all
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Visitor {
    edge: String,
    host: String,
    text: String,
    keep: bool,
    stop: Arc<AtomicBool>,
    losses: Arc<Mutex<Vec<String>>>,
}

impl Visitor {
    fn run(self) -> Seen {
        let (mut seen, mut connection) = (Seen::default(), None);
        while !self.stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            seen.requests += 1;
            match self.visit(&mut connection) {
                Ok((200, body)) if body.contains(&self.text) => {
                    seen.latencies.push(started.elapsed().as_secs_f64() * 1e3);
                }
                other => {
                    connection = None;
                    seen.lost += 1;
                    self.lost(&other);
                }
            }
            std::thread::sleep(PAUSE);
        }
        seen
    }

    fn lost(&self, what: &Result<(u16, String)>) {
        let how = if self.keep {
            "kept connection"
        } else {
            "new connection"
        };
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        if losses.len() < TOLD {
            let text = format!("{what:?}");
            losses.push(format!("{how}: {}", text.chars().take(300).collect::<String>()));
        }
    }

    /// One request. The connection is kept when both sides want to.
    fn visit(&self, connection: &mut Option<BufReader<TcpStream>>) -> Result<(u16, String)> {
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.edge)?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let close = if self.keep { "" } else { "Connection: close\r\n" };
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n{close}\r\n", self.host);
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = answer(&mut stream)?;
        if self.keep && !answer.close {
            *connection = Some(stream);
        }
        Ok((answer.status, answer.body))
    }
}

struct Answer {
    status: u16,
    body: String,
    close: bool,
}

/// Reads one answer: with a length, in chunks, or up to the end of the connection.
fn answer(stream: &mut BufReader<TcpStream>) -> Result<Answer> {
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::other(format!("no status line: {first:?}")))?;
    let (mut length, mut chunked, mut close) = (None, false, false);
    loop {
        let field = line(stream)?.to_ascii_lowercase();
        match field.split_once(':') {
            _ if field.is_empty() => break,
            Some(("content-length", value)) => length = value.trim().parse::<usize>().ok(),
            Some(("transfer-encoding", _)) => chunked = true,
            Some(("connection", value)) => close = value.trim() == "close",
            _ => {}
        }
    }
    let mut body = Vec::new();
    match length {
        _ if chunked => chunks(stream, &mut body)?,
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None => {
            close = true;
            stream.read_to_end(&mut body)?;
        }
    }
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
        close,
    })
}

fn chunks(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let size = line(stream)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| Error::other("no chunk size"))?;
        let before = body.len();
        body.resize(before + size, 0);
        stream.read_exact(&mut body[before..])?;
        line(stream)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut text = String::new();
    match stream.read_line(&mut text)? {
        0 => Err(Error::other("the connection ended before the answer")),
        _ => Ok(text.trim_end().to_owned()),
    }
}
