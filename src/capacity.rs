//! How many machines so many sessions need: from what a frame costs in each stage to processors, GPUs, memory, network,
//! machines and money.
//!
//! A leaf that only reckons. Utilisation law: what is busy is the rate of frames times what each of them takes (Lazowska et
//! al., *Quantitative System Performance*, 1984, section 3.3).

use serde::{Deserialize, Serialize};

/// Share of the processors and of the network that sessions may need for one more to be admitted.
pub const UTILIZATION: f64 = 0.85;
/// What stages take in a server, as a multiple of what they take alone: caches that other threads used meanwhile, hand-overs,
/// following objects, zones, results. Threads of codecs and of models took 1.02 to 1.48 times as long, as the day and the load
/// were (`saccade bench --json`, `server_threads_cpu_ms_per_result`, beside `saccade bench stages`).
const SERVED: f64 = 1.15;
/// What a frame's way through the WebRTC stack takes, in packets' worth (see [`Costs::packet`]): timers, messages, wake-ups. This
/// and the three below were found together, from the time of Tokio's threads at 10 and 30 frames a second, with 7 and 15
/// packets each, with and without video that goes back.
const FRAME_PACKETS: f64 = 45.0;
/// What a frame takes that goes back, likewise.
const RETURNED_PACKETS: f64 = 30.0;
/// What a packet takes in the WebRTC stack, either way, likewise.
const PACKET_PACKETS: f64 = 10.0;
/// What a session takes in a second whether frames come or not, likewise.
const SESSION_PACKETS: f64 = 880.0;
/// Bits of video in a packet.
const PACKET_BITS: f64 = 8.0 * 1_100.0;
/// Headers of RTP, SRTP, UDP and IP, retransmissions and reports, beside the video itself.
const OVERHEAD: f64 = 1.1;
/// Bits of a result: six objects as JSON, and the messages around them.
const RESULT_BITS: f64 = 8.0 * 700.0;
/// Memory of a server without sessions with a model of ten megabytes, and of a session of 640×480, in bytes.
const SERVER_BYTES: f64 = 300e6;
/// See [`SERVER_BYTES`].
const SESSION_BYTES: f64 = 12e6;
const SESSION_PIXELS: f64 = 640.0 * 480.0;
const HOURS_A_MONTH: f64 = 730.0;
/// What a number of a price file may be at most.
const MOST: f64 = 1e9;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Demand {
    /// Sessions at a time.
    pub sessions: u32,
    /// Frames a second of each.
    pub fps: f64,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Bits a second of a session's video, each way in which there is some.
    pub bitrate_bps: f64,
    /// Annotated video goes back.
    pub returned: bool,
    /// Share of the frames that go through the model, 0..1.
    pub inferred: f64,
}

/// What a frame takes in each stage, in milliseconds of a processor; inference in those of a GPU if it runs there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the stages' names")]
pub struct Costs {
    pub decode: f64,
    pub preprocess: f64,
    pub inference: f64,
    pub postprocess: f64,
    pub annotate: f64,
    pub encode: f64,
    /// A packet that is encrypted and sent, and one that is received and decrypted: system calls and encryption alone, as a
    /// measure of how fast this machine is at that.
    pub packet: f64,
    /// Inference runs on a GPU.
    pub on_gpu: bool,
}

/// A machine that can be had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What it is called.
    pub name: String,
    /// Processors as fast as the one that was measured.
    pub cores: f64,
    /// GPUs as fast as the one that was measured.
    #[serde(default)]
    pub gpus: u32,
    /// In gigabytes (10⁹ bytes); missing: not looked at.
    pub memory_gb: Option<f64>,
    /// Megabits a second each way; missing: not looked at.
    pub network_mbps: Option<f64>,
    /// What an hour costs.
    pub per_hour: Option<f64>,
}

/// What machines and traffic cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Of all prices, such as `EUR`.
    #[serde(default)]
    pub currency: String,
    /// Of a gigabyte that leaves.
    #[serde(default)]
    pub out_per_gb: f64,
    /// Machines to choose from.
    #[serde(rename = "machine")]
    pub machines: Vec<Machine>,
}

