//! Integration tests: one binary, one scenario a function.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests")]
#![allow(clippy::large_futures, unreachable_pub, reason = "one binary")]

mod accuracy;
mod assets;
mod bench;
mod budget;
mod cache;
mod cameras;
mod client;
mod codecs;
mod control;
mod detect;
mod drain;
mod eval;
#[cfg(feature = "cuda")]
mod fake_cuda;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(feature = "cuda")]
mod gpu_runner;
#[cfg(feature = "cuda")]
mod gpu_sessions;
mod graphs;
#[cfg(feature = "cuda")]
mod half;
mod hardware;
mod history;
mod history_api;
#[cfg(feature = "cuda")]
mod in_place;
#[cfg(feature = "cuda")]
mod kernels;
mod kserve;
mod lifecycle;
mod live;
mod memory;
mod model_ops;
mod models;
mod narrow;
#[cfg(feature = "cuda")]
mod nvdec;
#[cfg(feature = "cuda")]
mod nvenc;
mod opening;
mod overload;
mod port;
mod program;
mod publisher;
mod pull;
mod quantize;
mod relay;
mod repository;
mod routes;
mod server;
mod sinks;
mod still;
mod stills;
mod tasks;
#[cfg(feature = "cuda")]
mod tensorrt;
mod tiers;
mod whep;
mod whip;
