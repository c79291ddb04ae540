"""The dashboards. `python3 deploy/grafana/generate.py` writes them as JSON."""

from panels import Board, Kind, Number, Panel, Query, Row, Step, Unit, ladder

STAT = {"kind": Kind.STAT, "width": 4, "height": 5}
# Objectives, as deploy/prometheus/rules/objectives.yml has them.
FRAMES, SET_UP, HTTP = 0.99, 0.99, 0.999


def quantiles(metric: str, labels: str, by: str = "", legend: str = "") -> tuple[Query, ...]:
    """Median, 95th and 99th percentile of a histogram over all chosen servers, by further labels."""
    groups = f"le, {by}" if by else "le"
    return tuple(
        Query(f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket{{{labels}}}[R])))", f"{legend} p{q * 100:g}".strip())
        for q in (0.5, 0.95, 0.99)
    )


def p95(metric: str, by: str, labels: str = "@", legend: str | None = None) -> Query:
    """The 95th percentile of a histogram by labels."""
    name = legend or " ".join(f"{{{{{it.strip()}}}}}" for it in by.split(","))
    return Query(f"histogram_quantile(0.95, sum by (le, {by}) (rate({metric}_bucket{{{labels}}}[R])))", name)


def rates(metric: str, by: str, labels: str = "@", legend: str | None = None) -> Query:
    """How often a counter counts in a second, by labels."""
    name = legend or " ".join(f"{{{{{it.strip()}}}}}" for it in by.split(","))
    return Query(f"sum by ({by}) (rate({metric}{{{labels}}}[R]))", name)


def events(metric: str, by: str, labels: str = "@") -> Query:
    """How often a counter counted within five minutes, by labels: for what is rare."""
    return Query(f"sum by ({by}) (increase({metric}{{{labels}}}[5m]))", " ".join(f"{{{{{it.strip()}}}}}" for it in by.split(",")))


def objective(title: str, record: str, wanted: float, description: str) -> Panel:
    """The share of good events of the last hour against its objective."""
    query = Query(f'1 - {record}1h{{job=~"$job"}}', "{{job}}")
    steps = ladder(warn=wanted, bad=1 - 2 * (1 - wanted))
    return Panel(title, description, (query,), Unit.SHARE, Kind.GAUGE, steps, 6, 6, least=1 - 10 * (1 - wanted), most=1)