/// What all sessions together need, whatever machines there are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Needs {
    /// Milliseconds of a processor for each frame, transport included.
    pub frame_ms: f64,
    /// Of it, transport.
    pub transport_ms: f64,
    /// What one thread does of a frame before it takes the session's next, the longest of them, in milliseconds: no number of
    /// processors serves a session whose frames come faster.
    pub longest_ms: f64,
    /// Processors that are busy.
    pub cores: f64,
    /// GPUs that are busy.
    pub gpus: f64,
    /// Bits a second that come.
    pub in_bps: f64,
    /// Bits a second that go.
    pub out_bps: f64,
    /// Bytes of memory, on one machine.
    pub memory_bytes: f64,
}

/// How it is done with one kind of machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fleet {
    /// The kind.
    pub machine: Machine,
    /// Sessions that each serves with room to spare.
    pub sessions_each: u32,
    /// Sessions that each serves at the most.
    pub sessions_at_limit: u32,
    /// What there is too little of for one more session on a machine.
    pub bound_by: Bound,
    /// How many are needed.
    pub machines: u32,
    /// What all of it costs in an hour, traffic included.
    pub per_hour: Option<f64>,
    /// The same for a month of 730 hours.
    pub per_month: Option<f64>,
    /// The same for one session for an hour.
    pub per_session_hour: Option<f64>,
}

/// What binds a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they say it")]
pub enum Bound {
    Processors,
    Gpus,
    Network,
    Memory,
}

impl Bound {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processors => "processors",
            Self::Gpus => "GPUs",
            Self::Network => "network",
            Self::Memory => "memory",
        }
    }
}

impl Prices {
    /// Reads a price file.
    ///
    /// # Errors
    /// What is wrong with it, all mistakes of values at once.
    pub fn parse(text: &str) -> Result<Self, String> {
        let prices: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut wrong = Vec::new();
        let mut check = |is_right: bool, what: String| {
            if !is_right {
                wrong.push(what);
            }
        };
        // So that sums stay numbers.
        let is_price = |price: f64| (0.0..=MOST).contains(&price);
        let is_size = |size: f64| size > 0.0 && size <= MOST;
        check(is_price(prices.out_per_gb), format!("out_per_gb must be 0 to {MOST}"));
        check(!prices.machines.is_empty(), "there must be a [[machine]]".to_owned());
        for (number, machine) in prices.machines.iter().enumerate() {
            let at = format!("machine {} ({})", number + 1, machine.name);
            let more = format!("must be more than 0 and at most {MOST}");
            check(is_size(machine.cores), format!("{at}: cores {more}"));
            check(machine.memory_gb.is_none_or(is_size), format!("{at}: memory_gb {more}"));
            check(machine.network_mbps.is_none_or(is_size), format!("{at}: network_mbps {more}"));
            check(machine.per_hour.is_none_or(is_price), format!("{at}: per_hour must be 0 to {MOST}"));
        }
        if wrong.is_empty() { Ok(prices) } else { Err(wrong.join("; ")) }
    }
}

