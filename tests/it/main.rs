//! Integration tests: one binary, one scenario a function.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod accuracy;
mod assets;
mod models;
