//! Takes still pictures through: header, decoder, models, overlay, encoder.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use metrics::{counter, histogram};
use saccade_signaling::{Dropped, ErrorCode, Options, OptionsPatch};
use tokio::time::timeout_at;

use super::catalogue::Catalogue;
use crate::annotate::{self, Annotator};
use crate::egress::image::Image;
use crate::egress::results::{Processed, Timings};
use crate::encode::picture::{self, Format};
use crate::http::{Annotate, Order, Picture, Tell};
use crate::infer::fusion;
use crate::infer::{self, Detected, Engine, Letterbox, Model, Params, Plan, Whole};
use crate::media::{Detection, I420, MediaTime, Overall};
use crate::offload::offload;
use crate::session::{Claims, Refusal, Registry, Work, options};
use crate::stills::{self, COLOR, Decoded, Decoders, Header, Refused, Room};
use crate::traces::Trail;
use crate::{clock, http};

/// Latency budget of pictures that state none, in milliseconds: the longest that there is.
const BUDGET_MS: u32 = *options::BUDGET_MS.end();
/// When to try again after there was no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// By how much a picture that is decoded smaller is larger than what the model sees of it, as a fraction: what a decoder
/// leaves out is not what a resizer leaves out. Without a margin scores of the default model moved by 0.014 (median), and
/// edges by up to three pixels.
const MARGIN: (u32, u32) = (3, 2);
/// How long after a picture's deadline a model may still be at it.
const OVERTIME: Duration = Duration::from_secs(5);
/// Quality of annotated JPEGs.
const QUALITY: u8 = 90;
/// Type of results.
const JSON: &str = "application/json";
/// Bytes at each end of a picture that tell it from others, where a route is split.
const TOLD_BYTES: usize = 32 * 1024;

thread_local! {
    /// It keeps rasterised letters.
    static ANNOTATOR: RefCell<Option<Annotator>> = const { RefCell::new(None) };
}

/// What pictures may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StillLimits {
    /// Pixels of one.
    pub pixels: u64,
}

/// Answers what is asked of still pictures.
pub struct Stills {
    engine: Arc<Engine>,
    decoders: Arc<Decoders>,
    registry: Arc<Registry>,
    default_model: String,
    limits: StillLimits,
}

/// What was found in a picture, and what it took.
struct Inferred {
    detections: Vec<Detection>,
    overall: Option<Arc<Overall>>,
    timing: infer::Timing,
    batch_size: usize,
    model: String,
    /// No member of an ensemble failed.
    is_whole: bool,
}

/// The answer to a picture.
pub(super) struct Answered {
    pub(super) tell: Tell,
    /// All models that were to answer did, so that it may be given again.
    pub(super) is_whole: bool,
}

/// A picture that is decoded, and its memory.
struct Opened {
    decoded: Decoded,
    whole: [u32; 2],
    took: Duration,
    _room: Room,
}

#[async_trait]
impl http::Stills for Stills {
    fn options(&self, patch: &OptionsPatch, claims: &Claims) -> Result<Options, Refusal> {
        let catalogue = Catalogue { engine: &self.engine, default: &self.default_model, claims };
        catalogue.check(patch.model.as_ref())?;
        options::open(&catalogue, BUDGET_MS, patch)
    }

    async fn detect(&self, picture: Picture, order: Arc<Order>) -> Result<Tell, Refusal> {
        let trail = picture.trail.clone();
        let answered = self.take(picture, &order).await;
        trail.end(answered.as_ref().err().map(|refusal| refusal.code.as_str().into()));
        answered.map(|answered| answered.tell)
    }
}

