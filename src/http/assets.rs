use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use rust_embed::{EmbeddedFile, RustEmbed};
use saccade_signaling::ErrorCode;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};

use super::{Problem, problem};

/// The page, as its build left it.
#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Dist;

/// One file to serve.
struct Asset {
    bytes: Cow<'static, [u8]>,
    kind: &'static str,
    etag: String,
}

impl Asset {
    fn embedded(path: &str) -> Option<Self> {
        let EmbeddedFile { data, metadata, .. } = Dist::get(path)?;
        let mut etag = String::from("\"");
        for byte in &metadata.sha256_hash()[..12] {
            // Writing to a String cannot fail.
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        Some(Self { bytes: data, kind: content_type(path), etag })
    }
}

/// Serves the page and its files, compressed where that pays.
pub(super) fn service() -> MethodRouter {
    let pays = DefaultPredicate::new().and(NotForContentType::const_new("video/"));
    let get = serve.layer(CompressionLayer::new().compress_when(pays));
    axum::routing::get(get).fallback(problem::method_not_allowed)
}

async fn serve(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    match Asset::embedded(path) {
        Some(asset) => respond(asset, request.method(), request.headers()),
        None if path == "index.html" => {
            Problem::new(ErrorCode::NotFound, "This build has no page; run `make setup`, then build again.")
                .into_response()
        }
        None => Problem::new(ErrorCode::NotFound, "There is nothing at this path.").into_response(),
    }
}

/// The file, a part of it (RFC 9110 section 14), or the news that the client has it (section 13).
fn respond(asset: Asset, method: &Method, headers: &HeaderMap) -> Response {
    let total = asset.bytes.len();
    let Ok(etag) = HeaderValue::from_str(&asset.etag) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::new(Body::empty());
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| names(value, &asset.etag));
    // Ranges of compressed text would be ranges of something else; players want them of video alone.
    let ranged = asset.kind.starts_with("video/");
    let fresh = headers.get(header::IF_RANGE).is_none_or(|value| *value == etag);
    let range = headers.get(header::RANGE).filter(|_| ranged && fresh && *method == Method::GET);
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        match range.and_then(|range| parse_range(range.to_str().ok()?, total)) {
            None => *response.body_mut() = Body::from(bytes(asset.bytes, 0..total)),
            Some(Err(Unsatisfiable)) => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{total}"));
            }
            Some(Ok(part)) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let name = format!("bytes {}-{}/{total}", part.start, part.end - 1);
                insert(&mut response, header::CONTENT_RANGE, &name);
                *response.body_mut() = Body::from(bytes(asset.bytes, part));
            }
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    }
    if ranged {
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    response.headers_mut().insert(header::ETAG, etag);
    // File names stay the same from version to version: keep, but ask each time.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn bytes(whole: Cow<'static, [u8]>, part: Range<usize>) -> Bytes {
    match whole {
        Cow::Borrowed(whole) => Bytes::from_static(&whole[part]),
        Cow::Owned(whole) => Bytes::from(whole).slice(part),
    }
}

fn insert(response: &mut Response, name: header::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, value);
    }
}

/// Whether a list of entity tags names this one, compared weakly: a proxy that compresses weakens them.
pub(super) fn names(list: &HeaderValue, etag: &str) -> bool {
    let list = list.to_str().unwrap_or_default();
    list.split(',').map(|tag| tag.trim()).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// The range lies outside the file.
#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// One byte range. `None` for what is none, or for several: then the whole file is the right answer.
fn parse_range(header: &str, total: usize) -> Option<Result<Range<usize>, Unsatisfiable>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().unwrap_or(usize::MAX));
    let range = match (first.trim(), last.trim()) {
        ("", "") => return None,
        ("", suffix) => total.saturating_sub(number(suffix)?)..total,
        (first, "") => number(first)?..total,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(total)
        }
    };
    Some(if range.start < range.end { Ok(range) } else { Err(Unsatisfiable) })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" | "md" | "ts" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIP: &[u8] = b"0123456789";

    async fn ask(kind: &'static str, headers: &[(header::HeaderName, &'static str)]) -> (StatusCode, HeaderMap, Bytes) {
        let asset = Asset { bytes: CLIP.into(), kind, etag: "\"a1\"".into() };
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        let (head, body) = respond(asset, &Method::GET, &headers).into_parts();
        (head.status, head.headers, axum::body::to_bytes(body, 100).await.unwrap())
    }

    #[tokio::test]
    async fn a_client_that_has_the_file_gets_no_body() {
        for tag in ["\"a1\"", "W/\"a1\"", "\"b\", \"a1\"", "*"] {
            let (status, headers, body) = ask("text/css", &[(header::IF_NONE_MATCH, tag)]).await;
            assert_eq!((status, &body[..]), (StatusCode::NOT_MODIFIED, &b""[..]));
            assert_eq!(headers[header::ETAG], "\"a1\"");
        }
        let (status, headers, body) = ask("text/css", &[(header::IF_NONE_MATCH, "\"b\"")]).await;
        assert_eq!((status, &body[..]), (StatusCode::OK, CLIP));
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers[header::CONTENT_TYPE], "text/css");
    }

    #[tokio::test]
    async fn video_comes_in_parts() {
        let cases = [
            ("bytes=0-", 206, "bytes 0-9/10", "0123456789"),
            ("bytes=2-4", 206, "bytes 2-4/10", "234"),
            ("bytes=8-99", 206, "bytes 8-9/10", "89"),
            ("bytes=-3", 206, "bytes 7-9/10", "789"),
            ("bytes=-99", 206, "bytes 0-9/10", "0123456789"),
            ("bytes=10-", 416, "bytes */10", ""),
            ("bytes=-0", 416, "bytes */10", ""),
            ("bytes=99999999999999999999-", 416, "bytes */10", ""),
        ];
        for (range, status, name, text) in cases {
            let (got, headers, body) = ask("video/mp4", &[(header::RANGE, range)]).await;
            assert_eq!((got.as_u16(), headers[header::CONTENT_RANGE].to_str().unwrap()), (status, name), "{range}");
            assert_eq!(body, text.as_bytes());
        }
        for whole in ["bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "bytes=-"] {
            let (status, headers, body) = ask("video/mp4", &[(header::RANGE, whole)]).await;
            assert_eq!((status, &body[..]), (StatusCode::OK, CLIP), "{whole}");
            assert!(!headers.contains_key(header::CONTENT_RANGE));
        }
        let (status, ..) = ask("video/mp4", &[(header::RANGE, "bytes=2-4"), (header::IF_RANGE, "\"old\"")]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(ask("text/css", &[(header::RANGE, "bytes=2-4")]).await.0, StatusCode::OK);
    }

    proptest! {
        #[test]
        fn a_range_lies_in_the_file(header in "bytes=[0-9]{0,21}-[0-9]{0,21}", total in 0..40usize) {
            if let Some(Ok(range)) = parse_range(&header, total) {
                prop_assert!(range.start < range.end && range.end <= total);
            }
        }
    }
}
