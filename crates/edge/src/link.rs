//! One TCP connection, up or down, with its deadline; and the buffers that are read into.
//!
//! A deadline is a cell that the worker's watch compares with the time ten times a second. That costs nothing per
//! read, where a timer per read would cost more than parsing a request.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server::TlsStream};

use crate::target::Target;

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// What a connection is read from and written to.
pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// To a target that is elsewhere.
    Away(Box<client::TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            Self::Away(tls) => tls.get_ref().0,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, space),
            // Many end without saying so; what was read is whole, or its framing shows that it is not.
            Self::Tls(tls) => ended(Pin::new(tls).poll_read(cx, space)),
            Self::Away(tls) => ended(Pin::new(tls).poll_read(cx, space)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, data),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, data),
            Self::Away(tls) => Pin::new(tls).poll_write(cx, data),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Away(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Away(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Tls(tls) => {
                let (tcp, session) = tls.get_mut();
                poll_more(tcp, session.process_new_packets(), cx)
            }
            Self::Away(tls) => {
                let (tcp, session) = tls.get_mut();
                poll_more(tcp, session.process_new_packets(), cx)
            }
        }
    }
}

/// The end of a connection of TLS, said or not.
fn ended(read: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
    match read {
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
        read => read,
    }
}

/// Whether there is something to read behind a session of TLS.
fn poll_more(
    tcp: &TcpStream,
    state: Result<rustls::IoState, rustls::Error>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if state.map_err(io::Error::other)?.plaintext_bytes_to_read() > 0 {
        return Poll::Ready(Ok(()));
    }
    // What the handshake has left of the runtime's word is old: the kernel is asked.
    tcp.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map_ok(|_| ())
}

/// One connection. All waiting on it happens on one task.
pub struct Link {
    io: RefCell<Stream>,
    /// The tick at which waiting ends.
    deadline: Cell<u64>,
    expired: Cell<bool>,
    /// A client that is between two requests.
    idle: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Bytes that were read and written.
    moved: Cell<(u64, u64)>,
    /// The target, when this is a connection to one.
    pub target: Option<Target>,
}

impl Link {
    pub fn new(stream: Stream, target: Option<Target>) -> Self {
        // Heads and bodies go out in one send; waiting for more would only delay them.
        let _ = stream.tcp().set_nodelay(true);
        Self {
            io: RefCell::new(stream),
            deadline: Cell::new(NEVER),
            expired: Cell::new(false),
            idle: Cell::new(false),
            waker: RefCell::new(None),
            moved: Cell::default(),
            target,
        }
    }

    /// Waiting ends at this tick, with `TimedOut`.
    pub fn arm(&self, deadline: u64) {
        self.deadline.set(deadline);
    }

    pub fn set_idle(&self, idle: bool) {
        self.idle.set(idle);
    }

    pub fn is_idle(&self) -> bool {
        self.idle.get()
    }

