//! Work beside the loop, of which nothing is lost when it ends badly.

use tokio::task::JoinSet;
use tracing::error;

/// What the work comes to; when it panics, that is said and something else is done.
pub(crate) async fn whole<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    otherwise: impl FnOnce() -> T,
) -> T {
    // It ends with whoever waits for it.
    let mut one = JoinSet::new();
    one.spawn(work);
    match one.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) => {
            error!("work beside the loop ended badly: {error}");
            otherwise()
        }
        None => otherwise(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_is_replaced() {
        assert_eq!(whole(async { 1 }, || 2).await, 1);
        assert_eq!(whole(async { panic!("on purpose") }, || 2).await, 2);
    }
}
