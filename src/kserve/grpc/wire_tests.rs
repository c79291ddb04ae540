//! What a client may make of a message's frame (gRPC over HTTP/2: a flag, four bytes of length, the message), whatever the
//! library in front of us thinks of it.

use std::convert::Infallible;

use async_trait::async_trait;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::kserve::{DataType, Entry, MAX_TENSORS, Metadata, Outlet, Request, Response, Statistics};

/// Bytes of tensors that a request may have.
const LIMIT: usize = 4096;

/// Gives back what it gets.
struct Echo;

#[async_trait]
impl Models for Echo {
    fn is_ready(&self) -> bool {
        true
    }

    fn is_model_ready(&self, _: Named<'_>) -> Result<bool, Error> {
        Ok(true)
    }

    fn index(&self) -> Vec<Entry> {
        Vec::new()
    }

    async fn metadata(&self, model: Named<'_>) -> Result<Arc<Metadata>, Error> {
        let outlet = Outlet { name: "x".to_owned(), datatype: DataType::Uint8, shape: vec![-1] };
        Ok(Arc::new(Metadata {
            name: model.name.to_owned(),
            version: "1".to_owned(),
            versions: vec!["1".to_owned()],
            platform: "test".to_owned(),
            inputs: vec![outlet.clone()],
            outputs: vec![outlet],
            max_batch: 0,
            instances: 1,
        }))
    }

    async fn infer(&self, model: Named<'_>, request: Request, _: &Trail) -> Result<Response, Error> {
        let (model, version) = (model.name.to_owned(), "1".to_owned());
        Ok(Response { model, version, id: request.id, outputs: request.inputs })
    }

    fn statistics(&self, _: Option<Named<'_>>) -> Result<Vec<Statistics>, Error> {
        Ok(Vec::new())
    }

    async fn load(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn unload(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
}

fn message(bytes: usize) -> p::ModelInferRequest {
    let shape = vec![i64::try_from(bytes).unwrap()];
    let input = p::InferTensor { name: "x".to_owned(), datatype: "UINT8".to_owned(), shape, ..Default::default() };
    let raw = vec![Bytes::from(vec![7; bytes])];
    p::ModelInferRequest { model_name: "echo".to_owned(), inputs: vec![input], raw, ..Default::default() }
}

/// A message with a flag and a length in front of it.
fn framed(flag: u8, length: usize, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend(u32::try_from(length).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

fn whole(message: &[u8]) -> Vec<u8> {
    framed(0, message.len(), message)
}

/// What a call is answered: its status, and the bytes of its message.
async fn call(body: Body, headers: &[(&'static str, &'static str)]) -> (Code, usize) {
    let service =
        Service::new(Arc::new(Echo), Arc::new(|_| Some(Claims::everything())), LIMIT, ("test", "1"), 4, Tracer::off());
    let mut request = HttpRequest::post(format!("/{SERVICE}/ModelInfer")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = service.router().oneshot(request.body(body).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "gRPC has its own statuses");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).expect("a status");
    (Code::from_bytes(status.as_bytes()), body.to_bytes().len())
}

async fn send(body: Vec<u8>) -> Code {
    call(Body::from(body), &[]).await.0
}

#[tokio::test]
async fn a_message_may_come_in_any_pieces() {
    let bytes = whole(&message(300).encode_to_vec());
    let (code, whole) = call(Body::from(bytes.clone()), &[]).await;
    assert!(code == Code::Ok && whole > 300, "{code:?}");
    for size in [1, 2, 5, 6, 100] {
        let pieces: Vec<_> = bytes.chunks(size).map(|it| Ok::<_, Infallible>(Bytes::copy_from_slice(it))).collect();
        let found = call(Body::from_stream(stream::iter(pieces)), &[]).await;
        assert_eq!(found, (Code::Ok, whole), "pieces of {size}");
    }
}

#[tokio::test]
async fn a_length_that_lies_is_an_error() {
    let bytes = message(300).encode_to_vec();
    // More than comes, and so much that nobody may send it: no memory is taken for that.
    assert_ne!(send(framed(0, bytes.len() + 1, &bytes)).await, Code::Ok);
    for length in [LIMIT + MESSAGE_ROOM + 1, u32::MAX as usize] {
        assert_eq!(send(framed(0, length, &bytes)).await, Code::OutOfRange, "{length}");
    }
    // Less: what is left of the message is no frame, and the message is none.
    assert_ne!(send(framed(0, bytes.len() - 1, &bytes)).await, Code::Ok);
    assert_ne!(send(bytes[..3].to_vec()).await, Code::Ok);
    assert_ne!(send(Vec::new()).await, Code::Ok);
}

#[tokio::test]
async fn garbage_after_a_message_is_an_error() {
    let bytes = whole(&message(300).encode_to_vec());
    assert_ne!(send([&bytes[..], &[9, 0, 0, 0, 1, 0]].concat()).await, Code::Ok, "a flag that there is not");
    assert_ne!(send([&bytes[..], &framed(0, 100, b"short")].concat()).await, Code::Ok);
}

#[tokio::test]
async fn compressed_messages_are_refused_whatever_they_say() {
    let bytes = message(300).encode_to_vec();
    assert_ne!(send(framed(1, bytes.len(), &bytes)).await, Code::Ok, "with what, it does not say");
    assert_ne!(send(framed(2, bytes.len(), &bytes)).await, Code::Ok, "a flag that there is not");
    let packed = Body::from(framed(1, bytes.len(), &bytes));
    assert_eq!(call(packed, &[("grpc-encoding", "gzip")]).await.0, Code::Unimplemented);
    let plain = Body::from(whole(&bytes));
    assert_eq!(call(plain, &[("grpc-encoding", "identity")]).await.0, Code::Ok);
}

#[tokio::test]
async fn more_than_may_be_sent_is_refused() {
    assert_eq!(send(whole(&message(LIMIT).encode_to_vec())).await, Code::Ok);
    // It fits into the message's room, not into that of tensors.
    assert_eq!(send(whole(&message(LIMIT + 1).encode_to_vec())).await, Code::ResourceExhausted);
    assert_eq!(send(whole(&message(LIMIT + MESSAGE_ROOM).encode_to_vec())).await, Code::OutOfRange);
    let mut many = message(1);
    many.inputs = vec![many.inputs[0].clone(); MAX_TENSORS + 1];
    assert_eq!(send(whole(&many.encode_to_vec())).await, Code::InvalidArgument);
    // The same in pieces: it is counted once it is whole.
    let pieces: Vec<_> = whole(&many.encode_to_vec()).chunks(7).map(|it| Ok::<_, Infallible>(it.to_vec())).collect();
    assert_eq!(call(Body::from_stream(stream::iter(pieces)), &[]).await.0, Code::InvalidArgument);
}