impl Needs {
    /// What the sessions need.
    #[must_use]
    pub fn of(demand: &Demand, costs: &Costs) -> Self {
        let frames = f64::from(demand.sessions) * demand.fps;
        let sent_bps = if demand.returned { demand.bitrate_bps } else { 0.0 };
        let packets = |bps: f64| (bps / demand.fps / PACKET_BITS).ceil();
        let back_packets = if demand.returned { RETURNED_PACKETS } else { 0.0 };
        let of_packets = PACKET_PACKETS * (packets(demand.bitrate_bps) + packets(sent_bps));
        let worth = FRAME_PACKETS + back_packets + of_packets + SESSION_PACKETS / demand.fps;
        let transport_ms = costs.packet * worth;
        let around = costs.preprocess + costs.postprocess;
        let inference = if costs.on_gpu { 0.0 } else { costs.inference };
        let back = if demand.returned { costs.annotate + costs.encode } else { 0.0 };
        let frame_ms = transport_ms + SERVED * (costs.decode + demand.inferred * (around + inference) + back);
        let on_gpu = if costs.on_gpu { demand.inferred * costs.inference } else { 0.0 };
        let sessions = f64::from(demand.sessions);
        let pixels = f64::from(demand.size.0) * f64::from(demand.size.1) / SESSION_PIXELS;
        Self {
            frame_ms,
            transport_ms,
            longest_ms: costs.decode.max(back).max(demand.inferred * (around + costs.inference)) * SERVED,
            cores: frames * frame_ms / 1e3,
            gpus: frames * on_gpu / 1e3,
            in_bps: sessions * demand.bitrate_bps * OVERHEAD,
            out_bps: sessions * (sent_bps + demand.fps * RESULT_BITS) * OVERHEAD,
            // Half of a session's memory are its pictures.
            memory_bytes: SERVER_BYTES + sessions * SESSION_BYTES * (1.0 + pixels) / 2.0,
        }
    }
}