OVERVIEW = Board(
    "saccade-overview",
    "Saccade: overview",
    "Whether people get answers in time, and where to look when they do not.",
    (
        Row(
            "Objectives, over the last hour",
            (
                objective("Frames within budget", "job:saccade_frames_over_budget:ratio_rate", FRAMES,
                          "Share of frames that were answered within their session's budget, of those that a model had to answer."),
                objective("Sessions set up", "job:saccade_sessions_not_set_up:ratio_increase", SET_UP,
                          "Share of sessions that were admitted and connected, of those that were asked for."),
                objective("HTTP requests answered", "job:saccade_http_faults:ratio_increase", HTTP,
                          "Share of HTTP requests without a fault of the server's (5xx); probes of readiness are left out."),
                Panel("Alerts", "Alerts that fire now, all and by severity; their runbooks are in deploy/runbooks.",
                      (Query('count(ALERTS{alertname=~"Saccade.*",alertstate="firing"}) or vector(0)', "all"),
                       Query('count by (severity) (ALERTS{alertname=~"Saccade.*",alertstate="firing"})', "{{severity}}")),
                      kind=Kind.STAT, steps=(Step(None, "green"), Step(1, "red")), width=6, height=6),
            ),
        ),
        Row(
            "Now",
            (
                Panel("Servers", "Servers that give metrics.", (Query("count(saccade_build_info{@})", "servers"),), **STAT),
                Panel("Sessions", "Sessions that are open.", (Query("sum(saccade_sessions_active{@})", "sessions"),), **STAT),
                Panel("Viewers", "Viewers of sessions.", (Query("sum(saccade_viewers_active{@})", "viewers"),), **STAT),
                Panel("Frames answered", "Results of live frames a second.",
                      (Query('sum(rate(saccade_frame_latency_seconds_count{@,path="result"}[R]))', "results"),), Unit.FRAMES_PER_SECOND, **STAT),
                Panel("Pictures answered", "Still pictures that were answered in a second.",
                      (Query("sum(rate(saccade_stills_answered_total{@}[R]))", "pictures"),), Unit.PER_SECOND, **STAT),
                Panel("Highest load", "Share of the processors or of the network that sessions need at the least, on the fullest server.",
                      (Query("max(saccade_load_ratio{@})", "load"),), Unit.SHARE, steps=ladder(warn=0.75, bad=0.9), **STAT),
            ),
        ),
        Row(
            "How it goes",
            (
                Panel("Burn rate of error budgets", "How many times faster than allowed the last hour spends the budget of 30 days; 14.4 wakes somebody.",
                      (Query(f'job:saccade_frames_over_budget:ratio_rate1h{{job=~"$job"}} / {1 - FRAMES:.3f}', "frames {{job}}"),
                       Query(f'job:saccade_sessions_not_set_up:ratio_increase1h{{job=~"$job"}} / {1 - SET_UP:.3f}', "set-up {{job}}"),
                       Query(f'job:saccade_http_faults:ratio_increase1h{{job=~"$job"}} / {1 - HTTP:.4f}', "HTTP {{job}}")),
                      steps=ladder(warn=1, bad=14.4)),
                Panel("Latency of results", "Last packet of a frame in to its result out.",
                      quantiles("saccade_frame_latency_seconds", '@,path="result"'), Unit.SECONDS),
                Panel("Sessions by server", "Sessions that are open.", (Query("saccade_sessions_active{@}"),), is_stacked=True),
                Panel("Load", "Share of the processors and of the network that the sessions need at the least that they can do with; near 1 no more are admitted.",
                      (Query("saccade_load_ratio{@}", "{{instance}} {{resource}}"),), Unit.SHARE, steps=ladder(warn=0.75, bad=0.9)),
                Panel("Sessions that gave something up", "By step of the ladder: fewer frames inferred, a smaller input, fewer frames back, smaller frames back.",
                      (Query("sum by (step) (saccade_degraded_sessions{@})", "{{step}}"),)),
                Panel("Frames dropped", "The ten most frequent stages and reasons.",
                      (Query("topk(10, sum by (stage, reason) (rate(saccade_frames_dropped_total{@}[R])))", "{{stage}} {{reason}}"),), Unit.FRAMES_PER_SECOND),
                Panel("HTTP answers", "Requests by status.", (rates("saccade_http_requests_total", "status"),), Unit.REQUESTS_PER_SECOND, is_stacked=True),
                Panel("Time of starts", "When each server was started.",
                      (Query("(process_start_time_seconds{@} and on (job, instance) saccade_build_info) * 1000"),), Unit.MOMENT, kind=Kind.TABLE, least=None),
                Panel("Versions", "What each server runs.", (Query("saccade_build_info{@}", "{{instance}} {{version}}"),), kind=Kind.TABLE),
            ),
        ),
    ),
)  # fmt: skip

LATENCY = Board(
    "saccade-latency",
    "Saccade: latency by stage",
    "Where the time of a frame goes, from its last packet in to its result and its picture out.",
    (
        Row(
            "From end to end",
            (
                Panel("Results", "Last packet in to result out.", quantiles("saccade_frame_latency_seconds", '@,path="result"'), Unit.SECONDS),
                Panel("Returned video", "Last packet in to first packet out.", quantiles("saccade_frame_latency_seconds", '@,path="video"'), Unit.SECONDS),
                Panel("Viewers", "Last packet in to first packet to a viewer.", quantiles("saccade_frame_latency_seconds", '@,path="viewer"'), Unit.SECONDS),
                Panel("Results, all of them", "How many results took how long.",
                      (Query('sum by (le) (increase(saccade_frame_latency_seconds_bucket{@,path="result"}[R]))'),), Unit.SECONDS, Kind.HEATMAP, width=12),
                Panel("Late and lost", "Results that left after their budget, and frames that were dropped because they would have.",
                      (Query("sum(rate(saccade_budget_missed_total{@}[R]))", "left late"),
                       Query('sum by (stage) (rate(saccade_frames_dropped_total{@,reason="late",stage=~"infer|encode"}[R]))', "dropped before {{stage}}")),
                      Unit.FRAMES_PER_SECOND, width=12),
            ),
        ),
        Row(
            "Stages",
            (
                Panel("Mean service time", "Time that a stage works on one frame. With a model, the time of the whole batch counts for each frame in it.",
                      (Query("sum by (stage) (rate(saccade_stage_duration_seconds_sum{@}[R])) / sum by (stage) (rate(saccade_stage_duration_seconds_count{@}[R]))", "{{stage}}"),),
                      Unit.SECONDS, is_stacked=True),
                Panel("Service time, 95th percentile", "One frame in twenty takes longer.", (p95("saccade_stage_duration_seconds", "stage"),), Unit.SECONDS),
                Panel("Threads at work", "Seconds of work a second and stage: how many threads are busy with it on average. Those of models are on the board of models.",
                      (Query('sum by (stage) (rate(saccade_stage_duration_seconds_sum{@,stage=~"decode|annotate|encode"}[R]))', "{{stage}}"),), is_stacked=True),
                Panel("Wait in queues, 95th percentile", "Time between entering and leaving a queue.", (p95("saccade_queue_wait_seconds", "queue"),), Unit.SECONDS,
                      steps=ladder(warn=0.05, bad=0.1)),
                Panel("Queues", "Items that wait now.", (Query("sum by (queue) (saccade_queue_depth{@})", "{{queue}}"),)),
                Panel("Time in a model, 95th percentile", "For one batch.", (p95("saccade_inference_seconds", "model"),), Unit.SECONDS),
            ),
        ),
        Row(
            "Requests",
            (
                Panel("Still pictures", "Last byte in to answer.", quantiles("saccade_stills_latency_seconds", "@"), Unit.SECONDS),
                Panel("Decoding of still pictures, 95th percentile", "By format.", (p95("saccade_stills_decode_seconds", "format"),), Unit.SECONDS),
                Panel("HTTP requests, 95th percentile", "By route; sockets and streams until their answer begins.", (p95("saccade_http_request_seconds", "route"),), Unit.SECONDS),
            ),
        ),
    ),
)  # fmt: skip

