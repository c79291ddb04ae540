//! What the runner does, apart from its command line: tests have it do the same on a GPU that is none.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "measurements"
)]
#![allow(dead_code, unreachable_pub, reason = "the command line and tests each need a part")]

pub mod clips;
pub mod comparisons;
pub mod decode;
pub mod files;
pub mod goldens;
pub mod gpu;
pub mod graphs;
pub mod kernels;
pub mod making;
pub mod numbers;
pub mod peers;
pub mod probe;
pub mod report;
pub mod sessions;
pub mod sweep;
pub mod usage;

pub use report::{Report, Stop};
