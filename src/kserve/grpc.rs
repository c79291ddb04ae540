//! `inference.GRPCInferenceService`: the protocol as messages of gRPC.

mod messages;
mod parts;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod wire_tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, Request as HttpRequest, Response as HttpResponse};
use axum::routing::post;
use futures_util::{Stream, StreamExt, stream};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};
use tonic::codec::Codec;
use tonic::server::Grpc;
use tonic::{Code, Request as Asked, Response as Answer, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use self::parts::Counted;
use super::access::{Denied, Identify, count, may_infer, may_manage, may_see, may_send, measured};
use super::error::Error;
use super::proto as p;
use super::{EXTENSIONS, Models, Named};
use crate::claims::Claims;
use crate::clock;
use crate::traces::{Context as TraceContext, Tracer, Trail};

pub(super) use messages::{outlets, read_request, read_response, write_request, write_response};

/// Name of the service.
pub const SERVICE: &str = "inference.GRPCInferenceService";
/// What a message may have beyond its tensors.
pub(super) const MESSAGE_ROOM: usize = 64 * 1024;
/// What a message without tensors may have.
const SMALL_MESSAGE: usize = 8 * 1024;
/// How long a request waits for a place among those whose messages are in memory.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take from its head to its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The same of one with tensors.
const INFER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stream's next message may take to come.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The service, over these models.
pub struct Service {
    /// What it gives access to.
    pub models: Arc<dyn Models>,
    /// Who asks.
    pub identify: Identify,
    /// Bytes of a message's tensors at most.
    pub limit: usize,
    /// Name and version of the server.
    pub server: (&'static str, &'static str),
    /// Places for messages with tensors.
    places: Arc<Semaphore>,
    tracer: Tracer,
    /// Places for streams, each of which has a message in memory.
    streams: Arc<Semaphore>,
}

impl Service {
    /// A service of which so many messages with tensors are in memory at a time.
    #[must_use]
    pub fn new(
        models: Arc<dyn Models>,
        identify: Identify,
        limit: usize,
        server: (&'static str, &'static str),
        places: usize,
        tracer: Tracer,
    ) -> Self {
        let [places, streams] = [places, places].map(|places| Arc::new(Semaphore::new(places)));
        Self { models, identify, limit, server, places, tracer, streams }
    }

    /// What answers its methods, to be served over HTTP/2.
    pub fn router(self) -> Router {
        let path = format!("/{SERVICE}/{{method}}");
        Router::new().route(&path, post(dispatch)).fallback(unknown).with_state(Arc::new(self))
    }
}

async fn unknown() -> HttpResponse<Body> {
    status(&Status::unimplemented(format!("the only service here is {SERVICE}")))
}

/// A status as a whole answer.
#[must_use]
pub fn status(status: &Status) -> HttpResponse<Body> {
    status.clone().into_http()
}

async fn dispatch(
    State(service): State<Arc<Service>>,
    Path(method): Path<String>,
    request: HttpRequest<Body>,
) -> HttpResponse<Body> {
    let claims = (service.identify)(request.headers());
    let is_open = matches!(method.as_str(), "ServerLive" | "ServerReady" | "ServerMetadata");
    let Some(claims) = claims.or_else(|| is_open.then(Claims::default)) else {
        return status(&denied(&Denied::Unauthenticated));
    };
    if matches!(method.as_str(), "ModelInfer" | "ModelStreamInfer") {
        if let Err(reason) = may_send(&claims) {
            return status(&denied(&reason));
        }
        if let Err(error) = service.models.spare() {
            count("grpc", Some(&error));
            return status(&error.into());
        }
    }
    let caller = request.extensions().get::<TraceContext>().cloned().map(Arc::new);
    let call = Call { service, claims: Arc::new(claims), caller };
    match method.as_str() {
        "ServerLive" => call.unary(request, async |_, _: p::Empty| Ok(p::Yes { yes: true })).await,
        "ServerReady" => {
            call.unary(request, async |call: Call, _: p::Empty| Ok(p::Yes { yes: call.service.models.is_ready() }))
                .await
        }
        "ServerMetadata" => call.unary(request, Call::server_metadata).await,
        "ModelReady" => call.unary(request, Call::model_ready).await,
        "ModelMetadata" => call.unary(request, Call::model_metadata).await,
        "ModelConfig" => call.unary(request, Call::model_config).await,
        "ModelStatistics" => call.unary(request, Call::model_statistics).await,
        "RepositoryIndex" => call.unary(request, Call::index).await,
        "RepositoryModelLoad" => call.unary(request, Call::load).await,
        "RepositoryModelUnload" => call.unary(request, Call::unload).await,
        "ModelInfer" => {
            let place = timeout(PLACE_TIMEOUT, call.service.places.acquire()).await;
            if !matches!(place, Ok(Ok(_))) {
                count("grpc", Some(&Error::Busy));
                return status(&Error::Busy.into());
            }
            let within = time_allowed(request.headers());
            let codec = Counted::<ProstCodec<p::ModelInferResponse, p::ModelInferRequest>>::default();
            let bounds = (call.limit(), INFER_TIMEOUT);
            let answer = move |call: Call, request| call.infer(request, within);
            call.clone().bounded(codec, bounds, request, answer).await
        }
        "ModelStreamInfer" => match Arc::clone(&call.service.streams).try_acquire_owned() {
            Ok(place) => call.stream(request, place).await,
            Err(_) => status(&Error::Busy.into()),
        },
        other => status(&Status::unimplemented(format!("{other} is not offered here"))),
    }
}

/// One call, and who makes it.
#[derive(Clone)]
struct Call {
    service: Arc<Service>,
    claims: Arc<Claims>,
    /// The span that it is a part of.
    caller: Option<Arc<TraceContext>>,
}

impl Call {
    /// Bytes of a message with tensors.
    fn limit(&self) -> usize {
        self.service.limit.saturating_add(MESSAGE_ROOM)
    }

    /// A call without tensors.
    async fn unary<Q, A, F>(self, request: HttpRequest<Body>, answer: impl Fn(Self, Q) -> F) -> HttpResponse<Body>
    where
        Q: Message + Default + Send + 'static,
        A: Message + Send + 'static,
        F: Future<Output = Result<A, Status>> + Send,
    {
        self.bounded(ProstCodec::<A, Q>::default(), (SMALL_MESSAGE, CALL_TIMEOUT), request, answer).await
    }

    /// A call whose message has so many bytes at most, and which takes no longer than this.
    async fn bounded<Q, A, F>(
        self,
        codec: impl Codec<Encode = A, Decode = Q>,
        (limit, longest): (usize, Duration),
        request: HttpRequest<Body>,
        answer: impl Fn(Self, Q) -> F,
    ) -> HttpResponse<Body>
    where
        Q: Message + Default + Send + 'static,
        A: Message + Send + 'static,
        F: Future<Output = Result<A, Status>> + Send,
    {
        let mut grpc = Grpc::new(codec).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX);
        let call = service_fn(|asked: Asked<Q>| {
            let answered = answer(self.clone(), asked.into_inner());
            async move { answered.await.map(Answer::new) }
        });
        match timeout(longest, grpc.unary(call, request)).await {
            Ok(answered) => answered.map(Body::new),
            Err(_) => {
                status(&Status::deadline_exceeded("the call took too long; send its message faster, or a smaller one"))
            }
        }
    }

    /// Requests of a stream are answered one after the other.
    async fn stream(self, request: HttpRequest<Body>, place: OwnedSemaphorePermit) -> HttpResponse<Body> {
        let (place, limit) = (Arc::new(place), self.limit());
        let mut grpc = Grpc::new(Counted::<ProstCodec<p::ModelStreamInferResponse, p::ModelInferRequest>>::default())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX);
        let call = service_fn(|asked: Asked<Streaming<p::ModelInferRequest>>| {
            let answers = self.clone().answers(asked.into_inner(), Arc::clone(&place));
            async move { Ok::<_, Status>(Answer::new(answers)) }
        });
        grpc.streaming(call, request).await.map(Body::new)
    }

    fn answers(
        self,
        requests: Streaming<p::ModelInferRequest>,
        place: Arc<OwnedSemaphorePermit>,
    ) -> impl Stream<Item = Result<p::ModelStreamInferResponse, Status>> + Send + 'static {
        stream::unfold((self, requests, false, place), async |(call, mut requests, over, place)| {
            if over {
                return None;
            }
            let request = match next(call.claims.expires, &mut requests).await? {
                Ok(request) => request,
                Err(status) => return Some((Err(status), (call, requests, true, place))),
            };
            let answer = match call.clone().infer(request, None).await {
                Ok(response) => p::ModelStreamInferResponse { response: Some(response), ..Default::default() },
                Err(status) => {
                    p::ModelStreamInferResponse { error_message: status.message().to_owned(), ..Default::default() }
                }
            };
            Some((Ok(answer), (call, requests, false, place)))
        })
    }

    async fn server_metadata(self, _: p::Empty) -> Result<p::ServerMetadataResponse, Status> {
        let (name, version) = self.service.server;
        Ok(p::ServerMetadataResponse {
            name: name.to_owned(),
            version: version.to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        })
    }

    async fn model_ready(self, request: p::ModelRequest) -> Result<p::Yes, Status> {
        let yes = self.service.models.is_model_ready(self.seen(&request)?)?;
        Ok(p::Yes { yes })
    }

    async fn model_metadata(self, request: p::ModelRequest) -> Result<p::ModelMetadataResponse, Status> {
        Ok(messages::metadata(&*self.service.models.metadata(self.seen(&request)?).await?))
    }

    async fn model_config(self, request: p::ModelRequest) -> Result<p::ModelConfigResponse, Status> {
        Ok(messages::config(&*self.service.models.metadata(self.seen(&request)?).await?))
    }

    async fn model_statistics(self, request: p::ModelRequest) -> Result<p::ModelStatisticsResponse, Status> {
        let model = if request.name.is_empty() { None } else { Some(self.seen(&request)?) };
        let mut found = self.service.models.statistics(model)?;
        found.retain(|it| may_see(&self.claims, Named::new(&it.name, &it.version)).is_ok());
        Ok(messages::statistics(&found))
    }

    async fn index(self, request: p::IndexRequest) -> Result<p::IndexResponse, Status> {
        let mut entries = self.service.models.index();
        entries.retain(|it| it.ready || !request.ready);
        entries.retain(|it| may_see(&self.claims, Named::new(&it.name, &it.version)).is_ok());
        Ok(messages::index(entries))
    }

    async fn load(self, request: p::RepositoryRequest) -> Result<p::Empty, Status> {
        let model = self.managed(&request)?;
        if !request.parameters.is_empty() {
            return Err(Error::Unsupported { what: "loading a model with parameters".to_owned() }.into());
        }
        self.service.models.load(model).await?;
        Ok(p::Empty {})
    }

    async fn unload(self, request: p::RepositoryRequest) -> Result<p::Empty, Status> {
        self.service.models.unload(self.managed(&request)?).await?;
        Ok(p::Empty {})
    }

    async fn infer(
        self,
        message: p::ModelInferRequest,
        within: Option<Duration>,
    ) -> Result<p::ModelInferResponse, Status> {
        let trail = self.service.tracer.work("tensors", self.caller.as_deref(), clock::now());
        trail.note(|| vec![("saccade.protocol", "grpc".into())]);
        let answer = self.run(message, within, &trail).await;
        trail.end(answer.as_ref().err().map(|status| format!("{:?}", status.code()).into()));
        answer
    }

    async fn run(
        self,
        message: p::ModelInferRequest,
        within: Option<Duration>,
        trail: &Trail,
    ) -> Result<p::ModelInferResponse, Status> {
        let (name, version) = (message.model_name.clone(), message.model_version.clone());
        let model = Named::new(&name, &version);
        may_infer(&self.claims, model).map_err(|reason| denied(&reason))?;
        // Streams are asked when they begin, and may go on for long.
        self.service.models.spare().inspect_err(|error| count("grpc", Some(error)))?;
        let begin = clock::now();
        let read = read_request(message, self.service.limit);
        trail.part("read", begin, clock::now());
        let mut request = read.inspect_err(|error| count("grpc", Some(error)))?;
        request.timeout = request.timeout.into_iter().chain(within).min();
        let infer = async |request| self.service.models.infer(model, request, trail).await;
        let response = measured("grpc", request, infer).await?;
        trail.note(|| vec![("saccade.model", format!("{}@{}", response.model, response.version).into())]);
        let begin = clock::now();
        let response = write_response(response);
        trail.part("encode", begin, clock::now());
        Ok(response)
    }

    fn seen<'a>(&self, request: &'a p::ModelRequest) -> Result<Named<'a>, Status> {
        let model = Named::new(&request.name, &request.version);
        may_see(&self.claims, model).map_err(|reason| denied(&reason))?;
        Ok(model)
    }

    fn managed<'a>(&self, request: &'a p::RepositoryRequest) -> Result<&'a str, Status> {
        may_manage(&self.claims, Named::new(&request.model, "")).map_err(|reason| denied(&reason))?;
        Ok(&request.model)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Malformed { .. }
            | Error::BadTensor { .. }
            | Error::WrongInput { .. }
            | Error::Inputs { .. }
            | Error::NoOutput { .. } => Code::InvalidArgument,
            Error::TooLarge { .. } | Error::Busy | Error::NoMemory => Code::ResourceExhausted,
            Error::Unsupported { .. } => Code::Unimplemented,
            Error::UnknownModel { .. } => Code::NotFound,
            Error::NotReady { .. } => Code::Unavailable,
            Error::Late => Code::DeadlineExceeded,
            Error::Failed { .. } => Code::Internal,
            Error::Conflict { .. } => Code::FailedPrecondition,
        };
        Self::new(code, error.to_string())
    }
}