impl Stills {
    /// With these models and threads.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        decoders: Arc<Decoders>,
        registry: Arc<Registry>,
        default_model: String,
        limits: StillLimits,
    ) -> Self {
        Self { engine, decoders, registry, default_model, limits }
    }

    /// Takes one picture through. Dropping the future withdraws it.
    pub(super) async fn take(&self, picture: Picture, order: &Order) -> Result<Answered, Refusal> {
        counter!("saccade_stills_received_total").increment(1);
        let arrived = picture.arrived;
        let answered = self.answer(picture, order).await;
        match &answered {
            Ok(_) => {
                counter!("saccade_stills_answered_total").increment(1);
                histogram!("saccade_stills_latency_seconds").record(clock::now().saturating_duration_since(arrived));
            }
            Err(refusal) => {
                counter!("saccade_stills_refused_total", "reason" => refusal.code.as_str()).increment(1);
            }
        }
        answered
    }

    /// From the bytes of a picture to those of its answer.
    async fn answer(&self, picture: Picture, order: &Order) -> Result<Answered, Refusal> {
        let Order { options, annotate, .. } = order;
        // Those of a form that has begun, and what is computed for no request, are not asked when they come.
        self.registry.spare(Work::Picture)?;
        let deadline = picture.arrived + Duration::from_millis(options.budget_ms.into());
        let header = self.header(&picture.bytes)?;
        let trail = picture.trail;
        trail.note(|| {
            let [width, height] = header.upright();
            vec![
                ("saccade.model", options.model.clone().into()),
                ("saccade.picture.width", width.into()),
                ("saccade.picture.height", height.into()),
                ("saccade.budget_ms", options.budget_ms.into()),
            ]
        });
        let key = order.key.clone().unwrap_or_else(|| key_of(&picture.bytes));
        let plan = self.engine.resolve(&options.model, &key).map_err(|error| self.refusal(&error, options))?;
        let least = annotate.is_none().then(|| least(&plan, header.upright())).flatten();
        let begin = clock::now();
        let opened = self.open(picture.bytes, header, least, deadline, options).await?;
        let shrunk = || vec![("saccade.decode.shrunk", opened.decoded.shrunk.into())];
        trail.part_with("decode", begin, clock::now(), shrunk);
        let inferred = self.infer(&plan, &opened, options, deadline, &trail).await?;
        let is_whole = inferred.is_whole;
        let arrival = Arrival { at: picture.arrived, deadline };
        let told = Told { place: picture.place, name: picture.name, arrival, opened, inferred };
        let begin = clock::now();
        let (body, content_type) = match annotate {
            Some(format) => {
                let content_type = if order.inline { JSON } else { format.content_type() };
                (self.draw(told, *format, order).await?, content_type)
            }
            None => {
                // Masks are traced, and tensors have many numbers.
                let is_much = matches!(told.inferred.overall.as_deref(), Some(Overall::Mask(_) | Overall::Tensors(_)));
                let options = options.clone();
                (offload(is_much, move || told.to_json(None, &options)).await, JSON)
            }
        };
        trail.part("encode", begin, clock::now());
        Ok(Answered { tell: Tell { body: body.into(), content_type, origin: None }, is_whole })
    }

    fn header(&self, bytes: &[u8]) -> Result<Header, Refusal> {
        let header = Header::read(bytes).map_err(|error| unreadable(&error))?;
        if header.pixels() > self.limits.pixels {
            let Header { width, height, .. } = header;
            let most = self.limits.pixels;
            let message = format!("The picture has {width}x{height} pixels; it may have {most}. Make it smaller.");
            return Err(Refusal::new(ErrorCode::TooLarge, message));
        }
        Ok(header)
    }

    async fn open(
        &self,
        bytes: Bytes,
        header: Header,
        least: Option<[u32; 2]>,
        deadline: Instant,
        options: &Options,
    ) -> Result<Opened, Refusal> {
        let refused = |refused| self.turned_away(refused, options);
        let begin = clock::now();
        let room = self.decoders.room(&header, deadline).await.map_err(refused)?;
        let decoded = self.decoders.decode(bytes, header, least, deadline).await.map_err(refused)?;
        let decoded = decoded.map_err(|error| unreadable(&error))?;
        let took = clock::now().saturating_duration_since(begin);
        Ok(Opened { decoded, whole: header.upright(), took, _room: room })
    }

    async fn infer(
        &self,
        plan: &Plan,
        opened: &Opened,
        options: &Options,
        deadline: Instant,
        trail: &Trail,
    ) -> Result<Inferred, Refusal> {
        let ids = |names: &Vec<String>| {
            let wanted = plan.classes.iter().filter(|class| names.iter().any(|name| **name == *class.name));
            wanted.map(|class| class.id).collect()
        };
        let params = Params {
            score_threshold: options.score_threshold,
            iou_threshold: options.iou_threshold,
            max_detections: options.max_detections as usize,
            classes: options.classes.as_ref().map(ids),
        };
        let run = |model: &Model, params: Params| {
            let Decoded { picture, shrunk } = &opened.decoded;
            let [width, height] = opened.whole;
            let whole = (*shrunk > 1).then_some(Whole { width, height, shrunk: *shrunk });
            model.infer(picture, COLOR, whole, &Arc::new(params), deadline)
        };
        // Models side by side, each with its own queue.
        let asked = clock::now();
        let begun: Vec<_> = plan.members.iter().map(|member| run(&member.model, member.params(&params))).collect();
        // What has begun by the deadline may end after it.
        let answers = join_all(begun.into_iter().map(async |begun| begun?.await));
        let Ok(answers) = timeout_at((deadline + OVERTIME).into(), answers).await else { return Err(late(options)) };
        let mut timing = infer::Timing::default();
        let (mut batch_size, mut failure, mut found, mut overall) = (0, None, Vec::new(), None);
        for (member, answer) in plan.members.iter().zip(answers) {
            match answer {
                Ok(Detected { mut detections, overall: mut own_overall, timing: own, batch_size: size }) => {
                    tell_parts(trail, &member.model, asked, &own, size);
                    member.rename(&mut detections);
                    member.rename_overall(own_overall.as_mut());
                    // Only models that find boxes are fused, so that nobody else says anything of the whole.
                    overall = overall.or(own_overall);
                    timing = slowest(timing, own);
                    batch_size = batch_size.max(size);
                    found.push(Some(detections));
                }
                Err(error) => {
                    tracing::debug!(model = member.model.id(), %error, "a picture was not taken through a model");
                    failure = Some(error);
                    found.push(None);
                }
            }
        }
        let is_whole = failure.is_none();
        // Members that have no answer count neither for nor against what others found, as in sessions.
        if let Some(error) = failure.filter(|_| found.iter().all(Option::is_none)) {
            return Err(self.refusal(&error, options));
        }
        let detections = if plan.fusion.is_some() {
            let lists: Vec<_> = found.iter().map(Option::as_deref).collect();
            plan.fuse(&lists, &params)
        } else {
            found.swap_remove(0).unwrap_or_default()
        };
        let model = match plan.members.as_slice() {
            [only] => only.model.id(),
            _ => options.model.clone(),
        };
        let infer::Timing { preprocess, inference, postprocess, .. } = timing;
        for (stage, time) in [("preprocess", preprocess), ("inference", inference), ("postprocess", postprocess)] {
            histogram!("saccade_stage_duration_seconds", "stage" => stage).record(time);
        }
        if let Some((shadow, params)) = plan.shadow.as_ref().zip(plan.shadow_params(&params))
            && let Ok(begun) = run(shadow, params)
        {
            compare(shadow.id(), begun, detections.clone());
        }
        Ok(Inferred { detections, overall, timing, batch_size, model, is_whole })
    }

    /// Draws on the picture and encodes it, and makes the result with it where that is asked for, on a thread for pictures.
    async fn draw(&self, mut told: Told, format: Annotate, order: &Order) -> Result<Vec<u8>, Refusal> {
        let (options, inline, deadline) = (order.options.clone(), order.inline, told.arrival.deadline);
        let overlay = options.overlay;
        let work = move || {
            let begin = clock::now();
            let Opened { decoded: Decoded { picture, .. }, .. } = &mut told.opened;
            let strip = told.inferred.strip();
            let shown = annotate::Overlay {
                detections: &told.inferred.detections,
                overall: told.inferred.overall.as_deref(),
                boxes: overlay.boxes,
                labels: overlay.labels,
                timing: if overlay.timing { &[&strip] } else { &[] },
                ..annotate::Overlay::default()
            };
            ANNOTATOR.with_borrow_mut(|annotator| {
                let annotator = annotator.get_or_insert_with(Annotator::new);
                annotator.draw(Arc::make_mut(picture), COLOR, &shown);
            });
            let drawn = clock::now();
            let bytes = encode(picture, format)?;
            if !inline {
                return Ok(bytes);
            }
            let encode = clock::now() - drawn;
            let url = format!("data:{};base64,{}", format.content_type(), STANDARD.encode(bytes));
            Ok(told.to_json(Some(&Drawn { url, annotate: drawn - begin, encode }), &options))
        };
        let done =
            self.decoders.run(deadline, work).await.map_err(|refused| self.turned_away(refused, &order.options))?;
        done.map_err(|error: String| {
            tracing::warn!(error, %format, "a picture was not encoded");
            Refusal::new(ErrorCode::Internal, "The annotated picture could not be encoded; ask for its results alone.")
        })
    }

    /// What is told when the models do not answer.
    fn refusal(&self, error: &infer::Error, options: &Options) -> Refusal {
        match error {
            infer::Error::Busy => full("As many pictures wait for the model as may wait; try again later."),
            infer::Error::Late => late(options),
            infer::Error::NoRoom { .. } => full("The device has no memory left for the picture; try again later."),
            infer::Error::Remote { .. } => full("The servers that run the model do not answer; try again later."),
            infer::Error::Closed => self.registry.refuse_draining(),
            infer::Error::UnknownModel { .. } => {
                let model = &options.model;
                let message = format!("There is no model {model}; see GET /v1/models and GET /v1/routes.");
                Refusal::new(ErrorCode::UnknownModel, message)
            }
            _ => Refusal::new(ErrorCode::ModelFailed, "The model failed on the picture; try another model."),
        }
    }

    /// What is told when the threads for pictures do not take one.
    fn turned_away(&self, refused: Refused, options: &Options) -> Refusal {
        match refused {
            Refused::Full => full("As many pictures wait for being decoded as may wait; try again later."),
            Refused::Late => late(options),
            Refused::Closed => self.registry.refuse_draining(),
            Refused::Panicked => Refusal::new(ErrorCode::Internal, "The server failed on this picture; report it."),
        }
    }
}

