//! Bodies of requests within bounds: of bytes, of time, and of the room that all of them have together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::failure::Failure;
use crate::kserve::error::Error;

/// Bytes of a body that nobody wants which are read all the same, so that its client may go on with the connection.
const DISCARDED: usize = 8 * 1024 * 1024;
/// From a request's head to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request waits for room among those whose bodies are in memory.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes by which the room of a body grows.
const STEP: usize = 16 * 1024;

/// Reads what nobody wants; false: there is more of it than is read, or it takes too long.
pub(super) async fn discard(body: Body) -> bool {
    let all = async {
        let (mut chunks, mut read) = (body.into_data_stream(), 0);
        while let Some(Ok(chunk)) = chunks.next().await {
            read += chunk.len();
            if read > DISCARDED {
                return false;
            }
        }
        true
    };
    timeout(BODY_TIMEOUT, all).await.unwrap_or(false)
}

/// The room that a request's bytes take.
pub(super) struct Held {
    room: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// None yet.
    pub(super) fn new(room: &Arc<Semaphore>) -> Self {
        Self { room: Arc::clone(room), permit: None }
    }

    /// Waits until there is room for so many bytes together, for a while.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = (kibibytes(bytes) as usize).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.room).acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
        let more = timeout(ROOM_TIMEOUT, more).await.ok().and_then(Result::ok).ok_or(Error::Busy)?;
        match &mut self.permit {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Gives back what so many bytes do not need.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(held) = &mut self.permit {
            drop(held.split(held.num_permits().saturating_sub(kibibytes(bytes) as usize)));
        }
    }
}

/// A body, or none if it has more than `most` bytes. Where there is `room` to be held, it grows with what came.
pub(super) async fn read(body: &mut Body, most: usize, mut room: Option<&mut Held>) -> Result<Option<Bytes>, Failure> {
    let all = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(|_| Failure::BrokeOff)?.into_data() else { continue };
            let size = bytes.len() + chunk.len();
            if size > most {
                return Ok(None);
            }
            if let Some(room) = &mut room {
                room.grow(size.next_multiple_of(STEP).min(most)).await?;
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    };
    timeout(BODY_TIMEOUT, all).await.map_err(|_| Failure::Slow)?
}

pub(super) fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX)
}
