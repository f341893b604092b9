//! What follows an upgrade: bytes both ways, until both sides are done or nothing has moved for too long.

use std::io;

use crate::{
    link::{Buffer, Link},
    worker::Worker,
};

/// One way of a tunnel, with what has been read ahead.
struct Way<'a> {
    worker: &'a Worker,
    from: &'a Link,
    to: &'a Link,
}

impl Way<'_> {
    async fn carry(&self, buffer: &mut Buffer, moved: &mut u64) -> io::Result<()> {
        loop {
            self.stir();
            if buffer.is_empty() && self.from.read(buffer).await? == 0 {
                self.to.finish().await;
                return Ok(());
            }
            self.stir();
            self.to.write_all(buffer.filled_part()).await?;
            *moved += buffer.len() as u64;
            buffer.consume(buffer.len());
        }
    }

    /// Traffic one way keeps both ways open.
    fn stir(&self) {
        let until = self.worker.after(self.worker.limits().tunnel);
        self.from.arm(until);
        self.to.arm(until);
    }
}

/// Carries until the end. Returns the bytes moved to the target and back.
pub async fn carry(
    worker: &Worker,
    (client, from_client): (&Link, &mut Buffer),
    (target, from_target): (&Link, &mut Buffer),
) -> (u64, u64) {
    let (mut up, mut down) = (0, 0);
    let there = Way {
        worker,
        from: client,
        to: target,
    };
    let back = Way {
        worker,
        from: target,
        to: client,
    };
    // An error one way, a time-out included, is the end of both.
    let _ = tokio::try_join!(
        there.carry(from_client, &mut up),
        back.carry(from_target, &mut down)
    );
    (up, down)
}
