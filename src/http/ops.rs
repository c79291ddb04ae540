use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::{problem, profiles};
use crate::hardware::Table;
use crate::telemetry::open_metrics;

/// Says why a part of the process is not ready, or `Ok`. Must be quick: a probe waits for it.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the operators' listener shows.
#[derive(Clone)]
pub struct Ops {
    /// Named parts that have to be ready.
    pub checks: Vec<(&'static str, Check)>,
    /// Named parts that work, and of which operators should know something.
    pub warnings: Vec<(&'static str, Check)>,
    /// Special hardware, and what of it works.
    pub hardware: Table,
    /// Renders the metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether profiles of the process are taken (`ops.profiles`).
    pub profiles: bool,
}

impl fmt::Debug for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|(name, _)| name)).finish()
    }
}

/// The operators' listener's routes: `/healthz`, `/readyz`, `/metrics` and, where they are wanted, profiles.
pub fn router(ops: Ops) -> Router {
    let profiles = if ops.profiles { profiles::router() } else { Router::new() };
    Router::new()
        .route("/healthz", get(async || Json(json!({"status": "ok"}))))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(profiles)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::not_found)
        .with_state(ops)
}

async fn ready(State(ops): State<Ops>) -> Response {
    let told = |checks: &[(&'static str, Check)]| -> Vec<_> {
        let told = |(name, check): &(&str, Check)| check().err().map(|reason| json!({"check": name, "reason": reason}));
        checks.iter().filter_map(told).collect()
    };
    let (reasons, warnings) = (told(&ops.checks), told(&ops.warnings));
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": reasons.is_empty(), "reasons": reasons, "warnings": warnings, "hardware": ops.hardware});
    (status, Json(body)).into_response()
}

async fn metrics(State(ops): State<Ops>, headers: HeaderMap) -> Response {
    let accepted =
        headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).collect::<Vec<_>>().join(",");
    let text = (ops.metrics)();
    let (kind, text) = if open_metrics::is_wanted(&accepted) {
        (open_metrics::CONTENT_TYPE, open_metrics::render(&text))
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", text)
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::VARY, HeaderValue::from_static("accept"))], text)
        .into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::Body;
    use axum::http::Request;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_says_what_is_missing() {
        let warm = Arc::new(AtomicBool::new(false));
        let model = Arc::clone(&warm);
        let check: Check =
            Arc::new(move || model.load(Ordering::SeqCst).then_some(()).ok_or_else(|| "warming up".to_owned()));
        let ops = Ops {
            checks: vec![("models", check), ("drain", Arc::new(|| Ok(())))],
            warnings: vec![("memory", Arc::new(|| Err("90 % is in use".to_owned())))],
            hardware: Table::nothing("none"),
            metrics: Arc::new(|| "saccade_build_info 1\n".into()),
            profiles: false,
        };
        let router = router(ops);
        let (status, body) = ask(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let hardware = json!([{"piece": "driver", "works": false, "found": "none"}]);
        let reasons = json!([{"check": "models", "reason": "warming up"}]);
        let warnings = json!([{"check": "memory", "reason": "90 % is in use"}]);
        let expected = json!({"ready": false, "reasons": reasons, "warnings": warnings, "hardware": hardware});
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
        assert_eq!(ask(&router, "/healthz").await.0, StatusCode::OK);
        warm.store(true, Ordering::SeqCst);
        let (status, body) = ask(&router, "/readyz").await;
        assert_eq!(status, StatusCode::OK);
        let expected = json!({"ready": true, "reasons": [], "warnings": warnings, "hardware": hardware});
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
        assert_eq!(ask(&router, "/metrics").await.1, "saccade_build_info 1\n");
        for path in ["/else", "/debug/memory", "/debug/flamegraph", "/debug/pprof/profile"] {
            assert_eq!(ask(&router, path).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
