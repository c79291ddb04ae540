//! Answers to still pictures that were given before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use saccade_signaling::{ErrorCode, Options, OptionsPatch};

use super::stills::{Answered, Stills};
use crate::cache::{Answer, Ask, Cache, Compute, Computed, Error, Failure, Forgotten, Key, Outcome, Purpose, Tag};
use crate::clock;
use crate::http::{self, Order, Origin, Picture, Tell};
use crate::infer::{Engine, Model, Plan};
use crate::offload::{LARGE, offload};
use crate::session::{Claims, Refusal};
use crate::traces::Trail;

/// What keys begin with: another one where the same parts mean something else.
const FORMAT: &[u8] = b"saccade stills 1";

/// [`Stills`] behind a [`Cache`].
pub struct Cached {
    stills: Arc<Stills>,
    engine: Arc<Engine>,
    cache: Cache<Refusal>,
}

#[async_trait]
impl http::Stills for Cached {
    fn options(&self, patch: &OptionsPatch, claims: &Claims) -> Result<Options, Refusal> {
        self.stills.options(patch, claims)
    }

    async fn detect(&self, picture: Picture, order: Arc<Order>) -> Result<Tell, Refusal> {
        let trail = picture.trail.clone();
        let told = self.find(picture, order).await;
        trail.end(told.as_ref().err().map(|refusal| refusal.code.as_str().into()));
        told
    }

    async fn forget(&self, tag: &Tag) -> Option<Forgotten> {
        Some(self.cache.forget(tag).await)
    }
}

impl Cached {
    /// Puts a cache before pictures.
    #[must_use]
    pub const fn new(stills: Arc<Stills>, engine: Arc<Engine>, cache: Cache<Refusal>) -> Self {
        Self { stills, engine, cache }
    }

    /// An answer that was given before, or a new one.
    async fn find(&self, picture: Picture, order: Arc<Order>) -> Result<Tell, Refusal> {
        let (trail, begin) = (picture.trail.clone(), clock::now());
        // The same picture gets the same model of a split route, here and where it is inferred.
        let bytes = picture.bytes.clone();
        let content = offload(bytes.len() > LARGE, move || Key::of(&[b"picture", &bytes])).await;
        let split_by = order.key.clone().unwrap_or_else(|| content.to_string());
        let order = Arc::new(Order { key: Some(split_by), ..Order::clone(&order) });
        let Some(models) = Models::of(&self.engine, &order) else {
            return self.stills.take(picture, &order).await.map(|answered| answered.tell);
        };
        let ask = Ask {
            key: key(&content, &picture, &order, &models),
            reuse: order.reuse,
            deadline: picture.arrived + Duration::from_millis(order.options.budget_ms.into()),
        };
        let compute = self.compute(picture, Arc::clone(&order), models, begin);
        match self.cache.get_or_compute(ask, compute).await {
            Ok(answer) => {
                let outcome = name(answer.outcome);
                trail.note(|| vec![("saccade.cache", outcome.into())]);
                // What is computed comes after the look at the cache, which is told of there.
                if !matches!(answer.outcome, Outcome::Miss | Outcome::Bypassed) {
                    trail.part("cache", begin, clock::now());
                }
                Ok(tell(&answer))
            }
            Err(Error::Failed(refusal)) => Err(refusal),
            Err(Error::Late) => Err(late(&order.options)),
        }
    }

    /// How to answer a picture.
    fn compute(&self, picture: Picture, order: Arc<Order>, models: Models, begin: Instant) -> Compute<Refusal> {
        let (stills, engine) = (Arc::clone(&self.stills), Arc::clone(&self.engine));
        Box::new(move |purpose| {
            Box::pin(async move {
                let picture = match purpose {
                    Purpose::Request => {
                        picture.trail.part("cache", begin, clock::now());
                        picture
                    }
                    // Its budget begins anew, and it is of no request.
                    Purpose::Refresh => Picture { arrived: clock::now(), trail: Trail::off(), ..picture },
                };
                let told = stills.take(picture, &order).await;
                let told = told.map_err(|error| Failure { shared: is_of_picture(error.code), error })?;
                let Answered { tell, is_whole } = told;
                // What lacks a model's part may be whole the next time; and where models changed meanwhile, nobody can say
                // whose answer it is.
                let keep = is_whole && Models::of(&engine, &order).is_some_and(|now| now.ids == models.ids);
                let mut tags = models.tags;
                tags.extend(order.tags.iter().cloned());
                Ok(Computed { value: tell.body, media_type: tell.content_type, tags, keep })
            })
        })
    }
}

/// The models that answer, as keys and tags name them.
struct Models {
    ids: Vec<String>,
    tags: Vec<Tag>,
}

impl Models {
    /// None where there is no such model, or where nobody knows whether it will be the same one later.
    fn of(engine: &Engine, order: &Order) -> Option<Self> {
        let plan = engine.resolve(&order.options.model, order.key.as_deref().unwrap_or_default()).ok()?;
        let Plan { members, fusion, .. } = &plan;
        let mut ids = vec![format!("{fusion:?}")];
        let mut tags = Vec::new();
        for member in members {
            let (manifest, selection) = (member.model.manifest(), member.model.selection());
            // What the same version says depends on its graphs, its manifest, and a little on what computes it.
            let graphs = graphs(&member.model)?;
            ids.push(format!("{} {} {} {graphs} {manifest:?}", manifest.id(), selection.provider, selection.precision));
            tags.extend([Tag::model(&manifest.name), Tag::model(&manifest.id())]);
        }
        Some(Self { ids, tags })
    }
}

/// What tells a model's graphs from others. Other servers may change theirs, unless a version of it is asked for there.
fn graphs(model: &Model) -> Option<&str> {
    match &model.manifest().remote {
        Some(remote) => remote.version.as_deref(),
        None => model.content(),
    }
}

/// Everything that an answer depends on. Its place and name in the request are part of it.
fn key(content: &Key, picture: &Picture, order: &Order, models: &Models) -> Key {
    // The same options are the same text: fields have one order.
    let options = serde_json::to_vec(&order.options).unwrap_or_default();
    let shape = format!("{:?} {} {} {:?}", order.annotate, order.inline, picture.place, picture.name);
    let mut parts: Vec<&[u8]> = vec![FORMAT, content.as_bytes(), &options, shape.as_bytes()];
    parts.extend(models.ids.iter().map(String::as_bytes));
    Key::of(&parts)
}

/// As traces have it.
const fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hit(_) => "hit",
        Outcome::Stale(_) => "stale",
        Outcome::Miss => "miss",
        Outcome::Joined => "joined",
        Outcome::Bypassed => "bypassed",
    }
}

fn tell(answer: &Answer) -> Tell {
    let entry = &answer.entry;
    // Of what is read from a tier the type is a text; there are three.
    let content_type = match entry.media_type() {
        "image/jpeg" => "image/jpeg",
        "image/png" => "image/png",
        _ => "application/json",
    };
    let origin = Origin { etag: entry.etag(), outcome: answer.outcome, age: entry.elapsed(clock::wall()) };
    Tell { body: entry.value().clone(), content_type, origin: Some(origin) }
}

/// Whether it is the picture's fault, so that everybody who sends the same is told the same.
const fn is_of_picture(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnsupportedType | ErrorCode::TooLarge | ErrorCode::DecodeFailed)
}

fn late(options: &Options) -> Refusal {
    let message = format!(
        "The same picture, which another request sent, could not be done within the `budget_ms` of {}; try again later, or \
         with more.",
        options.budget_ms
    );
    Refusal::new(ErrorCode::Capacity, message).retry_after(Duration::from_secs(1))
}
