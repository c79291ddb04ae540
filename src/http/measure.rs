use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, histogram};

use crate::clock;

/// Counts and times every request by its route's template, never by its path.
pub(super) async fn measure(request: Request, next: Next) -> Response {
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "static".to_owned(), |path| path.as_str().into());
    let method = method_label(request.method());
    let begin = clock::now();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    histogram!("saccade_http_request_seconds", "route" => route.clone())
        .record(clock::now().saturating_duration_since(begin));
    counter!("saccade_http_requests_total", "route" => route, "method" => method, "status" => status).increment(1);
    response
}

/// A client may invent methods; a label has few values.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