/// The next message of a stream, as long as it comes in time and the token is good.
async fn next<S>(expires: Option<Instant>, requests: &mut S) -> Option<Result<p::ModelInferRequest, Status>>
where
    S: Stream<Item = Result<p::ModelInferRequest, Status>> + Unpin,
{
    let begin = clock::now();
    let end = begin + MESSAGE_TIMEOUT;
    let expires = expires.filter(|expires| *expires < end);
    // What is there at once would be taken even if its time were over.
    if expires.is_some_and(|expires| expires <= begin) {
        return Some(Err(denied(&Denied::Unauthenticated)));
    }
    match timeout_at(expires.unwrap_or(end).into(), requests.next()).await {
        Ok(message) => message,
        Err(_) if expires.is_some() => Some(Err(denied(&Denied::Unauthenticated))),
        Err(_) => {
            let problem = "no message came for a while; open another stream for the next";
            Some(Err(Status::deadline_exceeded(problem)))
        }
    }
}

fn denied(reason: &Denied) -> Status {
    let code = if *reason == Denied::Unauthenticated { Code::Unauthenticated } else { Code::PermissionDenied };
    Status::new(code, reason.to_string())
}

/// What the client's own deadline leaves (`grpc-timeout`, in the units of gRPC over HTTP/2).
fn time_allowed(headers: &HeaderMap) -> Option<Duration> {
    const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = number.parse().ok().filter(|_| number.len() <= 8)?;
    let each = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(each * number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_token_or_when_nothing_comes() {
        let mut silent = stream::pending::<Result<p::ModelInferRequest, Status>>();
        let code = |found: Option<Result<p::ModelInferRequest, Status>>| found.unwrap().unwrap_err().code();
        assert_eq!(code(next(None, &mut silent).await), Code::DeadlineExceeded);
        let later = |seconds| clock::now() + Duration::from_secs(seconds);
        assert_eq!(code(next(Some(later(1)), &mut silent).await), Code::Unauthenticated);
        assert_eq!(code(next(Some(later(3600)), &mut silent).await), Code::DeadlineExceeded);
        let message = || Ok::<_, Status>(p::ModelInferRequest::default());
        let mut two = stream::iter([message(), message()]);
        assert!(next(Some(later(3600)), &mut two).await.unwrap().is_ok());
        assert_eq!(code(next(Some(clock::now()), &mut two).await), Code::Unauthenticated, "though one is there");
        assert!(next(None, &mut two).await.unwrap().is_ok());
        assert!(next(None, &mut two).await.is_none());
    }

    #[test]
    fn the_clients_deadline_is_read_in_its_unit() {
        let allowed = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            time_allowed(&headers)
        };
        assert_eq!(allowed("250m"), Some(Duration::from_millis(250)));
        assert_eq!(allowed("99999999H"), Some(Duration::from_secs(3600 * 99_999_999)));
        for broken in ["", "m", "1x", "123456789S", "-1S", "é"] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", axum::http::HeaderValue::from_bytes(broken.as_bytes()).unwrap());
            assert_eq!(time_allowed(&headers), None, "{broken}");
        }
        assert_eq!(time_allowed(&HeaderMap::new()), None);
    }
}
