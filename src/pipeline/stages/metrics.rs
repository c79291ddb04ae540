use metrics::{Counter, Histogram, counter, histogram};

/// What the stages of a session count and time.
pub(super) struct Metrics {
    pub(super) decode: Histogram,
    pub(super) preprocess: Histogram,
    pub(super) inference: Histogram,
    pub(super) postprocess: Histogram,
    pub(super) annotate: Histogram,
    pub(super) encode: Histogram,
    pub(super) result_latency: Histogram,
    pub(super) decode_wait: Histogram,
    pub(super) annotate_wait: Histogram,
    pub(super) decoded: Counter,
    pub(super) budget_missed: Counter,
    pub(super) superseded: Counter,
    pub(super) late: Counter,
    pub(super) skipped: Counter,
    pub(super) late_to_return: Counter,
    /// Frames that could not be brought from the GPU to the model.
    pub(super) no_host_buffer: Counter,
    /// The same to be drawn on.
    pub(super) not_brought: Counter,
    /// Frames that the GPU did not draw on, and the host did.
    #[cfg(feature = "cuda")]
    pub(super) unpainted: Counter,
    /// Frames that the path back had no room for.
    pub(super) congested: Counter,
    pub(super) less_returned: Counter,
    pub(super) overtaken: Counter,
    pub(super) undecodable: Counter,
    pub(super) over_rate: Counter,
    pub(super) model_failed: Counter,
    /// Frames that the model's device had no room for.
    pub(super) no_room: Counter,
    pub(super) dropped_before_encode: Counter,
    pub(super) unencodable: Counter,
    pub(super) unsent: Counter,
    pub(super) results_dropped: Counter,
    pub(super) events_dropped: Counter,
    pub(super) untold: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let stage = |stage: &'static str| histogram!("saccade_stage_duration_seconds", "stage" => stage);
        let dropped = |stage: &'static str, reason: &'static str| counter!("saccade_frames_dropped_total", "stage" => stage, "reason" => reason);
        Self {
            decode: stage("decode"),
            preprocess: stage("preprocess"),
            inference: stage("inference"),
            postprocess: stage("postprocess"),
            annotate: stage("annotate"),
            encode: stage("encode"),
            decode_wait: histogram!("saccade_queue_wait_seconds", "queue" => "decode"),
            annotate_wait: histogram!("saccade_queue_wait_seconds", "queue" => "annotate"),
            result_latency: histogram!("saccade_frame_latency_seconds", "path" => "result"),
            decoded: counter!("saccade_frames_total", "stage" => "decode", "outcome" => "done"),
            budget_missed: counter!("saccade_budget_missed_total"),
            superseded: dropped("infer", "superseded"),
            late: dropped("infer", "late"),
            skipped: dropped("infer", "skipped"),
            late_to_return: dropped("encode", "late"),
            no_host_buffer: dropped("decode", "no_host_buffer"),
            #[cfg(feature = "cuda")]
            unpainted: counter!("saccade_draw_takeovers_total"),
            not_brought: dropped("annotate", "no_host_buffer"),
            congested: dropped("encode", "congested"),
            less_returned: dropped("encode", "skipped"),
            overtaken: dropped("encode", "overtaken"),
            undecodable: dropped("decode", "error"),
            over_rate: dropped("decode", "fps_limit"),
            model_failed: dropped("infer", "error"),
            no_room: dropped("infer", "no_room"),
            dropped_before_encode: dropped("encode", "superseded"),
            unencodable: dropped("encode", "error"),
            unsent: dropped("egress", "queue_full"),
            results_dropped: dropped("results", "queue_full"),
            events_dropped: dropped("events", "queue_full"),
            untold: dropped("pipeline", "queue_full"),
        }
    }
}
