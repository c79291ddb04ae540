//! Bytes to begin with: what real clients and files say, and noise where a target makes its own sense of bytes.

use std::path::Path;
use std::{fs, io};

use crate::settings::{encode, signed};
use crate::target;

/// Targets whose bytes decide what happens, and mean nothing by themselves.
const MADE_UP: [&str; 7] = [
    "stun_demux",
    "tcp_framing",
    "depacketize_h264",
    "depacketize_vp8",
    "depacketize_vp9",
    "postprocess",
    "session_life",
];
const OFFERS: [&str; 3] = ["two_videos_offer.sdp", "two_videos_answer.sdp", "two_videos_stack.sdp"];
const FRAGMENTS: [&str; 4] = [
    "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n\
     a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
     a=candidate:3471623853 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0 ufrag EsAw\r\n\
     a=end-of-candidates\r\n",
    "a=candidate:1 1 udp 1 192.0.2.1 9 typ srflx raddr 0.0.0.0 rport 0",
    "a=end-of-candidates\n",
    "\"abcd\", \"*\"",
];
const CANDIDATES: [&str; 5] = [
    "candidate:842163049 1 udp 1677729535 192.0.2.17 51472 typ srflx raddr 10.0.0.7 rport 46154 generation 0 ufrag EsAw",
    "candidate:1 1 udp 2122260223 5b1b7e3e-6c2a-4a53-9d0a-000000000000.local 50000 typ host",
    "candidate:2 1 tcp 1518280447 10.0.0.7 9 typ host tcptype active",
    "candidate:3 1 UDP 2122262783 2001:db8::7 50001 typ host generation 0",
    "candidate:4 1 udp 25108223 198.51.100.9 3478 typ relay raddr 192.0.2.17 rport 51472",
];
const OPTIONS: [&str; 3] = [
    r#"{"type":"configure","options":{"model":"faces","return":"results","budget_ms":80,"score_threshold":0.5,"classes":["face"],"max_detections":3,"format":"coco"}}"#,
    r#"{"type":"configure","options":{"zones":[{"name":"work","polygon":[[0.2,0.3],[0.8,0.3],[0.9,1],[0.1,1]],"dwell_s":60}],"lines":[{"name":"gate","points":[[0.05,0.9],[0.05,0.3]]}],"rules":[{"name":"bare head","zone":"work","classes":["head"],"longer_than_s":2,"more_than":1}],"overlay":{"zones":true}}}"#,
    r#"{"type":"configure","options":{"budget":1,"return":"video","track":7,"overlay":{"boxs":true},"zones":{}}}"#,
];
/// Requests of the inference protocol, and how many bytes of them are JSON where others follow.
const TENSORS: [(&str, Option<usize>); 4] = [
    (
        r#"{"id":"1","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3e2,0]]}],"outputs":[{"name":"y","parameters":{"binary_data":true}}],"parameters":{"timeout":1000}}"#,
        None,
    ),
    (
        r#"{"inputs":[{"name":"s","shape":[2],"datatype":"BYTES","data":["a","\u00e9"]},{"name":"b","shape":[3],"datatype":"BOOL","data":[true,false,1]},{"name":"h","shape":[1],"datatype":"BF16","data":[0.1]}]}"#,
        None,
    ),
    (
        r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"UINT16","parameters":{"binary_data_size":4}}],"parameters":{"binary_data_output":true}}abcd"#,
        Some(136),
    ),
    (r#"{"inputs":[{"name":"x","shape":[9223372036854775807,0,2],"datatype":"INT64","data":[-1]}]}"#, None),
];
/// Pages of metrics, and two with a zero byte between them.
const METRICS: [&str; 3] = [
    "# TYPE saccade_build_info gauge\nsaccade_build_info{version=\"0.1.0\"} 1\nsaccade_sessions_active 3 1395066363000\n\
     saccade_memory_used_ratio{kind=\"host\"} 0.97\nsaccade_memory_level{kind=\"host\"} 2\n\
     saccade_frames_total{stage=\"a\\\\b\\\"c\\n\",outcome=\"done\"} NaN\nsaccade_processors +Inf\n",
    "saccade_build_info 1\n\0saccade_build_info 1\nsaccade_processors 2\nsaccade_processors_busy_ratio 0.99\n\
     saccade_frames_total{stage=\"ingest\",outcome=\"done\"} 900\n\
     saccade_frames_dropped_total{stage=\"infer\",reason=\"superseded\"} 600\n\
     saccade_model_instances{model=\"a@1\"} 1\nsaccade_inference_seconds_sum{model=\"a@1\"} 0.97\n\
     saccade_inference_seconds_count{model=\"a@1\"} 30\nsaccade_batch_size_sum 30\nsaccade_batch_size_count 30\n\
     saccade_stage_duration_seconds_sum{stage=\"decode\"} 0.1\n",
    "saccade_build_info 1\nsaccade_rtc_packets_total{direction=\"in\"} 1000\0saccade_build_info 1\n\
     saccade_rtc_packets_total{direction=\"in\"} 3000 # {trace_id=\"ab\"} 1 2.5\n\
     saccade_rtc_packets_lost_total{direction=\"in\"} 300\nsaccade_device_utilization_ratio{device=\"0\",engine=\"sm\"} 0.1\n\
     saccade_queue_wait_seconds_sum{queue=\"infer\"} 9\nsaccade_queue_wait_seconds_count{queue=\"infer\"} 300\n\
     saccade_cache_requests_total{tier=\"all\",outcome=\"miss\"} 90\nx{",
];
/// Beginnings of bitstreams, behind the number of their codec.
const HEADERS: [&[u8]; 4] = [
    &[0, 0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x28, 0xda, 0x01, 0xe0, 0x08, 0x9f, 0x95],
    &[
        0, 0, 0, 1, 0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 3,
        0xc0,
    ],
    &[1, 0x10, 0, 0, 0x9d, 1, 0x2a, 0x80, 0x42, 0xe0, 0x81],
    &[2, 0x82, 0x49, 0x83, 0x42, 0x20, 0x15, 0xf0, 0x11, 0xf0],
];

