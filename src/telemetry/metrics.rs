//! Metrics: one table of all names, and the recorder that renders them for Prometheus.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// How often [`Handle::upkeep`] wants to be called: samples of histograms wait in memory until then.
pub const UPKEEP: Duration = Duration::from_secs(5);

/// Bucket bounds of every latency histogram, in seconds.
pub const LATENCY_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Bucket bounds of `saccade_batch_size`, in frames.
pub const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 8.0, 16.0, 24.0, 32.0];

/// Bucket bounds of histograms of shares.
pub const RATIO_BUCKETS: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts samples in buckets.
    Histogram,
}

/// One metric that the process exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name as Prometheus sees it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts, with its unit.
    pub help: &'static str,
}

macro_rules! table {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )+

        /// Every metric of ours; `deploy/METRICS.md` documents each.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }),+
        ];
    };
}

table! {
    SESSIONS_ACTIVE = Gauge "saccade_sessions_active" [] "Sessions that are open now.";
    CAMERA_UP = Gauge "saccade_camera_up" ["camera"] "1 while a configured camera is connected, else 0.";
    CAMERA_CONNECTS_TOTAL = Counter "saccade_camera_connects_total" ["camera"] "Connections over which a configured camera began to send.";
    CAMERA_FAILURES_TOTAL = Counter "saccade_camera_failures_total" ["camera", "reason"] "Tries and connections that failed, of a configured camera.";
    SESSIONS_TOTAL = Counter "saccade_sessions_total" ["end_reason"] "Sessions that ended.";
    VIEWERS_ACTIVE = Gauge "saccade_viewers_active" [] "Viewers of sessions that are connected or about to be.";
    VIEWERS_TOTAL = Counter "saccade_viewers_total" ["end_reason"] "Viewers that left.";
    ADMISSION_REJECTED_TOTAL = Counter "saccade_admission_rejected_total" ["reason"] "Sessions and viewers that were not admitted.";
    FRAMES_TOTAL = Counter "saccade_frames_total" ["stage", "outcome"] "Frames that a stage finished.";
    RTC_DATAGRAMS_DROPPED_TOTAL = Counter "saccade_rtc_datagrams_dropped_total" ["reason"] "Datagrams and connections of the media port that reached no session or were not sent: of strangers, or for want of room.";
    FRAMES_DROPPED_TOTAL = Counter "saccade_frames_dropped_total" ["stage", "reason"] "Frames that a stage dropped by choice.";
    DECODE_TAKEOVERS_TOTAL = Counter "saccade_decode_takeovers_total" ["reason"] "Streams that software went on decoding because a GPU could not.";
    DRAW_REFUSED_TOTAL = Counter "saccade_draw_refused_total" [] "Shapes that were not drawn on a picture on a GPU, because it had more than is recorded.";
    DRAW_TAKEOVERS_TOTAL = Counter "saccade_draw_takeovers_total" [] "Pictures on a GPU that the host drew on because the GPU could not.";
    ENCODE_TAKEOVERS_TOTAL = Counter "saccade_encode_takeovers_total" ["reason"] "Streams that software went on encoding because a GPU could not.";
    STAGE_DURATION_SECONDS = Histogram "saccade_stage_duration_seconds" ["stage"] "Service time of a stage for one frame, in seconds; with a model, the time of its whole batch for each frame in it.";
    FRAME_LATENCY_SECONDS = Histogram "saccade_frame_latency_seconds" ["path"] "Last packet in to result or first packet out, in seconds.";
    BUDGET_MISSED_TOTAL = Counter "saccade_budget_missed_total" [] "Processed frames that left after their session's latency budget.";
    BATCH_SIZE = Histogram "saccade_batch_size" [] "Frames that ran through a model together.";
    QUEUE_WAIT_SECONDS = Histogram "saccade_queue_wait_seconds" ["queue"] "Time between entering and leaving a queue, in seconds.";
    QUEUE_DEPTH = Gauge "saccade_queue_depth" ["queue"] "Items that wait in the queues of this name now.";
    INFERENCE_SECONDS = Histogram "saccade_inference_seconds" ["model"] "Time that a model took for one batch, in seconds.";
    INFERENCE_IN_FLIGHT = Gauge "saccade_inference_in_flight" [] "Batches that run now.";
    MODEL_CHANGES_TOTAL = Counter "saccade_model_changes_total" ["model"] "Models that were run another way from then on, such as on TensorRT once its engines were built.";
    MODEL_RESTARTS_TOTAL = Counter "saccade_model_restarts_total" ["model"] "Model instances that were started again after a fault.";
    MODELS = Gauge "saccade_models" ["state"] "Models of the repository, by what they are up to.";
    MODEL_LOADS_TOTAL = Counter "saccade_model_loads_total" ["outcome"] "Versions of models that were loaded, refused, or had to make way for the version before.";
    MODEL_REFUSALS_TOTAL = Counter "saccade_model_refusals_total" ["reason"] "Versions of models that could not be used.";
    MODEL_SWAPS_TOTAL = Counter "saccade_model_swaps_total" [] "Versions that took the place of another one while the server ran.";
    MODEL_ROLLBACKS_TOTAL = Counter "saccade_model_rollbacks_total" ["reason"] "Versions that had to make way for the one before: they were slower (`p95`), failed more often (`errors`) or altogether (`failed`).";
    SESSION_MODEL_MOVES_TOTAL = Counter "saccade_session_model_moves_total" ["outcome"] "Sessions that moved to another version of their model, or were kept from that by their options.";
    ROUTES_UNSAVED_TOTAL = Counter "saccade_routes_unsaved_total" [] "Changes of routes that could not be written to their file.";
    DEGRADED_SESSIONS = Gauge "saccade_degraded_sessions" ["step"] "Sessions that give something up now, by step of the ladder.";
    DEGRADATION_CHANGES_TOTAL = Counter "saccade_degradation_changes_total" [] "Times that the sessions of a model gave something up or took it back.";
    PROCESSORS = Gauge "saccade_processors" [] "Processors that the server may use.";
    PROCESSORS_BUSY_RATIO = Gauge "saccade_processors_busy_ratio" [] "Share of the processors that was busy in the last second, with whatever, 0 to 1.";
    BUSY_PROCESSORS = Gauge "saccade_busy_processors" ["threads"] "Processors that threads of a kind kept busy in the last second.";
    CODEC_THREADS = Gauge "saccade_codec_threads" [] "Threads for decoding, drawing and encoding.";
    MODEL_FRAME_SECONDS = Gauge "saccade_model_frame_seconds" ["model"] "Time that a frame alone takes a model, as it is estimated now, in seconds.";
    MODEL_INSTANCES = Gauge "saccade_model_instances" ["model"] "Instances of a model that can run at a time.";
    MEMORY_USED_RATIO = Gauge "saccade_memory_used_ratio" ["kind"] "Share of memory that is in use, 0 to 1; of several GPUs that of the fullest.";
    MEMORY_LEVEL = Gauge "saccade_memory_level" ["kind"] "What that means: 0 enough, 1 above `memory.warn_ratio`, 2 above `memory.shed_ratio`, where caches are emptied and nothing new is begun.";
    MEMORY_SHEDS_TOTAL = Counter "saccade_memory_sheds_total" ["kind"] "Times that caches were emptied for want of memory.";
    MEMORY_REFUSED_TOTAL = Counter "saccade_memory_refused_total" ["work"] "Work that was not begun for want of memory: `session`, `viewer`, `camera`, `picture` or `tensors`.";
    LOAD_RATIO = Gauge "saccade_load_ratio" ["resource"] "Share of the processors and of the network that the sessions need at the least that they can do with.";
    DEVICE_UTILIZATION_RATIO = Gauge "saccade_device_utilization_ratio" ["device", "engine"] "Share of the time in which an engine of a GPU (`sm`, `decoder`, `encoder`) had something to do, 0 to 1.";
    DEVICE_MEMORY_BYTES = Gauge "saccade_device_memory_bytes" ["device"] "Memory of a GPU that is in use, by whoever, in bytes.";
    DEVICE_MEMORY_TOTAL_BYTES = Gauge "saccade_device_memory_total_bytes" ["device"] "Memory of a GPU, in bytes.";
    DEVICE_TEMPERATURE_CELSIUS = Gauge "saccade_device_temperature_celsius" ["device"] "Temperature of a GPU, in degrees Celsius.";
    DEVICE_POWER_WATTS = Gauge "saccade_device_power_watts" ["device"] "Power that a GPU draws, in watts.";
    DEVICE_WATCH_FAILURES_TOTAL = Counter "saccade_device_watch_failures_total" [] "Times that the GPUs could not be asked how they are.";
    TENSORS_LEFT_OUT_TOTAL = Counter "saccade_tensors_left_out_total" ["model"] "Raw tensors whose values were left out of a result, because a message has no room for so many.";
    SHADOW_FRAMES_TOTAL = Counter "saccade_shadow_frames_total" ["model"] "Frames of which what a shadow found was compared with what was answered.";
    SHADOW_AGREEMENT_RATIO = Histogram "saccade_shadow_agreement_ratio" ["model"] "Mean overlap of what a shadow found with what was answered, by frame, 0 to 1.";
    STILL_GATE_FRAMES_TOTAL = Counter "saccade_still_gate_frames_total" ["outcome"] "Frames of sessions with `session.still_gate`, by whether the last result was given again (`reused`: the model was not asked) or the model was asked, because the scene `changed`, the result had `aged`, or to see whether it would have done (`checked`).";
    STILL_GATE_AGREEMENT_RATIO = Histogram "saccade_still_gate_agreement_ratio" [] "Mean overlap of what a model found in a checked frame with the result that would have been given again, 0 to 1.";
    CACHE_REQUESTS_TOTAL = Counter "saccade_cache_requests_total" ["tier", "outcome"] "Answers that were asked of a tier of the result cache (`memory`, `redis`, `disk`, `s3`): `hit`, `stale`, `miss`, or why it gave none: `error`, `timeout`, `open` (left alone after failures), `wrong` (no entry). Tier `all`: what became of each request, with `joined` (computed for another one at the same time), `bypassed`, `late` and `failed`.";
    CACHE_WRITES_TOTAL = Counter "saccade_cache_writes_total" ["tier", "outcome"] "Entries on their way to a tier outside of the process: `stored`, `dropped` (too many waited), `error`, `timeout`, `open`.";
    CACHE_REFRESHES_TOTAL = Counter "saccade_cache_refreshes_total" ["reason", "outcome"] "Entries that were computed anew without a request that waited: those past their time (`stale`) and those asked for often near its end (`ahead`).";
    CACHE_WARMED_TOTAL = Counter "saccade_cache_warmed_total" ["source", "outcome"] "Entries that were put into memory at start: of the last process (`hot`) and of the pictures of `cache.warm` (`files`).";
    CACHE_FORGOTTEN_TOTAL = Counter "saccade_cache_forgotten_total" [] "Entries that were removed by model or tag, or for want of memory.";
    CACHE_BYTES = Gauge "saccade_cache_bytes" ["tier"] "Bytes of entries in a tier, where it knows.";
    CACHE_ENTRIES = Gauge "saccade_cache_entries" ["tier"] "Entries in a tier, where it knows.";
    CACHE_TIER_SECONDS = Histogram "saccade_cache_tier_seconds" ["tier", "operation"] "Time that a tier outside of memory took, in seconds.";
    CACHE_BREAKER_OPEN = Gauge "saccade_cache_breaker_open" ["tier"] "1 while a tier is left alone after failures, else 0.";
    CLUSTER_FORWARDED_TOTAL = Counter "saccade_cluster_forwarded_total" ["kind", "outcome"] "Requests (`http`) and signaling sockets (`socket`) for sessions that this server does not have: `answered` by the owner, `nowhere` (no server has it), `unknown` (the registry does not answer), `gone` (nobody is where the owner was), `silent` (nobody says anything there), `broken` (off by the owner), `refused` (by the owner), `full` (too many at a time), `too_large`, `failed`, and of sockets that were forwarded `lost` (the owner broke off or fell silent; one that it closes counts once).";
    CLUSTER_RECEIVED_TOTAL = Counter "saccade_cluster_received_total" ["outcome"] "Requests to the listener for other servers: `accepted`, or refused as `missing`, `forged`, `misdirected`, `late` or `replayed` proofs, as `full`, `too_large`, or `unknown` (not about a session).";
    CLUSTER_REGISTRY_TOTAL = Counter "saccade_cluster_registry_total" ["operation", "outcome"] "What was asked of the registry of sessions (`find`, `write`, `renew`, `remove`): `ok`, `refused` (by Redis, which answers), `error`, `timeout`, `open` (left alone after failures), `forged` (an entry that no server of this cluster wrote), `dropped` (ends that could not be told; leases end their entries).";
    CLUSTER_RENEWALS_MISSED_TOTAL = Counter "saccade_cluster_renewals_missed_total" [] "Leases of sessions that a try to renew them did not renew.";
    CLUSTER_REGISTRY_BREAKER_OPEN = Gauge "saccade_cluster_registry_breaker_open" [] "1 while the registry of sessions is left alone after failures, else 0.";
    RTC_ROUND_TRIP_SECONDS = Histogram "saccade_rtc_round_trip_seconds" [] "Round trip to a peer, looked at twice a second, in seconds.";
    RTC_PACKETS_TOTAL = Counter "saccade_rtc_packets_total" ["direction"] "RTP packets received from and sent to peers.";
    RTC_PACKETS_LOST_TOTAL = Counter "saccade_rtc_packets_lost_total" ["direction"] "RTP packets that their receiver reported as lost.";
    SINK_MESSAGES_TOTAL = Counter "saccade_sink_messages_total" ["sink", "outcome"] "Messages to a sink that were delivered, or that it did not get, and why.";
    SINK_QUEUE_DEPTH = Gauge "saccade_sink_queue_depth" ["sink"] "Messages that wait for a sink now.";
    SINK_DELIVERY_SECONDS = Histogram "saccade_sink_delivery_seconds" ["sink"] "Time from handing messages to a sink until it had them, in seconds.";
    SINK_FAILURES_TOTAL = Counter "saccade_sink_failures_total" ["sink", "reason"] "Requests to a sink and connections that failed.";
    SINK_DEAD_LETTERS_TOTAL = Counter "saccade_sink_dead_letters_total" ["sink", "outcome"] "Messages that a sink did not get and that were written to its file, or could not be.";
    HTTP_REQUESTS_TOTAL = Counter "saccade_http_requests_total" ["route", "method", "status"] "HTTP requests that were answered.";
    HTTP_REQUEST_SECONDS = Histogram "saccade_http_request_seconds" ["route"] "Time to answer an HTTP request, in seconds.";
    TENSOR_REQUESTS_TOTAL = Counter "saccade_tensor_requests_total" ["protocol", "outcome"] "Requests of the inference protocol to run a model.";
    TENSOR_REQUEST_SECONDS = Histogram "saccade_tensor_request_seconds" ["protocol"] "Time that a model took to answer a request of the inference protocol, waiting included, in seconds.";
    TENSOR_BYTES_TOTAL = Counter "saccade_tensor_bytes_total" ["protocol", "direction"] "Bytes of tensors in requests of the inference protocol and in their answers.";
    REMOTE_REQUESTS_TOTAL = Counter "saccade_remote_requests_total" ["outcome"] "Requests to other servers that run models of this one.";
    REMOTE_RETRIES_TOTAL = Counter "saccade_remote_retries_total" [] "Requests that were sent to another endpoint because nobody was at the first.";
    CONNECTIONS_REFUSED_TOTAL = Counter "saccade_connections_refused_total" ["reason"] "Connections that were closed without an answer.";
    HTTP2_CUT_TOTAL = Counter "saccade_http2_cut_total" ["reason"] "Connections of HTTP/2 that took back requests too often, and answers that were not taken.";
    MESSAGES_REFUSED_TOTAL = Counter "saccade_messages_refused_total" ["channel", "reason"] "Messages of peers that were not acted upon.";
    STILLS_RECEIVED_TOTAL = Counter "saccade_stills_received_total" [] "Still pictures that were received whole.";
    STILLS_ANSWERED_TOTAL = Counter "saccade_stills_answered_total" [] "Still pictures that were answered.";
    STILLS_REFUSED_TOTAL = Counter "saccade_stills_refused_total" ["reason"] "Still pictures that were refused, by error code.";
    STILLS_DECODE_SECONDS = Histogram "saccade_stills_decode_seconds" ["format"] "Time to decode a still picture, in seconds.";
    STILLS_LATENCY_SECONDS = Histogram "saccade_stills_latency_seconds" [] "Last byte of a still picture in to its answer, in seconds.";
    HISTORY_UP = Gauge "saccade_history_up" [] "1 while the store of history answers, else 0.";
    HISTORY_RECORDS_TOTAL = Counter "saccade_history_records_total" ["to"] "Events and minutes that were written: to the store, or aside to the spool, from which the store gets them later.";
    HISTORY_DROPPED_TOTAL = Counter "saccade_history_dropped_total" ["reason"] "Events and minutes that were not kept.";
    HISTORY_FAILURES_TOTAL = Counter "saccade_history_failures_total" ["operation"] "Times that the store of history did not do what it was asked for.";
    HISTORY_STORE_SECONDS = Histogram "saccade_history_store_seconds" ["operation"] "Time that the store of history took, in seconds.";
    HISTORY_SPOOL_BYTES = Gauge "saccade_history_spool_bytes" [] "Bytes on disk of what the store of history has yet to take.";
    TRACE_SPANS_TOTAL = Counter "saccade_trace_spans_total" ["outcome"] "Spans that were made: `exported`, or not taken: `rejected` by the collector, `failed` (it could not be reached, answered too late or refused them), `queue_full`, `closed` (they came while the server shut down).";
    TRACE_EXPORT_SECONDS = Histogram "saccade_trace_export_seconds" [] "Time that one request to the collector of traces took, in seconds.";
    BUILD_INFO = Gauge "saccade_build_info" ["version"] "Always 1; its label says which version runs.";
}

