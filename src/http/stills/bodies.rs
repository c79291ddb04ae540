//! Bytes of pictures on their way in: bounded for each picture, for a request, and for all requests together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use multer::{Field, Multipart};
use saccade_signaling::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::super::{Context, Problem};
use super::{Bounds, Picture, RETRY_AFTER, is_taken, picture, unsupported};
use crate::session::Refusal;

/// How much of a body is read that is refused already: there are clients that read no answer before they have sent
/// everything.
const DISCARDED_BYTES: usize = 32 << 20;
/// How long that may take.
const DISCARD_LIMIT: Duration = Duration::from_secs(2);

/// Room for all bytes of pictures that are being received or worked on.
#[derive(Debug)]
pub(in crate::http) struct Uploads(Arc<Semaphore>);

impl Uploads {
    pub(in crate::http) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }
}

/// The room of one picture's bytes, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    fn grow(&mut self, uploads: &Uploads, by: usize) -> Result<(), Problem> {
        let more = u32::try_from(by).ok().and_then(|by| Arc::clone(&uploads.0).try_acquire_many_owned(by).ok());
        let more = more.ok_or_else(|| {
            let message = "As many pictures are being received as may be; try again later.";
            Problem::from(Refusal::new(ErrorCode::Capacity, message).retry_after(RETRY_AFTER))
        })?;
        match &mut self.0 {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// Reads what is not wanted any more, to a point.
pub(super) async fn discard(body: Body, bounds: &Bounds) {
    let mut stream = body.into_data_stream();
    let _ = timeout(DISCARD_LIMIT.min(bounds.timeout), drain(&mut stream)).await;
}

async fn drain(stream: &mut BodyDataStream) {
    let mut left = DISCARDED_BYTES;
    while let Some(Ok(chunk)) = stream.next().await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            break;
        }
    }
}

/// A body that is one picture.
pub(super) async fn whole(context: &Context, headers: &HeaderMap, body: Body) -> Result<(Picture, Held), Problem> {
    let bounds = &context.settings.stills;
    let mut stream = body.into_data_stream();
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<usize>().ok());
    let read = if announced.is_some_and(|len| len > bounds.picture_bytes) {
        Err(too_large(bounds))
    } else {
        let read = timeout(bounds.timeout, read(context, &mut stream, announced.unwrap_or_default())).await;
        read.unwrap_or_else(|_| Err(too_slow()))
    };
    match read {
        Ok((bytes, held)) => Ok((picture(bytes, 0, None), held)),
        Err(problem) => {
            let _ = timeout(DISCARD_LIMIT, drain(&mut stream)).await;
            Err(problem)
        }
    }
}

async fn read(context: &Context, stream: &mut BodyDataStream, announced: usize) -> Result<(Bytes, Held), Problem> {
    let bounds = &context.settings.stills;
    let (mut bytes, mut held) = (BytesMut::new(), Held::default());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| broken_off())?;
        if bytes.len() + chunk.len() > bounds.picture_bytes {
            return Err(too_large(bounds));
        }
        held.grow(&context.uploads, chunk.len())?;
        // What was announced is believed once something of it came.
        if bytes.is_empty() {
            bytes.reserve(announced.max(chunk.len()));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes.freeze(), held))
}

/// What a form has next.
pub(super) enum Part {
    Picture(Picture, Held),
    /// Something is wrong with this one alone.
    Bad {
        name: Option<String>,
        problem: Problem,
    },
    /// The form cannot be read on.
    Broken(Problem),
    End,
}

/// Reads the next part of a form, whatever its name is. The form comes back with it.
pub(super) async fn next_part(
    context: Arc<Context>,
    mut form: Multipart<'static>,
    place: u32,
) -> (Multipart<'static>, Part) {
    let part = match form.next_field().await {
        Ok(Some(field)) => read_part(&context, field, place).await,
        Ok(None) => Part::End,
        Err(error) => Part::Broken(unreadable(&error)),
    };
    (form, part)
}

async fn read_part(context: &Context, mut field: Field<'static>, place: u32) -> Part {
    let bounds = &context.settings.stills;
    let name = field.file_name().or_else(|| field.name()).map(|name| name.chars().take(255).collect::<String>());
    let (mut bytes, mut held, mut problem) = (BytesMut::new(), Held::default(), None);
    if place >= bounds.pictures {
        problem = Some(too_many(bounds));
    } else if field.content_type().is_some_and(|kind| !is_taken(kind.essence_str())) {
        problem = Some(unsupported());
    }
    loop {
        match field.chunk().await {
            Ok(Some(chunk)) if problem.is_none() => {
                if bytes.len() + chunk.len() > bounds.picture_bytes {
                    problem = Some(too_large(bounds));
                } else if let Err(full) = held.grow(&context.uploads, chunk.len()) {
                    problem = Some(full);
                } else {
                    bytes.extend_from_slice(&chunk);
                    continue;
                }
                // The rest of the part is passed over.
                (bytes, held) = (BytesMut::new(), Held::default());
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => return Part::Broken(unreadable(&error)),
        }
    }
    match problem {
        Some(problem) => Part::Bad { name, problem },
        None => Part::Picture(picture(bytes.freeze(), place, name), held),
    }
}

fn unreadable(error: &multer::Error) -> Problem {
    match error {
        multer::Error::StreamSizeExceeded { .. } => {
            Problem::new(ErrorCode::TooLarge, "The form is larger than all its pictures may be together.")
        }
        multer::Error::StreamReadFailed(_) => broken_off(),
        error => {
            tracing::debug!(%error, "a form was refused");
            Problem::new(ErrorCode::BadRequest, "The body is no form as RFC 7578 describes them, or is cut off.")
        }
    }
}

fn too_large(bounds: &Bounds) -> Problem {
    Problem::new(ErrorCode::TooLarge, format!("A picture may have {} bytes; send a smaller one.", bounds.picture_bytes))
}

fn too_many(bounds: &Bounds) -> Problem {
    let message = format!("A request may have {} pictures; send the others in further ones.", bounds.pictures);
    Problem::new(ErrorCode::TooLarge, message)
}

pub(super) fn too_slow() -> Problem {
    let problem = Problem::new(ErrorCode::BadRequest, "The body took too long; send it again, and faster.");
    problem.with_status(StatusCode::REQUEST_TIMEOUT)
}

fn broken_off() -> Problem {
    Problem::new(ErrorCode::BadRequest, "The body broke off; send it again.")
}