SESSIONS = Board(
    "saccade-sessions",
    "Saccade: sessions and network quality",
    "Who comes, who is turned away, why sessions end, and what the network does to their packets.",
    (
        Row(
            "Sessions",
            (
                Panel("Open", "Sessions and viewers.", (Query("sum(saccade_sessions_active{@})", "sessions"), Query("sum(saccade_viewers_active{@})", "viewers"))),
                Panel("Begun and failed, in the last hour", "Sessions that began, were refused for want of room, or found no path.",
                      (Query('job:saccade_sessions_begun:increase1h{job=~"$job"}', "begun"), Query('job:saccade_sessions_refused:increase1h{job=~"$job"}', "refused"),
                       Query('job:saccade_sessions_unconnected:increase1h{job=~"$job"}', "no path"))),
                Panel("Ends", "Why sessions ended, in five minutes.", (events("saccade_sessions_total", "end_reason"),), is_stacked=True),
                Panel("Not admitted", "Sessions and viewers that were turned away, in five minutes.", (events("saccade_admission_rejected_total", "reason"),), is_stacked=True),
                Panel("Ends of viewers", "Why viewers left, in five minutes.", (events("saccade_viewers_total", "end_reason"),), is_stacked=True),
                Panel("Messages refused", "Signaling and control messages that were not acted upon.", (rates("saccade_messages_refused_total", "channel, reason"),), Unit.PER_SECOND),
            ),
        ),
        Row(
            "The way here and back",
            (
                Panel("Round trip", "To peers, looked at twice a second.", quantiles("saccade_rtc_round_trip_seconds", "@"), Unit.SECONDS, steps=ladder(warn=0.15, bad=0.3)),
                Panel("Loss", "Share of packets that their receiver missed: in, video from peers; out, video to them.",
                      (Query("sum by (direction) (rate(saccade_rtc_packets_lost_total{@}[R])) / sum by (direction) (rate(saccade_rtc_packets_total{@}[R]))", "{{direction}}"),),
                      Unit.SHARE, steps=ladder(warn=0.01, bad=0.05)),
                Panel("Packets", "RTP packets.", (rates("saccade_rtc_packets_total", "direction"),), Unit.PACKETS_PER_SECOND),
                Panel("Datagrams dropped", "At the media port: of strangers, or for want of room.", (rates("saccade_rtc_datagrams_dropped_total", "reason"),), Unit.PACKETS_PER_SECOND),
                Panel("Lost before decoding", "Packets that were of no use, and pictures that did not come whole.",
                      (rates("saccade_frames_dropped_total", "stage, reason", '@,stage=~"rtc|ingest"'),), Unit.PER_SECOND),
                Panel("Not given back", "Frames that were not encoded or not sent: the path had no room, a newer one went first, the ladder left them out.",
                      (rates("saccade_frames_dropped_total", "stage, reason", '@,stage=~"encode|egress|viewers"'),), Unit.FRAMES_PER_SECOND),
            ),
        ),
        Row(
            "Servers among each other",
            (
                Panel("Forwarded", "Requests and sockets for sessions that another server has, and what became of them.", (rates("saccade_cluster_forwarded_total", "kind, outcome"),), Unit.REQUESTS_PER_SECOND),
                Panel("Received from others", "Accepted, or why not.", (rates("saccade_cluster_received_total", "outcome"),), Unit.REQUESTS_PER_SECOND),
                Panel("Asked of the registry", "By operation and outcome.", (rates("saccade_cluster_registry_total", "operation, outcome"),), Unit.REQUESTS_PER_SECOND),
                Panel("Registry", "1 while it is left alone after failures; and leases that were not renewed in five minutes.",
                      (Query("saccade_cluster_registry_breaker_open{@}"), Query("sum by (instance) (increase(saccade_cluster_renewals_missed_total{@}[5m]))", "{{instance}} missed")), steps=(Step(None, "green"), Step(1, "red"))),
            ),
        ),
        Row(
            "Frames",
            (
                Panel("From stage to stage", "Frames that were received whole, decoded, told of and given back.",
                      (rates("saccade_frames_total", "stage"),), Unit.FRAMES_PER_SECOND),
                Panel("Results and events not sent", "A data channel or a queue was full.", (rates("saccade_frames_dropped_total", "stage, reason", '@,stage=~"results|events|pipeline"'),), Unit.PER_SECOND),
                Panel("The ladder", "Sessions that give something up, and how often that changes in five minutes.",
                      (Query("sum by (step) (saccade_degraded_sessions{@})", "{{step}}"), Query("sum(increase(saccade_degradation_changes_total{@}[5m]))", "changes"))),
                Panel("Connections refused", "Connections that were closed without an answer, in five minutes.", (events("saccade_connections_refused_total", "reason"),)),
                Panel("Connections of HTTP/2 cut", "Those that took requests back too often, and answers that were not taken, in five minutes.", (events("saccade_http2_cut_total", "reason"),)),
            ),
        ),
    ),
)  # fmt: skip