/// Writes the seeds of every target into its folder of `corpus`.
///
/// # Errors
/// Whatever keeps a file from being read or written.
pub fn write_all(corpus: &Path) -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut writer = Writer { corpus, number: 0 };
    for entry in fs::read_dir(root.join("signaling/golden"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains("client_")) {
            writer.write("signaling_json", &fs::read(path)?)?;
        }
    }
    for text in OPTIONS {
        writer.write("signaling_json", text.as_bytes())?;
    }
    for name in OFFERS {
        let text = fs::read_to_string(root.join("src/rtc/testdata").join(name))?;
        let lines: String = text.lines().flat_map(|line| [line, "\r\n"]).collect();
        for role in [0_u8, 2, 3] {
            writer.write("sdp_offer", &[&[role], lines.as_bytes()].concat())?;
        }
        writer.write("sdp_fragment", lines.as_bytes())?;
    }
    for text in FRAGMENTS {
        writer.write("sdp_fragment", text.as_bytes())?;
    }
    for text in CANDIDATES {
        writer.write("ice_candidate", text.as_bytes())?;
    }
    for (text, head) in TENSORS {
        let [low, high] = u16::try_from(head.unwrap_or(0)).unwrap_or(0).to_le_bytes();
        writer
            .write("tensor_request", &[&[if head.is_some() { 4 } else { 0 }, low, high], text.as_bytes()].concat())?;
    }
    for page in METRICS {
        writer.write("metrics_page", page.as_bytes())?;
    }
    for text in crate::traces::SEEDS {
        writer.write("trace_context", text.as_bytes())?;
    }
    for bytes in HEADERS {
        writer.write("picture_header", bytes)?;
    }
    for bytes in crate::stills::seeds() {
        writer.write("stills", &bytes)?;
    }
    for name in ["models/ppe-nano/2/manifest.toml", "tests/data/models/yunet/1/manifest.toml"] {
        writer.write("manifest", &fs::read(root.join(name))?)?;
    }
    writer.write("manifest", b"name=\"a\"\nversion=\"1\"\nlicence=\"MIT\"\n[input]\nsize=[32,32]\n[output]\ndecoder=\"yolov8\"\n[classes]\nfile=\"c\"\0one\ntwo\n")?;
    writer.write("config", &fs::read(root.join("saccade.example.toml"))?)?;
    writer.write("config", b"[media]\nport = 1\n[admission]\nmax_sessions = \"many\"\0SACCADE_SESSION__BUDGET_MS=5\nSACCADE_ICE_SERVERS=[{\"urls\":[\"stun:a\"]}]")?;
    for name in ["cameras", "routes.canary", "auth"] {
        let text = format!("[{name}]\nsplit = [{{ model = \"a@1\", weight = 0 }}]\nsecret = \"short\"\n");
        writer.write("config", text.as_bytes())?;
    }
    for claims in [
        r#"{"exp":4000000000,"sub":"a","can_publish":true,"models":["ppe-nano"],"priority":"high"}"#,
        r#"{"exp":4e9,"nbf":1,"can_view":true,"session":"s","max_sessions":1}"#,
        r#"{"exp":1,"can_publish":true}"#,
        r#"{"can_publish":true}"#,
    ] {
        writer.write("token", signed(claims).as_bytes())?;
        writer.write("token", &[&[0x80], claims.as_bytes()].concat())?;
    }
    let unsigned = encode(br#"{"alg":"none"}"#);
    writer.write("token", format!("{unsigned}.{}.", encode(br#"{"exp":4000000000}"#)).as_bytes())?;
    for name in MADE_UP {
        for length in [16, 64, 256, 1024] {
            let noise = noise(length, u64::try_from(length).unwrap_or_default());
            writer.write(name, &noise)?;
            // Few kinds of steps, many times over: what noise seldom makes.
            writer.write(name, &noise.iter().map(|byte| byte & 0x0f).collect::<Vec<_>>())?;
        }
    }
    // A node with a tensor, and one with a graph, in attributes; an initializer that is elsewhere.
    for graph in [
        &[0x3a, 0x0a, 0x0a, 0x08, 0x22, 0x02, b'I', b'f', 0x2a, 0x02, 0x32, 0x00][..],
        &[0x3a, 0x08, 0x0a, 0x06, 0x2a, 0x04, 0x2a, 0x02, 0x42, 0x00],
        &[0x3a, 0x07, 0x2a, 0x05, 0x42, 0x01, b'w', 0x70, 0x01],
    ] {
        writer.write("onnx", graph)?;
    }
    Ok(())
}

struct Writer<'a> {
    corpus: &'a Path,
    number: u32,
}

impl Writer<'_> {
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let most = target(name).map_or(0, |target| target.max_len);
        let folder = self.corpus.join(name);
        fs::create_dir_all(&folder)?;
        self.number += 1;
        fs::write(folder.join(format!("seed-{:03}", self.number)), &bytes[..bytes.len().min(most)])
    }
}

/// The same bytes each time (a 64-bit linear congruential generator, Knuth's constants).
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
