use std::time::{Duration, Instant};

use crate::clock;
use crate::config::Config;
use crate::traces::{Collector, Running, Tracer};

/// How long the last spans may take to get to the collector: a dead one is not to hold the process up for the whole grace.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Begins to trace, where the configuration names a collector.
pub(super) fn start(config: &Config) -> Result<(Tracer, Option<Running>), String> {
    let Some(traces) = &config.telemetry.traces else { return Ok((Tracer::off(), None)) };
    let collector = Collector {
        url: traces.url.clone(),
        headers: traces.headers.clone(),
        instance: uuid::Uuid::new_v4().to_string(),
    };
    let (tracer, running) = Tracer::start(collector, traces.sampling)?;
    Ok((tracer, Some(running)))
}

/// Hands on what waits, until `last` at most.
pub(super) async fn close(running: Option<Running>, last: Instant) {
    if let Some(running) = running {
        running.close(last.min(clock::now() + FLUSH_LIMIT)).await;
    }
}