MODELS = Board(
    "saccade-models",
    "Saccade: models and batching",
    "What models do, how well frames of several sessions share a run, and what becomes of new versions.",
    (
        Row(
            "Runs",
            (
                Panel("Batches", "Runs of a model in a second.", (rates("saccade_inference_seconds_count", "model"),), Unit.PER_SECOND),
                Panel("Mean time of a batch", "By model.",
                      (Query("sum by (model) (rate(saccade_inference_seconds_sum{@}[R])) / sum by (model) (rate(saccade_inference_seconds_count{@}[R]))", "{{model}}"),), Unit.SECONDS),
                Panel("A frame alone", "Time that a frame takes a model without company, as it is estimated; beside the mean time of a batch it tells what company costs.",
                      (Query("max by (model) (saccade_model_frame_seconds{@})", "{{model}}"),), Unit.SECONDS),
                Panel("Instances at work", "Seconds of inference a second: how many instances are busy on average.", (rates("saccade_inference_seconds_sum", "model"),), is_stacked=True),
                Panel("Use of instances", "Share of the time in which the instances of a model were at work.",
                      (Query("sum by (model) (rate(saccade_inference_seconds_sum{@}[R])) / sum by (model) (saccade_model_instances{@})", "{{model}}"),), Unit.SHARE, steps=ladder(warn=0.8, bad=0.95)),
                Panel("Frames in a batch", "Mean; with more sessions than instances, more than one is good on GPUs.",
                      (Query("sum by (instance) (rate(saccade_batch_size_sum{@}[R])) / sum by (instance) (rate(saccade_batch_size_count{@}[R]))"),), least=1),
                Panel("Sizes of batches", "How many batches had how many frames.", (Query("sum by (le) (increase(saccade_batch_size_bucket{@}[R]))"),), kind=Kind.HEATMAP),
                Panel("Batches of one", "Share of batches with one frame.",
                      (Query('sum(rate(saccade_batch_size_bucket{@,le=~"1|1.0"}[R])) / sum(rate(saccade_batch_size_count{@}[R]))', "of one"),), Unit.SHARE, most=1),
                Panel("Batches at work", "Batches that run now.", (Query("sum by (instance) (saccade_inference_in_flight{@})"),)),
                Panel("Wait for the model", "Time of frames in the queue of models.", quantiles("saccade_queue_wait_seconds", '@,queue="infer"'), Unit.SECONDS),
                Panel("Not inferred", "Frames that no model saw, and why: superseded by a newer one, too late, left to the tracker, failed, no room on the device.",
                      (rates("saccade_frames_dropped_total", "reason", '@,stage="infer"'),), Unit.FRAMES_PER_SECOND),
            ),
        ),
        Row(
            "Versions",
            (
                Panel("Models", "By state.", (Query("sum by (state) (saccade_models{@})", "{{state}}"),)),
                Panel("Loads", "Versions that were loaded, refused or rolled back, in five minutes.", (events("saccade_model_loads_total", "outcome"),)),
                Panel("Refusals", "Why versions could not be used, in five minutes.", (events("saccade_model_refusals_total", "reason"),)),
                Panel("Rollbacks", "Versions that made way for the one before, in five minutes.", (events("saccade_model_rollbacks_total", "reason"),)),
                Panel("Swaps", "Versions that took another one's place, in five minutes.", (Query("sum(increase(saccade_model_swaps_total{@}[5m]))", "swaps"),)),
                Panel("Moves of sessions", "Sessions that followed their model, or kept what they had, in five minutes.", (events("saccade_session_model_moves_total", "outcome"),)),
                Panel("Restarts", "Instances that were started again after a fault, in five minutes.", (events("saccade_model_restarts_total", "model"),), steps=(Step(None, "green"), Step(1, "red"))),
                Panel("Ways that changed", "Models that are run another way from then on, such as on TensorRT, in five minutes.", (events("saccade_model_changes_total", "model"),)),
                Panel("Agreement of shadows", "Median overlap of what a shadow found with what was answered.",
                      (Query("histogram_quantile(0.5, sum by (le, model) (rate(saccade_shadow_agreement_ratio_bucket{@}[R])))", "{{model}}"),), Unit.SHARE, most=1),
                Panel("Frames of shadows", "Frames that a shadow was compared with.", (rates("saccade_shadow_frames_total", "model"),), Unit.FRAMES_PER_SECOND),
            ),
        ),
        Row(
            "Elsewhere",
            (
                Panel("Still scenes", "Frames of sessions with `session.still_gate`: `reused` asked no model.", (rates("saccade_still_gate_frames_total", "outcome"),), Unit.FRAMES_PER_SECOND, is_stacked=True),
                Panel("Right about still scenes", "Mean overlap of the result that would have been given again with what the model found.",
                      (Query("sum(rate(saccade_still_gate_agreement_ratio_sum{@}[R])) / sum(rate(saccade_still_gate_agreement_ratio_count{@}[R]))", "agreement"),),
                      Unit.SHARE, most=1),
                Panel("Tensor requests", "Of the Open Inference Protocol.", (rates("saccade_tensor_requests_total", "protocol, outcome"),), Unit.REQUESTS_PER_SECOND),
                Panel("Tensor requests, 95th percentile", "Waiting included.", (p95("saccade_tensor_request_seconds", "protocol"),), Unit.SECONDS),
                Panel("Bytes of tensors", "In requests and answers, a second.", (rates("saccade_tensor_bytes_total", "protocol, direction"),), Unit.BYTES_PER_SECOND),
                Panel("Tensors left out", "Raw tensors that a result had no room for.", (rates("saccade_tensors_left_out_total", "model"),), Unit.PER_SECOND),
                Panel("Requests to other servers", "That run models of these ones.", (rates("saccade_remote_requests_total", "outcome"), Query("sum(rate(saccade_remote_retries_total{@}[R]))", "tried elsewhere")), Unit.REQUESTS_PER_SECOND),
            ),
        ),
    ),
)  # fmt: skip