/// Where the time of a picture at a model went, since it was `asked`.
fn tell_parts(trail: &Trail, model: &Model, asked: Instant, timing: &infer::Timing, batch_size: usize) {
    let mut at = asked;
    for (name, took) in [
        ("queue", timing.queue),
        ("preprocess", timing.preprocess),
        ("inference", timing.inference),
        ("postprocess", timing.postprocess),
    ] {
        trail.part_with(name, at, at + took, || {
            vec![("saccade.model", model.id().into()), ("saccade.batch_size", batch_size.into())]
        });
        at += took;
    }
}

/// When a picture came, and when its answer is due.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Instant,
    deadline: Instant,
}

/// Everything that is told of a picture.
struct Told {
    place: u32,
    name: Option<String>,
    arrival: Arrival,
    opened: Opened,
    inferred: Inferred,
}

/// The picture with what was found drawn on it.
struct Drawn {
    /// As a `data:` URL.
    url: String,
    annotate: Duration,
    encode: Duration,
}

impl Told {
    fn to_json(&self, drawn: Option<&Drawn>, options: &Options) -> Vec<u8> {
        let Self { place, name, arrival, opened, inferred } = self;
        let now = clock::now();
        let (timing, [width, height]) = (inferred.timing, opened.whole);
        let time_of = |time: fn(&Drawn) -> Duration| drawn.map(time).unwrap_or_default();
        let processed = Processed {
            session_id: "",
            frame_id: u64::from(*place),
            time_in: MediaTime::default(),
            time_out: None,
            capture_time_ms: None,
            width,
            height,
            model: &inferred.model,
            detections: &inferred.detections,
            overall: inferred.overall.as_deref(),
            masks: options.masks,
            timings: Timings {
                reorder: Duration::ZERO,
                decode: opened.took,
                queue: timing.queue,
                preprocess: timing.preprocess,
                inference: timing.inference,
                postprocess: timing.postprocess,
                annotate: time_of(|drawn| drawn.annotate),
                encode: time_of(|drawn| drawn.encode),
                total: now.saturating_duration_since(arrival.at),
            },
            budget_ms: options.budget_ms,
            met: now <= arrival.deadline,
            batch_size: u32::try_from(inferred.batch_size).unwrap_or(u32::MAX),
            dropped: Dropped::default(),
            degraded: &[],
        };
        let annotated = drawn.map(|drawn| &*drawn.url);
        Image { name: name.as_deref(), processed, annotated }.to_json(options.format)
    }
}

