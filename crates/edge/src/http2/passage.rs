//! What passes between one client and one target that both speak HTTP/2: the body of a request there, that of its answer
//! back, as they come.
//!
//! Both are read by others than the task of the request. So it looks here at what moves, and cuts what stands still.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::{
    HeaderMap,
    body::{Body, Bytes, Frame, Incoming},
};
use tokio::sync::{Notify, oneshot};

use crate::{
    clock,
    http1::{frame::TOO_LARGE, relay::Fail},
    upstream::Limits,
};

/// How an answer ended.
pub type End = Result<(), Fail>;

/// Both ways of one request.
#[derive(Default)]
pub struct Passage {
    up: Way,
    down: Way,
    /// Bytes of the request's body, where they are logged.
    count: Option<Rc<Cell<u64>>>,
    /// Bytes that the request's body may have; 0 is no limit.
    most: u64,
    /// It has more.
    too_large: Notify,
    /// What a client is told then that has the beginning of an answer: in its trailers, where it reads them.
    last: RefCell<Option<HeaderMap>>,
    /// The tick at which something moved last.
    moved: Cell<u64>,
    cut: Cell<bool>,
}

/// One of them.
#[derive(Default)]
struct Way {
    body: RefCell<Option<Incoming>>,
    /// Bytes that have passed.
    bytes: Cell<u64>,
    /// Something has passed.
    begun: Cell<bool>,
    /// Whoever sends it is waited for.
    waits: Cell<bool>,
    /// Who reads it.
    reader: RefCell<Option<Waker>>,
}

impl Way {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut body = self.body.borrow_mut();
        let Some(incoming) = body.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(incoming).poll_frame(cx);
        self.waits.set(frame.is_pending());
        match &frame {
            Poll::Pending => *self.reader.borrow_mut() = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(frame))) => {
                self.begun.set(true);
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.bytes.set(self.bytes.get() + bytes);
            }
            Poll::Ready(_) => {}
        }
        frame.map_err(io::Error::other)
    }

    fn is_over(&self) -> bool {
        self.body.borrow().as_ref().is_none_or(Incoming::is_end_stream)
    }

    /// Nothing more passes.
    fn close(&self) {
        self.body.take();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Passage {
    /// For a request with this body, of which no more than so many bytes may pass.
    pub fn new(body: Option<Incoming>, count: Option<Rc<Cell<u64>>>, most: u64) -> Rc<Self> {
        let new = Self {
            count,
            most,
            ..Self::default()
        };
        *new.up.body.borrow_mut() = body;
        new.moved.set(clock::ticks());
        Rc::new(new)
    }

    /// Ends an answer with these trailers, in the place of cutting it, when the request has too much.
    pub fn end_with(&self, trailers: HeaderMap) {
        *self.last.borrow_mut() = Some(trailers);
    }

    /// What is left of the request's body, and whether that is all of it. Nothing more passes here.
    pub fn take_back(&self) -> (Option<Incoming>, bool) {
        let body = self.up.body.take();
        self.cut();
        (body, !self.up.begun.get())
    }

    /// The answer begins: its body, and what tells how that ended.
    pub fn back(self: &Rc<Self>, body: Incoming) -> (Passing, oneshot::Receiver<End>) {
        let (over, ended) = oneshot::channel();
        let end = if body.is_end_stream() {
            Ok(())
        } else {
            Err(Fail::ClientGone)
        };
        *self.down.body.borrow_mut() = Some(body);
        self.moved.set(clock::ticks());
        let passing = Passing {
            passage: Rc::clone(self),
            over: Some((over, end)),
        };
        (passing, ended)
    }

    /// Bytes of the answer's body that have passed.
    pub fn bytes(&self) -> u64 {
        self.down.bytes.get()
    }

    /// Until nothing has moved for longer than it may, or more than may: then, what that means.
    pub async fn still(&self, limits: Limits) -> Fail {
        let look = limits.idle.min(limits.upstream) / 4;
        loop {
            let (patience, meaning) = self.patience(&limits);
            let since = clock::ticks().saturating_sub(self.moved.get());
            let left = patience.saturating_sub(Duration::from_millis(since));
            if left.is_zero() {
                return meaning;
            }
            tokio::select! {
                () = self.too_large.notified() => return Fail::ClientBad(TOO_LARGE),
                // Whoever is waited for may change meanwhile.
                () = tokio::time::sleep(left.min(look)) => {}
            }
        }
    }

    /// Who may take how long for the next step, and what it means when they take longer. While the client may say
    /// something as well, a target that says nothing is not to blame.
    fn patience(&self, limits: &Limits) -> (Duration, Fail) {
        let begun = self.down.body.borrow().is_some();
        match (begun, self.up.waits.get(), self.down.waits.get()) {
            (false, true, _) => (limits.idle, Fail::ClientLate),
            (false, false, _) => (limits.upstream, Fail::Late),
            (true, true, true) => (limits.idle.max(limits.upstream), Fail::ClientLate),
            (true, false, true) => (limits.upstream, Fail::Broken),
            // It does not read.
            (true, _, false) => (limits.idle, Fail::ClientGone),
        }
    }

    /// Ends both ways: neither side may take the part that it has for the whole.
    pub fn cut(&self) {
        self.cut.set(true);
        self.up.close();
        self.down.close();
    }

    fn has_too_much(&self) -> bool {
        self.most > 0 && self.up.bytes.get() > self.most
    }

    /// Ends the request when its body is larger than it may be. What the client still sends stays to be read: it is to
    /// hear why.
    fn is_too_large(&self) -> bool {
        let is = self.has_too_much();
        if is && !self.cut.replace(true) {
            self.down.close();
            self.too_large.notify_one();
        }
        is
    }

    fn poll(&self, way: &Way, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.cut.get() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let frame = way.poll(cx);
        if frame.is_ready() {
            self.moved.set(clock::ticks());
        }
        frame
    }
}

/// The body of a request on its way to a target.
pub struct Up(pub Rc<Passage>);

impl Body for Up {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = self.0.poll(&self.0.up, cx);
        if let Some(count) = &self.0.count {
            count.set(self.0.up.bytes.get());
        }
        match self.0.is_too_large() {
            true => Poll::Ready(Some(Err(io::ErrorKind::FileTooLarge.into()))),
            false => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.0.cut.get() && self.0.up.is_over()
    }
}

/// The body of an answer on its way to a client; its end, in whatever way, is told.
pub struct Passing {
    passage: Rc<Passage>,
    /// Who is told, and what as things are.
    over: Option<(oneshot::Sender<End>, End)>,
}

impl Passing {
    pub fn is_end_stream(&self) -> bool {
        !self.passage.cut.get() && self.passage.down.is_over()
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.passage.has_too_much()
            && let Some(trailers) = self.passage.last.take()
        {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = self.passage.poll(&self.passage.down, cx);
        if let Some((_, end)) = &mut self.over {
            match &frame {
                Poll::Ready(None) => *end = Ok(()),
                Poll::Ready(Some(Ok(_))) if self.passage.down.is_over() => *end = Ok(()),
                Poll::Ready(Some(Err(_))) => *end = Err(Fail::Broken),
                _ => {}
            }
        }
        frame
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // A target whose answer nobody wants is told so.
        self.passage.down.close();
        if let Some((over, end)) = self.over.take() {
            let _ = over.send(end);
        }
    }
}