DEVICE = Board(
    "saccade-device",
    "Saccade: machines and GPUs",
    "Processors, memory and descriptors of the process; GPUs as the server sees them, and as NVIDIA's DCGM exporter does.",
    (
        Row(
            "The process",
            (
                Panel("Cores", "Processor time a second. The process counts whole seconds.", (Query("rate(process_cpu_seconds_total{@}[5m]) and on (job, instance) saccade_build_info"),)),
                Panel("Memory", "Resident memory of the process.", (Query("process_resident_memory_bytes{@} and on (job, instance) saccade_build_info"),), Unit.BYTES),
                Panel("Processors", "Share that was busy, with whatever runs on the machine.", (Query("saccade_processors_busy_ratio{@}"),), Unit.SHARE, steps=ladder(warn=0.8, bad=0.95), most=1),
                Panel("Processors and codec threads", "What the server may use, and how many threads decode, draw and encode.",
                      (Query("saccade_processors{@}", "{{instance}} processors"), Query("saccade_codec_threads{@}", "{{instance}} codec threads"))),
                Panel("Processors by kind of thread", "What threads that decode and encode, run models, and do the rest keep busy.",
                      (Query("saccade_busy_processors{@}", "{{instance}} {{threads}}"),)),
                Panel("Level of memory", "0 enough, 1 short, 2 caches are shed and new work refused; and how often caches were shed in five minutes.",
                      (Query("saccade_memory_level{@}", "{{instance}} {{kind}}"), Query("sum by (kind) (increase(saccade_memory_sheds_total{@}[5m]))", "{{kind}} sheds")), steps=ladder(warn=1, bad=2)),
                Panel("Memory in use", "Share of what there is, by kind; from 0.95 on caches are shed and new work refused.",
                      (Query("saccade_memory_used_ratio{@}", "{{instance}} {{kind}}"),), Unit.SHARE, steps=ladder(warn=0.8, bad=0.95), most=1),
                Panel("Refused for want of memory", "Sessions, viewers, cameras, still pictures and requests with tensors that were not begun, in five minutes.",
                      (events("saccade_memory_refused_total", "work"),), is_stacked=True),
                Panel("File descriptors", "Share of those that the process may open.", (Query('instance:saccade_open_fds:ratio{@}'),), Unit.SHARE, steps=ladder(warn=0.6, bad=0.8), most=1),
                Panel("Threads", "Of the process.", (Query("process_threads{@} and on (job, instance) saccade_build_info"),)),
            ),
        ),
        Row(
            "GPUs, as the server sees them",
            (
                Panel("Engines", "Share of the time in which an engine had something to do.", (Query("saccade_device_utilization_ratio{@}", "{{instance}} {{device}} {{engine}}"),), Unit.SHARE, steps=ladder(warn=0.8, bad=0.95), most=1),
                Panel("Memory of GPUs", "In use, by whoever, of what there is.", (Query("instance:saccade_device_memory:ratio{@}", "{{instance}} {{device}}"),), Unit.SHARE, steps=ladder(warn=0.8, bad=0.95), most=1),
                Panel("Temperature", "Of GPUs.", (Query("saccade_device_temperature_celsius{@}", "{{instance}} {{device}}"),), Unit.CELSIUS, steps=ladder(warn=75, bad=85)),
                Panel("Power", "That GPUs draw.", (Query("saccade_device_power_watts{@}", "{{instance}} {{device}}"),), Unit.WATTS),
                Panel("Takeovers", "Streams and pictures that moved from a GPU to the processors, in a quarter of an hour.", (Query("instance:saccade_takeovers:increase15m{@}"),), steps=(Step(None, "green"), Step(1, "red"))),
                Panel("Refused by the GPU's painter", "Shapes that were not drawn since a picture had more than is recorded.", (Query("sum by (instance) (rate(saccade_draw_refused_total{@}[R]))"),), Unit.PER_SECOND),
                Panel("Driver without an answer", "Times that GPUs could not be asked how they are, in five minutes.", (Query("sum by (instance) (increase(saccade_device_watch_failures_total{@}[5m]))"),)),
            ),
        ),
        Row(
            "GPUs, as DCGM sees them",
            (
                Panel("Use", "Per cent of the time in which a kernel ran.", (Query("DCGM_FI_DEV_GPU_UTIL", "{{instance}} {{gpu}}"),), Unit.PERCENT, most=100),
                Panel("Encoders and decoders", "Per cent of the time in which they had something to do.", (Query("DCGM_FI_DEV_ENC_UTIL", "{{instance}} {{gpu}} encoder"), Query("DCGM_FI_DEV_DEC_UTIL", "{{instance}} {{gpu}} decoder")), Unit.PERCENT, most=100),
                Panel("Frame buffer", "Memory in use.", (Query("DCGM_FI_DEV_FB_USED", "{{instance}} {{gpu}}"),), Unit.MEBIBYTES),
                Panel("Temperature as DCGM has it", "Of GPUs.", (Query("DCGM_FI_DEV_GPU_TEMP", "{{instance}} {{gpu}}"),), Unit.CELSIUS, steps=ladder(warn=75, bad=85)),
                Panel("Power as DCGM has it", "That GPUs draw.", (Query("DCGM_FI_DEV_POWER_USAGE", "{{instance}} {{gpu}}"),), Unit.WATTS),
                Panel("Faults", "The last XID of each GPU, and whether broken rows of memory could not be replaced.", (Query("DCGM_FI_DEV_XID_ERRORS", "{{instance}} {{gpu}} XID"), Query("DCGM_FI_DEV_ROW_REMAP_FAILURE", "{{instance}} {{gpu}} rows")), steps=(Step(None, "green"), Step(1, "red"))),
            ),
        ),
    ),
)  # fmt: skip