    /// Bytes that were read and written so far; without TLS.
    pub fn moved(&self) -> (u64, u64) {
        self.moved.get()
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            let (read, before) = self.moved.get();
            self.moved.set((read, before + *count as u64));
        }
        written
    }

    pub fn has_expired(&self) -> bool {
        self.expired.get()
    }

    /// Ends all waiting if the deadline, or the time of a leaving target, is over.
    pub fn watch(&self, tick: u64) {
        let gone = self.target.as_ref().is_some_and(|target| target.is_gone(tick));
        if tick >= self.deadline.get() || gone {
            self.cut();
        }
    }

    /// Ends all waiting, now and from now on.
    pub fn cut(&self) {
        self.expired.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        if self.expired.get() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut held = self.waker.borrow_mut();
        if !held.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *held = Some(cx.waker().clone());
        }
        Ok(())
    }

    fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let mut space = ReadBuf::new(space);
        match self.io.borrow_mut().poll_read(cx, &mut space) {
            Poll::Ready(result) => {
                let count = space.filled().len();
                let (before, written) = self.moved.get();
                self.moved.set((before + count as u64, written));
                Poll::Ready(result.map(|()| count))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        self.wrote(self.io.borrow_mut().poll_write(cx, data))
    }

    /// Until what was written has left for the kernel. Only TLS holds something back.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        self.io.borrow_mut().poll_flush(cx)
    }

    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.borrow_mut().poll_shutdown(cx)
    }

    /// Until there is something to read, the end included.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            self.check(cx)?;
            self.io.borrow_mut().poll_readable(cx)
        })
        .await
    }

    /// Reads once, under the deadline that is set. `Ok(0)` is the end.
    pub async fn read(&self, buffer: &mut Buffer) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, buffer)).await
    }

    /// Reads once, until a tick; afterwards there is no deadline. Waiting for the other side of a proxy must not count.
    pub async fn read_until(&self, buffer: &mut Buffer, deadline: u64) -> io::Result<usize> {
        self.arm(deadline);
        let read = self.read(buffer).await;
        self.arm(NEVER);
        read
    }

    pub fn poll_fill(&self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let read = self.poll_read(cx, buffer.space());
        if let Poll::Ready(Ok(count)) = read {
            buffer.filled(count);
        }
        read
    }

    /// Writes all, under the deadline that is set.
    pub async fn write_all(&self, data: &[u8]) -> io::Result<()> {
        self.write_from(data, &mut 0).await
    }

    /// Writes all, until a tick; afterwards there is no deadline.
    pub async fn write_until(&self, data: &[u8], deadline: u64) -> io::Result<()> {
        self.arm(deadline);
        let written = self.write_all(data).await;
        self.arm(NEVER);
        written
    }

    /// Writes all, and says how much the kernel has taken when it fails.
    pub async fn write_from(&self, data: &[u8], sent: &mut usize) -> io::Result<()> {
        while *sent < data.len() {
            match poll_fn(|cx| self.poll_write(cx, &data[*sent..])).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => *sent += written,
            }
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Writes what the kernel takes at once, even when waiting is over.
    pub fn write_now(&self, data: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut io = self.io.borrow_mut();
        if self.wrote(io.poll_write(&mut cx, data)).is_ready() {
            let _ = io.poll_flush(&mut cx);
        }
    }

    /// Nothing more will be written.
    pub async fn finish(&self) {
        let _ = poll_fn(|cx| self.poll_shutdown(cx)).await;
    }

    /// Is an idle connection still good? A closed one, or one that speaks out of turn, is not. This asks the runtime,
    /// which asks the kernel only when the kernel has said something.
    pub fn is_fresh(&self) -> bool {
        let silent =
            |result: io::Result<usize>| matches!(result, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        !self.expired.get() && silent(self.io.borrow().tcp().try_read(&mut [0]))
    }

    /// The same, asking the kernel itself.
    pub fn is_fresh_now(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.is_fresh()
            && recv(self.io.borrow().tcp(), &mut [0; 1], flags)
                .is_err_and(|error| error == rustix::io::Errno::AGAIN)
    }
}

/// What buffers start with, and what they may grow to while a large body passes.
pub const SMALL: usize = 8 * 1024;
pub const LARGE: usize = 64 * 1024;

/// Bytes that have been read and not yet been used.
#[derive(Default)]
pub struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn filled_part(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where the next read goes; never empty below `LARGE` unread bytes, nor where `hold` was told of more.
    fn space(&mut self) -> &mut [u8] {
        if self.end == self.data.len() {
            if self.start > 0 {
                self.data.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.len());
            } else {
                let size = (self.data.len() * 2).clamp(SMALL, LARGE);
                self.data.resize(size.max(self.data.len()), 0);
            }
        }
        &mut self.data[self.end..]
    }

    fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// Before a read of what has to be there whole, of up to `most` bytes: room for more of it, where it fills the buffer
    /// at its largest.
    pub fn hold(&mut self, most: usize) {
        if self.len() == self.data.len() && self.len() >= LARGE {
            let size = (self.data.len() * 2).min(most);
            self.data.resize(size.max(self.data.len()), 0);
        }
    }

    /// After a read that filled the buffer: room for a body that is larger.
    pub fn widen(&mut self) {
        if self.end == self.data.len() && self.data.len() < LARGE {
            self.data.resize(LARGE, 0);
        }
    }

    fn is_small(&self) -> bool {
        self.data.len() <= SMALL
    }
}

/// Buffers in waiting: connections that are idle hold none.
#[derive(Default)]
pub struct Buffers(RefCell<Vec<Buffer>>);

impl Buffers {
    pub fn take(&self) -> Buffer {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give(&self, mut buffer: Buffer) {
        const KEPT: usize = 256;
        let mut kept = self.0.borrow_mut();
        // An empty one in waiting would be filled beside those that are there already.
        if buffer.is_small() && !buffer.data.is_empty() && kept.len() < KEPT {
            (buffer.start, buffer.end) = (0, 0);
            kept.push(buffer);
        }
    }
}
