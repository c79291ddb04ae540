//! What the process says about itself: log lines and metrics.
//!
//! Every module may write log lines (`tracing`) and metrics (the macros of the `metrics` crate). This module decides
//! where they go. It runs on no thread of its own; [`metrics::Handle::upkeep`] is called from a timer of the app.
//! Of samples that were traced, [`exemplars`] keeps the trace. Session ids, addresses and free text never become labels of a metric; names of cameras do, since they are configuration.

mod every_second;
pub mod exemplars;
mod logs;
pub mod metrics;
pub mod open_metrics;

pub use every_second::EverySecond;
pub use logs::{LogFormat, init as init_logs, is_filter as is_log_filter};