impl Inferred {
    /// The line of the overlay with times.
    fn strip(&self) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
        let (queue, model) = (milliseconds(self.timing.queue), milliseconds(self.timing.inference));
        format!("queue {queue:.1}  model {model:.1} ms")
    }
}

/// The smallest upright size that serves all the plan's models as well as the whole picture does; none: it has to be whole.
fn least(plan: &Plan, [width, height]: [u32; 2]) -> Option<[u32; 2]> {
    let mut least = [1, 1];
    for model in plan.models() {
        // What a device finds there is told in pixels of the picture that it was given.
        if model.selection().in_place {
            return None;
        }
        let [_, _, content_width, content_height] = Letterbox::new(&model.manifest().input, width, height).content();
        least = [least[0].max(content_width * MARGIN.0 / MARGIN.1), least[1].max(content_height * MARGIN.0 / MARGIN.1)];
    }
    Some(least)
}

/// What a route is split by where nobody says: the same picture gets the same model.
fn key_of(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.len().hash(&mut hasher);
    bytes[..bytes.len().min(TOLD_BYTES)].hash(&mut hasher);
    bytes[bytes.len().saturating_sub(TOLD_BYTES)..].hash(&mut hasher);
    hasher.finish().to_string()
}

fn slowest(one: infer::Timing, other: infer::Timing) -> infer::Timing {
    infer::Timing {
        queue: one.queue.max(other.queue),
        preprocess: one.preprocess.max(other.preprocess),
        inference: one.inference.max(other.inference),
        postprocess: one.postprocess.max(other.postprocess),
    }
}

