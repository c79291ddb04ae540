//! Saccade: a real-time WebRTC vision server.
//!
//! Live video comes in over WebRTC, is decoded, run through a model within the session's latency budget, and goes back
//! annotated, together with results that name the exact frame they belong to.

pub mod accuracy;
pub mod annotate;
pub mod app;
pub mod assignment;
pub mod cache;
pub mod calibration;
pub mod camera;
pub mod child;
pub mod claims;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod decode;
pub mod degrade;
#[cfg(feature = "cuda")]
pub mod device;
pub mod doctor;
pub mod draw;
pub mod egress;
pub mod encode;
pub mod estimate;
pub mod frame;
pub mod hardware;
pub mod history;
pub mod http;
pub mod ice;
pub mod infer;
pub mod ingest;
pub mod kserve;
pub mod media;
pub mod models;
pub mod offload;
pub mod openapi;
pub mod pipeline;
pub mod queue;
pub mod reload;
pub mod route;
pub mod rtc;
pub mod scene;
pub mod secret;
pub mod session;
pub mod sinks;
pub mod state;
pub mod stillness;
pub mod stills;
pub mod telemetry;
pub mod token;
pub mod tracker;
pub mod tuning;
pub mod zones;