STORES = Board(
    "saccade-stores",
    "Saccade: cache, history, sinks and cameras",
    "What is kept and given again, and what goes to and comes from others.",
    (
        Row(
            "Results of still pictures",
            (
                Panel("Requests", "What became of each: computed (`miss`), known (`hit`, `stale`), waited for another one's (`joined`).", (rates("saccade_cache_requests_total", "outcome", '@,tier="all"'),), Unit.REQUESTS_PER_SECOND, is_stacked=True),
                Panel("Known", "Share that was given again or waited for another one's answer.", (Query("instance:saccade_cache_hits:ratio_rate5m{@}"),), Unit.SHARE, most=1),
                Panel("Tiers", "What each tier answered.", (rates("saccade_cache_requests_total", "tier, outcome", '@,tier!="all"'),), Unit.REQUESTS_PER_SECOND),
                Panel("Time of tiers, 95th percentile", "Of those outside of memory.", (p95("saccade_cache_tier_seconds", "tier, operation"),), Unit.SECONDS),
                Panel("Size", "Bytes of entries.", (Query("sum by (tier) (saccade_cache_bytes{@})", "{{tier}}"),), Unit.BYTES),
                Panel("Entries", "Where the tier knows.", (Query("sum by (tier) (saccade_cache_entries{@})", "{{tier}}"),)),
                Panel("Writes", "Entries on their way to tiers outside of the process.", (rates("saccade_cache_writes_total", "tier, outcome"),), Unit.PER_SECOND),
                Panel("Tiers left alone", "1 while a tier is left alone after failures.", (Query("saccade_cache_breaker_open{@}", "{{instance}} {{tier}}"),), steps=(Step(None, "green"), Step(1, "red")), most=1),
                Panel("Refreshed, warmed, forgotten", "Entries computed anew ahead of time, put into memory at start, and removed by model or tag, in five minutes.",
                      (events("saccade_cache_refreshes_total", "reason, outcome"), events("saccade_cache_warmed_total", "source, outcome"), Query("sum(increase(saccade_cache_forgotten_total{@}[5m]))", "forgotten"))),
                Panel("Pictures", "Received whole, and answered.", (Query("sum(rate(saccade_stills_received_total{@}[R]))", "received"), Query("sum(rate(saccade_stills_answered_total{@}[R]))", "answered")), Unit.REQUESTS_PER_SECOND),
                Panel("Pictures refused", "By error code.", (rates("saccade_stills_refused_total", "reason"),), Unit.REQUESTS_PER_SECOND),
            ),
        ),
        Row(
            "History",
            (
                Panel("Store", "1 while it answers.", (Query("saccade_history_up{@}"),), steps=(Step(None, "red"), Step(1, "green")), most=1),
                Panel("Records", "Events and minutes that were written, to the store or aside to the spool.", (rates("saccade_history_records_total", "to"),), Unit.PER_SECOND),
                Panel("Lost", "Events and minutes that were not kept, in five minutes.", (events("saccade_history_dropped_total", "reason"),)),
                Panel("Failures", "Of the store, in five minutes.", (events("saccade_history_failures_total", "operation"),)),
                Panel("Time of the store, 95th percentile", "By operation.", (p95("saccade_history_store_seconds", "operation"),), Unit.SECONDS),
                Panel("Spool", "Bytes that the store has yet to take.", (Query("saccade_history_spool_bytes{@}"),), Unit.BYTES),
            ),
        ),
        Row(
            "Sinks and cameras",
            (
                Panel("Messages", "Delivered to sinks, or not, and why.", (rates("saccade_sink_messages_total", "sink, outcome"),), Unit.PER_SECOND),
                Panel("Waiting", "Messages that wait for a sink.", (Query("saccade_sink_queue_depth{@}", "{{instance}} {{sink}}"),)),
                Panel("Time to deliver, 95th percentile", "From handing messages to a sink until it had them.", (p95("saccade_sink_delivery_seconds", "sink"),), Unit.SECONDS),
                Panel("Failures of sinks", "Requests and connections, in five minutes.", (events("saccade_sink_failures_total", "sink, reason"),)),
                Panel("Dead letters", "Messages that a sink did not get, written to its file or not, in five minutes.", (events("saccade_sink_dead_letters_total", "sink, outcome"),)),
                Panel("Cameras", "1 while connected.", (Query("saccade_camera_up{@}", "{{instance}} {{camera}}"),), steps=(Step(None, "red"), Step(1, "green")), most=1),
                Panel("Failures of cameras", "Tries and connections that failed, in five minutes.", (events("saccade_camera_failures_total", "camera, reason"),)),
                Panel("Connections to cameras", "Over which a camera began to send, in five minutes.", (events("saccade_camera_connects_total", "camera"),)),
            ),
        ),
        Row(
            "Routes and traces",
            (
                Panel("Spans", "Of traces: exported, or why not.", (rates("saccade_trace_spans_total", "outcome"),), Unit.PER_SECOND),
                Panel("Time of the collector", "For one request with spans.", quantiles("saccade_trace_export_seconds", "@"), Unit.SECONDS),
                Panel("Routes not saved", "Changes of routes that could not be written to their file, in five minutes.", (Query("sum by (instance) (increase(saccade_routes_unsaved_total{@}[5m]))"),)),
            ),
        ),
    ),
)  # fmt: skip

