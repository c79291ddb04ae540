//! Bounded hand-over between threads: a [`Mailbox`] for raw frames and a [`Fifo`] for what must not be reordered.
//!
//! A leaf: it imports no other module of this crate. Each queue says what happens when it is full and counts what it
//! drops. Neither ever blocks; whoever needs to sleep brings its own [`Waker`](std::task::Waker)-like wake-up.

mod fifo;
mod mailbox;

use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{Gauge, gauge};

pub use fifo::{Fifo, Full};
pub use mailbox::Mailbox;

/// Bytes that the system is asked to hold for each socket of media, each way: a quarter of a second of a hundred sessions. It
/// gives less where `net.core.rmem_max` and `net.core.wmem_max` are less.
pub const SOCKET_BYTES: usize = 4 << 20;

/// What one queue adds to the process's `saccade_queue_depth` of its name, until it is dropped.
struct Depth {
    gauge: Gauge,
    now: AtomicUsize,
}

impl Depth {
    fn new(name: &'static str) -> Self {
        Self { gauge: gauge!("saccade_queue_depth", "queue" => name), now: AtomicUsize::new(0) }
    }

    /// Called with the queue locked.
    #[expect(clippy::cast_precision_loss, reason = "a few items")]
    fn set(&self, items: usize) {
        let before = self.now.swap(items, Ordering::Relaxed);
        if items > before {
            self.gauge.increment((items - before) as f64);
        } else if items < before {
            self.gauge.decrement((before - items) as f64);
        }
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl std::fmt::Debug for Depth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.now.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn the_depth_of_queues_of_one_name_is_summed_and_leaves_with_them() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let shows = |depth: &str| {
            let line = format!("saccade_queue_depth{{queue=\"q\"}} {depth}");
            assert!(handle.render().lines().any(|found| found == line), "{line} is not in {}", handle.render());
        };
        metrics::with_local_recorder(&recorder, || {
            let (fifo, mailbox) = (Fifo::new("q", 3), Mailbox::new("q"));
            for item in 0..4 {
                let _ = fifo.push(item);
                mailbox.put(item);
            }
            shows("4");
            fifo.pop();
            mailbox.take();
            shows("2");
            fifo.clear();
            shows("0");
            let _ = fifo.push(1);
            mailbox.put(1);
            shows("2");
        });
        shows("0");
    }
}