/// Renders what was recorded.
#[derive(Clone)]
pub struct Handle {
    prometheus: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Handle {
    /// All metrics now, in Prometheus' text format, `process_*` among them.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        self.prometheus.render()
    }

    /// Folds waiting samples into their buckets; to be called every [`UPKEEP`], or memory grows between scrapes.
    pub fn upkeep(&self) {
        self.prometheus.run_upkeep();
    }
}

/// Records all metrics of the process from now on.
///
/// # Errors
/// [`BuildError`] when another recorder was installed before.
pub fn install() -> Result<Handle, BuildError> {
    let recorder = recorder()?;
    let prometheus = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(Handle::start(prometheus))
}

impl Handle {
    /// Describes everything to the current recorder and sets what never changes.
    fn start(prometheus: PrometheusHandle) -> Self {
        describe();
        let process = metrics_process::Collector::default();
        process.describe();
        metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self { prometheus, process }
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_ratio".to_owned()), &RATIO_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(BATCH_SIZE.to_owned()), &BATCH_BUCKETS)?
        .build_recorder())
}

/// Registers the help texts.
fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_rendered_with_help_and_the_agreed_buckets() {
        let recorder = recorder().unwrap();
        let prometheus = recorder.handle();
        let text = metrics::with_local_recorder(&recorder, || {
            let handle = Handle::start(prometheus);
            metrics::histogram!(STAGE_DURATION_SECONDS, "stage" => "decode").record(0.003);
            metrics::histogram!(BATCH_SIZE).record(3.0);
            metrics::counter!(SESSIONS_TOTAL, "end_reason" => "bye").increment(2);
            handle.upkeep();
            handle.render()
        });
        for line in [
            "# TYPE saccade_stage_duration_seconds histogram",
            "saccade_stage_duration_seconds_bucket{stage=\"decode\",le=\"0.0025\"} 0",
            "saccade_stage_duration_seconds_bucket{stage=\"decode\",le=\"0.005\"} 1",
            "saccade_batch_size_bucket{le=\"2\"} 0",
            "saccade_batch_size_bucket{le=\"3\"} 1",
            "# HELP saccade_sessions_total Sessions that ended.",
            "saccade_sessions_total{end_reason=\"bye\"} 2",
            concat!("saccade_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in:\n{text}");
        }
        let open = text.lines().find_map(|line| line.strip_prefix("process_open_fds ")).unwrap();
        assert!(open.parse::<u32>().unwrap() > 0);
    }

    #[test]
    fn names_keep_the_rules() {
        for metric in ALL {
            assert!(metric.name.starts_with("saccade_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
