//! Work that takes long because there is much of it, such as hashes of pictures and large texts: it would hold up the
//! sockets that a Tokio worker serves.

use std::panic::resume_unwind;

use tokio::task::spawn_blocking;

/// Bytes beyond which there is much of it: hashing so many takes some hundred microseconds.
pub const LARGE: usize = 256 * 1024;

/// Does `work`, on a thread that may block where `elsewhere` says so; a panic of it is one here. Whoever drops the future
/// does not end it: it has to be bounded.
pub async fn offload<T: Send + 'static>(elsewhere: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
    if !elsewhere {
        return work();
    }
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn much_is_done_on_another_thread_and_little_at_once() {
        let here = thread::current().id();
        assert_eq!(offload(false, || thread::current().id()).await, here);
        assert_ne!(offload(true, || thread::current().id()).await, here);
    }

    #[tokio::test]
    #[should_panic(expected = "broken")]
    async fn a_panic_there_is_one_here() {
        offload(true, || panic!("broken")).await
    }
}
