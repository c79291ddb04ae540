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
/// What is told where there is no room for a picture.
const RECEIVED: &str = "As many pictures are being received as may be; try again later.";

/// Room for all bytes of pictures that are being received or worked on, and of answers that are being sent.
#[derive(Debug)]
pub(in crate::http) struct Uploads {
    room: Arc<Semaphore>,
    all: usize,
}

impl Uploads {
    pub(in crate::http) fn new(bytes: usize) -> Self {
        let all = bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { room: Arc::new(Semaphore::new(all)), all }
    }
}

/// The room of one picture's bytes, or of its answer's, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    fn grow(&mut self, uploads: &Uploads, by: usize, full: &'static str) -> Result<(), Problem> {
        let more = u32::try_from(by).ok().and_then(|by| Arc::clone(&uploads.room).try_acquire_many_owned(by).ok());
        let more =
            more.ok_or_else(|| Problem::from(Refusal::new(ErrorCode::Capacity, full).retry_after(RETRY_AFTER)))?;
        match &mut self.0 {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Turns the room of a picture, which is done with, into that of its answer: the same bytes, which hold it until the
    /// last of them was sent or dropped. An answer that is larger than all room is alone in it.
    ///
    /// # Errors
    /// [`Problem`] with `capacity` where the answer is larger than the picture and there is no more room.
    pub(super) fn keep(mut self, uploads: &Uploads, answer: Bytes) -> Result<Bytes, Problem> {
        let held = self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = answer.len().min(uploads.all);
        if wanted > held {
            self.grow(uploads, wanted - held, "As many answers are being sent as may be; try again later.")?;
        } else if let Some(permit) = &mut self.0 {
            drop(permit.split(held - wanted));
        }
        Ok(Bytes::from_owner(Sent { answer, _room: self }))
    }
}

/// An answer and its room.
struct Sent {
    answer: Bytes,
    _room: Held,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.answer
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
        held.grow(&context.uploads, chunk.len(), RECEIVED)?;
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
                } else if let Err(full) = held.grow(&context.uploads, chunk.len(), RECEIVED) {
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