impl Fleet {
    /// How the sessions are served by machines of one kind, each busy to this share at most (0..1); none if it cannot serve
    /// a single one, since it is too small, or a stage too slow for the session's frames.
    #[must_use]
    pub fn of(demand: &Demand, costs: &Costs, machine: &Machine, utilization: f64, out_per_gb: f64) -> Option<Self> {
        let one = Needs::of(&Demand { sessions: 1, ..*demand }, costs);
        if one.longest_ms > 1e3 / demand.fps {
            return None;
        }
        let memory = one.memory_bytes - SERVER_BYTES;
        let network = machine.network_mbps.map_or(f64::INFINITY, |mbps| mbps * 1e6);
        let at = |share: f64| {
            let room = machine.memory_gb.map_or(f64::INFINITY, |gigabytes| share * gigabytes * 1e9 - SERVER_BYTES);
            [
                (share * machine.cores / one.cores, Bound::Processors),
                (if one.gpus > 0.0 { share * f64::from(machine.gpus) / one.gpus } else { f64::INFINITY }, Bound::Gpus),
                (share * network / one.in_bps.max(one.out_bps), Bound::Network),
                (room / memory, Bound::Memory),
            ]
            .into_iter()
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(sessions, bound)| (whole(sessions), bound))
        };
        let (sessions_each, bound_by) = at(utilization)?;
        let (sessions_at_limit, _) = at(1.0)?;
        if sessions_each == 0 {
            return None;
        }
        let machines = demand.sessions.div_ceil(sessions_each);
        let all = Needs::of(demand, costs);
        let per_hour = machine.per_hour.map(|price| {
            let gigabytes = all.out_bps / 8.0 * 3_600.0 / 1e9;
            f64::from(machines) * price + gigabytes * out_per_gb
        });
        Some(Self {
            machine: machine.clone(),
            sessions_each,
            sessions_at_limit,
            bound_by,
            machines,
            per_hour,
            per_month: per_hour.map(|price| price * HOURS_A_MONTH),
            per_session_hour: per_hour.map(|price| price / f64::from(demand.sessions.max(1))),
        })
    }

    /// How the sessions are served by each kind, cheapest first, then by how few there are.
    #[must_use]
    pub fn all(demand: &Demand, costs: &Costs, prices: &Prices, utilization: f64) -> Vec<Self> {
        let of = |machine| Self::of(demand, costs, machine, utilization, prices.out_per_gb);
        let mut fleets: Vec<_> = prices.machines.iter().filter_map(of).collect();
        let price = |fleet: &Self| fleet.per_hour.unwrap_or(f64::INFINITY);
        fleets.sort_by(|a, b| price(a).total_cmp(&price(b)).then(a.machines.cmp(&b.machines)));
        fleets
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn whole(sessions: f64) -> u32 {
    // What is a whole number but for rounding is one.
    (sessions + 1e-9).clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEMAND: Demand =
        Demand { sessions: 100, fps: 30.0, size: (640, 480), bitrate_bps: 1.66e6, returned: true, inferred: 1.0 };
    const COSTS: Costs = Costs {
        decode: 0.6,
        preprocess: 0.2,
        inference: 2.0,
        postprocess: 0.1,
        annotate: 0.1,
        encode: 0.8,
        packet: 0.01,
        on_gpu: false,
    };

    fn machine(cores: f64) -> Machine {
        Machine { name: format!("{cores} cores"), cores, gpus: 0, memory_gb: None, network_mbps: None, per_hour: None }
    }

    #[test]
    fn processors_are_busy_with_stages_and_with_packets() {
        let needs = Needs::of(&DEMAND, &COSTS);
        // Seven packets come with each frame, and seven go.
        let transport = 0.01 * (45.0 + 30.0 + 10.0 * 14.0 + 880.0 / 30.0);
        assert!((needs.transport_ms - transport).abs() < 1e-9, "{needs:?}");
        assert!((needs.frame_ms - transport - 1.15 * 3.8).abs() < 1e-9, "{needs:?}");
        assert!((needs.cores - 3.0 * needs.frame_ms).abs() < 1e-9 && needs.gpus == 0.0);
        // Each takes 0.204 of a processor: 8 cores have room for 39, and for 33 at 85 %.
        let fleet = Fleet::of(&DEMAND, &COSTS, &machine(8.0), UTILIZATION, 0.0).unwrap();
        assert_eq!((fleet.sessions_at_limit, fleet.sessions_each, fleet.machines), (39, 33, 4));
        assert_eq!((fleet.bound_by, fleet.per_hour), (Bound::Processors, None));
        let results = Needs::of(&Demand { returned: false, ..DEMAND }, &COSTS);
        let less = needs.frame_ms - results.frame_ms;
        assert!(
            (less - 1.15 * 0.9 - 0.01 * 100.0).abs() < 1e-9,
            "neither drawing nor encoding, fewer packets: {results:?}"
        );
        let half = Needs::of(&Demand { inferred: 0.5, ..DEMAND }, &COSTS);
        assert!((needs.frame_ms - half.frame_ms - 1.15 * 1.15).abs() < 1e-9);
    }

    #[test]
    fn packets_of_a_frame_are_counted_whatever_its_rate() {
        let transport = |fps: f64, bitrate_bps: f64| {
            let needs = Needs::of(&Demand { fps, bitrate_bps, ..DEMAND }, &COSTS);
            needs.transport_ms - COSTS.packet * SESSION_PACKETS / fps
        };
        let (slow, fast) = (transport(10.0, 500e3), transport(60.0, 3e6));
        assert!((slow - fast).abs() < 1e-9, "as many packets a frame: {slow} {fast}");
        assert!(transport(30.0, 3e6) > transport(30.0, 1e6));
    }

    #[test]
    fn no_number_of_processors_serves_frames_that_come_faster_than_a_stage_is_done() {
        let slow = Costs { inference: 30.0, ..COSTS };
        let plenty = machine(64.0);
        assert_eq!(Fleet::of(&DEMAND, &slow, &plenty, UTILIZATION, 0.0), None, "more than 33 ms of work every 33 ms");
        assert!(Fleet::of(&Demand { fps: 15.0, ..DEMAND }, &slow, &plenty, UTILIZATION, 0.0).is_some());
        assert!(Fleet::of(&Demand { inferred: 0.5, ..DEMAND }, &slow, &plenty, UTILIZATION, 0.0).is_some());
    }

    #[test]
    fn whatever_there_is_least_of_binds() {
        let plenty = Machine { gpus: 1, memory_gb: Some(64.0), network_mbps: Some(10_000.0), ..machine(64.0) };
        let on_gpu = Costs { on_gpu: true, inference: 1.0, ..COSTS };
        for (machine, costs, bound) in [
            (Machine { cores: 1.0, ..plenty.clone() }, COSTS, Bound::Processors),
            (plenty.clone(), on_gpu, Bound::Gpus),
            (Machine { network_mbps: Some(20.0), ..plenty.clone() }, COSTS, Bound::Network),
            (Machine { memory_gb: Some(0.5), ..plenty.clone() }, COSTS, Bound::Memory),
        ] {
            let fleet = Fleet::of(&DEMAND, &costs, &machine, UTILIZATION, 0.0).unwrap();
            assert_eq!(fleet.bound_by, bound, "{fleet:?}");
        }
        let without = Machine { gpus: 0, ..plenty };
        assert_eq!(Fleet::of(&DEMAND, &on_gpu, &without, UTILIZATION, 0.0), None, "no GPU, no session");
        assert_eq!(Fleet::of(&DEMAND, &COSTS, &machine(0.1), UTILIZATION, 0.0), None, "not a single session");
    }

    #[test]
    fn the_cheapest_comes_first_and_traffic_costs_too() {
        let text = r#"
            currency = "EUR"
            out_per_gb = 0.1
            [[machine]]
            name = "small"
            cores = 4
            per_hour = 0.2
            [[machine]]
            name = "large"
            cores = 64
            network_mbps = 10000
            per_hour = 0.9
        "#;
        let prices = Prices::parse(text).unwrap();
        let fleets = Fleet::all(&DEMAND, &COSTS, &prices, UTILIZATION);
        let names: Vec<_> = fleets.iter().map(|fleet| (fleet.machine.name.as_str(), fleet.machines)).collect();
        assert_eq!(names, [("large", 1), ("small", 7)]);
        let gigabytes = Needs::of(&DEMAND, &COSTS).out_bps / 8.0 * 3_600.0 / 1e9;
        let per_hour = fleets[0].per_hour.unwrap();
        assert!((per_hour - 0.9 - gigabytes * 0.1).abs() < 1e-9);
        assert!((fleets[0].per_session_hour.unwrap() * 100.0 - per_hour).abs() < 1e-9);
    }

    #[test]
    fn all_that_is_wrong_with_a_price_file_is_told() {
        let wrong = Prices::parse("out_per_gb = -1\n[[machine]]\nname = \"x\"\ncores = 0\nper_hour = -2").unwrap_err();
        for part in ["out_per_gb", "machine 1 (x): cores", "per_hour"] {
            assert!(wrong.contains(part), "{wrong}");
        }
        assert!(Prices::parse("[[machine]]\nname = \"x\"\ncores = 2\nprice = 3").unwrap_err().contains("price"));
        assert!(Prices::parse("machine = []").unwrap_err().contains("[[machine]]"));
        for (line, part) in [
            ("cores = nan", "cores"),
            ("cores = inf", "cores"),
            ("cores = 1e300", "cores"),
            ("cores = 1\nper_hour = nan", "per_hour"),
            ("cores = 1\nper_hour = 1e300", "per_hour"),
            ("cores = 1\nmemory_gb = -1", "memory_gb"),
            ("cores = 1\nnetwork_mbps = 0", "network_mbps"),
            ("cores = 1\ngpus = -1", "gpus"),
        ] {
            let wrong = Prices::parse(&format!("[[machine]]\nname = \"x\"\n{line}")).unwrap_err();
            assert!(wrong.contains(part), "{line}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_fleet_serves_all_and_one_machine_fewer_would_not(
            sessions in 1_u32..10_000, fps in 1.0..60.0_f64, inference in 0.1..100.0_f64, cores in 1.0..256.0_f64,
        ) {
            let demand = Demand { sessions, fps, ..DEMAND };
            let costs = Costs { inference, ..COSTS };
            prop_assert!(Needs::of(&demand, &costs).frame_ms > inference);
            if let Some(fleet) = Fleet::of(&demand, &costs, &machine(cores), UTILIZATION, 0.0) {
                prop_assert!(fleet.machines * fleet.sessions_each >= sessions);
                prop_assert!((fleet.machines - 1) * fleet.sessions_each < sessions);
                prop_assert!(fleet.sessions_each <= fleet.sessions_at_limit);
                let each = Needs::of(&Demand { sessions: fleet.sessions_each, ..demand }, &costs);
                prop_assert!(each.cores <= cores * UTILIZATION + 1e-6);
            }
        }
    }
}