_SESSIONS = "(sum(avg_over_time(saccade_sessions_active{@}[5m])) > 0)"
_CORES = "sum(rate(process_cpu_seconds_total{@}[5m]) and on (job, instance) saccade_build_info)"
_MEMORY = "sum(avg_over_time(process_resident_memory_bytes{@}[5m]) and on (job, instance) saccade_build_info)"

COST = Board(
    "saccade-cost",
    "Saccade: cost per stream",
    "What one session takes, over five minutes, and what that costs at the prices above. Servers that also answer still pictures share their cost with those.",
    (
        Row(
            "Money",
            (
                Panel("An hour of one stream", "Cores and memory that sessions take, and GPUs as a whole, at their prices.",
                      (Query(f"({_CORES} * $core_hour + {_MEMORY} / 1073741824 * $gib_hour + (sum(count by (job, instance, device) (saccade_device_memory_total_bytes{{@}})) or vector(0)) * $gpu_hour) / {_SESSIONS}", "a stream"),),
                      Unit.MONEY, Kind.STAT, width=6),
                Panel("A million results", "Cores at their price for a million answered frames.",
                      (Query(f'{_CORES} * $core_hour / 3600 / sum(rate(saccade_frame_latency_seconds_count{{@,path="result"}}[5m])) * 1000000', "results"),), Unit.MONEY, Kind.STAT, width=6),
                Panel("Cores of one stream", "Processor time of the whole process over its sessions.", (Query("instance:saccade_session_cores:rate5m{@}"),), kind=Kind.STAT, width=6),
                Panel("Memory of one stream", "Resident memory of the whole process over its sessions.", (Query(f"{_MEMORY} / {_SESSIONS}", "a stream"),), Unit.BYTES, Kind.STAT, width=6),
            ),
        ),
        Row(
            "Work",
            (
                Panel("Cores of one stream over time", "By server.", (Query("instance:saccade_session_cores:rate5m{@}"),)),
                Panel("Where the time goes", "Seconds of work a second and session: codecs and overlay by stage, models by name. Frames of a batch share its time.",
                      (Query(f'sum by (stage) (rate(saccade_stage_duration_seconds_sum{{@,stage=~"decode|annotate|encode"}}[5m])) / on () group_left () {_SESSIONS}', "{{stage}}"),
                       Query(f"sum by (model) (rate(saccade_inference_seconds_sum{{@}}[5m])) / on () group_left () {_SESSIONS}", "{{model}}")),
                      is_stacked=True),
                Panel("Processor time of a result", "Of the whole process, for one answered frame.",
                      (Query(f'{_CORES} / sum(rate(saccade_frame_latency_seconds_count{{@,path="result"}}[5m]))', "a result"),), Unit.SECONDS),
                Panel("Frames of one stream", "Decoded, answered and given back in a second.",
                      (Query(f'sum by (stage) (rate(saccade_frames_total{{@,stage=~"decode|results|egress"}}[5m])) / on () group_left () {_SESSIONS}', "{{stage}}"),), Unit.FRAMES_PER_SECOND),
                Panel("Packets of one stream", "In and out; viewers' are among those out.",
                      (Query(f"sum by (direction) (rate(saccade_rtc_packets_total{{@}}[5m])) / on () group_left () {_SESSIONS}", "{{direction}}"),), Unit.PACKETS_PER_SECOND),
                Panel("GPU of one stream", "Share of each engine's time over the sessions of its server.",
                      (Query("sum by (job, instance, engine) (saccade_device_utilization_ratio{@}) / on (job, instance) group_left () (sum by (job, instance) (saccade_sessions_active{@}) > 0)", "{{instance}} {{engine}}"),), Unit.SHARE),
                Panel("Power of one stream", "Watts that GPUs draw over the sessions of their server.",
                      (Query("sum by (job, instance) (saccade_device_power_watts{@}) / (sum by (job, instance) (saccade_sessions_active{@}) > 0)"),), Unit.WATTS),
            ),
        ),
    ),
    (Number("core_hour", "Price of a core for an hour", "0.04"), Number("gib_hour", "Of a GiB of memory", "0.005"), Number("gpu_hour", "Of a GPU", "0.60")),
)  # fmt: skip

BOARDS = (OVERVIEW, LATENCY, SESSIONS, MODELS, DEVICE, STORES, COST)
