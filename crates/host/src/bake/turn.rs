//! Who makes a layer, who waits for it, and when nobody does any more.

use tokio::sync::watch;

use crate::ticket::Stop;

/// The making of one layer. Who makes it holds the lock.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub lock: tokio::sync::Mutex<()>,
    /// How many bakes wait for the layer.
    waiting: watch::Sender<usize>,
}

/// One more that waits, until it is dropped.
pub(super) struct Waits<'a>(&'a Turn);

impl<'a> Waits<'a> {
    pub fn new(turn: &'a Turn) -> Self {
        turn.waiting.send_modify(|count| *count += 1);
        Self(turn)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|count| *count -= 1);
    }
}

/// When the making of a layer ends early: when its bake is to stop and no other waits for the layer.
pub(super) struct Unwanted<'a> {
    pub stop: Stop,
    pub turn: &'a Turn,
}

impl Unwanted<'_> {
    pub async fn wait(&mut self) {
        self.stop.asked().await;
        // The sender lives as long as the turn.
        let _ = self.turn.waiting.subscribe().wait_for(|count| *count == 0).await;
    }
}