/// Compares a shadow's answer with what was answered, when it comes; it is never waited for.
fn compare(
    model: String,
    begun: impl Future<Output = Result<Detected, infer::Error>> + Send + 'static,
    answered: Vec<Detection>,
) {
    // It ends by the picture's deadline, with the model at the latest.
    tokio::spawn(async move {
        if let Ok(found) = begun.await {
            let agreement = fusion::agreement(&found.detections, &answered);
            counter!("saccade_shadow_frames_total", "model" => model.clone()).increment(1);
            histogram!("saccade_shadow_agreement_ratio", "model" => model).record(f64::from(agreement));
        }
    });
}

fn encode(picture: &I420, format: Annotate) -> Result<Vec<u8>, String> {
    match format {
        Annotate::Jpeg => stills::encode_jpeg(picture, QUALITY).map_err(|error| error.to_string()),
        Annotate::Png => picture::encode(picture, COLOR, Format::Png).map_err(|error| error.to_string()),
    }
}

fn unreadable(error: &stills::Error) -> Refusal {
    let code = match error {
        stills::Error::Unknown => ErrorCode::UnsupportedType,
        _ => ErrorCode::DecodeFailed,
    };
    let mut message = error.to_string();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Refusal::new(code, message + ".")
}

fn full(message: &str) -> Refusal {
    Refusal::new(ErrorCode::Capacity, message).retry_after(RETRY_AFTER)
}

fn late(options: &Options) -> Refusal {
    let budget = options.budget_ms;
    full(&format!(
        "The picture could not be done within its `budget_ms` of {budget}, so nothing was spent on it; try again later, or \
         with more."
    ))
}
