//! What requests and answers say of results that were given before: RFC 9111, RFC 9110 section 13, RFC 9211.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use saccade_signaling::{CacheForgotten, ErrorCode};
use serde::Deserialize;

use super::auth::Caller;
use super::openapi::{BadRequest, NotFound, parameters, wire};
use super::{Context, Problem};
use crate::cache::{Etag, Outcome, Reuse, Tag};
use crate::claims::Claims;

/// Whether an answer was given before.
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// The same with the reason (RFC 9211).
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Names of tags that a request may give.
pub(super) const MAX_TAGS: usize = 8;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Of the answer's bytes.
    pub etag: Etag,
    /// How it was come by.
    pub outcome: Outcome,
    /// Since it began to be computed.
    pub age: Duration,
}

/// What a request's `Cache-Control` (RFC 9111 section 5.2.1) asks for: of `no-store`, `no-cache` and `max-age` the strictest.
pub(super) fn reuse(headers: &HeaderMap) -> Reuse {
    let fields = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut reuse = Reuse::Any;
    for directive in fields.flat_map(|field| field.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let asked = match name.trim().to_ascii_lowercase().as_str() {
            "no-store" => return Reuse::Nothing,
            "no-cache" => Reuse::Renew,
            "max-age" => match value.trim().trim_matches('"').parse() {
                Ok(0) => Reuse::Renew,
                Ok(seconds) => Reuse::Younger(Duration::from_secs(seconds)),
                // What cannot be read asks for nothing old.
                Err(_) => Reuse::Renew,
            },
            _ => continue,
        };
        reuse = match (reuse, asked) {
            (Reuse::Renew, _) | (_, Reuse::Renew) => Reuse::Renew,
            (Reuse::Younger(one), Reuse::Younger(other)) => Reuse::Younger(one.min(other)),
            (_, asked) => asked,
        };
    }
    reuse
}

/// Tags of a parameter `cache_tag`, between commas.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn tags(value: &str, tags: &mut Vec<Tag>) -> Result<(), String> {
    for word in value.split(',').map(str::trim) {
        let legal = format!("1 to {} letters, digits, '.', '_', '-' and ':'", Tag::MAX_LEN);
        let tag = Tag::chosen(word).ok_or_else(|| format!("`cache_tag` may have {legal}"))?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(format!("`cache_tag` may name {MAX_TAGS} tags"));
    }
    Ok(())
}

/// Adds what there is to say of where an answer came from; what the client has already is not sent again.
pub(super) fn finish(response: Response, origins: &[Option<Origin>], asked: &HeaderMap) -> Response {
    let origins: Option<Vec<Origin>> = origins.iter().copied().collect();
    let Some(origins) = origins.filter(|origins| !origins.is_empty()) else { return response };
    let etags: Vec<_> = origins.iter().map(|origin| origin.etag).collect();
    let etag = Etag::of_all(&etags);
    let is_hit = origins.iter().all(|origin| is_hit(origin.outcome));
    let mut response = response;
    let mut named = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    if named.any(|field| etag.is_named_by(field)) {
        response = StatusCode::NOT_MODIFIED.into_response();
    }
    let headers = response.headers_mut();
    headers.insert(X_CACHE, HeaderValue::from_static(if is_hit { "HIT" } else { "MISS" }));
    if let Ok(value) = HeaderValue::try_from(etag.to_string()) {
        headers.insert(header::ETAG, value);
    }
    if let [origin] = origins.as_slice() {
        if let Ok(value) = HeaderValue::try_from(status(origin.outcome)) {
            headers.insert(CACHE_STATUS, value);
        }
        if is_hit {
            headers.insert(header::AGE, HeaderValue::from(origin.age.as_secs()));
        }
    }
    response
}

const fn is_hit(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Hit(_) | Outcome::Stale(_))
}

fn status(outcome: Outcome) -> String {
    match outcome {
        Outcome::Hit(tier) => format!("saccade; hit; detail={tier}"),
        Outcome::Stale(tier) => format!("saccade; hit; detail={tier}-stale"),
        Outcome::Miss => "saccade; fwd=miss; stored".to_owned(),
        Outcome::Joined => "saccade; fwd=miss; collapsed".to_owned(),
        Outcome::Bypassed => "saccade; fwd=request".to_owned(),
    }
}

/// What `DELETE /v1/cache` forgets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct What {
    model: Option<String>,
    tag: Option<String>,
}

/// Forget answers
///
/// Those of a model, or those that were asked for with a tag: give one of both. Forgetting reaches the memory of this
/// server and the tiers that it can reach.
#[utoipa::path(
    delete, path = "/v1/cache", operation_id = "forget", tag = "cache", params(parameters::Forget),
    security(("token" = ["can_manage_models"])),
    responses((status = 200, description = "What was forgotten.", body = wire::CacheForgotten), BadRequest, NotFound)
)]
pub(super) async fn forget(
    State(context): State<Arc<Context>>,
    Caller { claims, .. }: Caller,
    what: Result<Query<What>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<CacheForgotten>, Problem> {
    Claims::require(claims.can_manage_models, "can_manage_models")?;
    let bad = |message: &'static str| Problem::new(ErrorCode::BadRequest, message);
    let either = "Name what to forget: either ?model=NAME, ?model=NAME@VERSION or ?tag=TAG.";
    let Query(what) = what.map_err(|_| bad(either))?;
    let tag = match (what.model.as_deref(), what.tag.as_deref()) {
        (Some(model), None) if !model.is_empty() => {
            if !claims.may_use(model) {
                return Err(crate::session::Refusal::may_not_use(model).into());
            }
            Tag::model(model)
        }
        (None, Some(tag)) => {
            Tag::chosen(tag).ok_or_else(|| bad("A tag has 1 to 64 letters, digits, '.', '_', '-' and ':'."))?
        }
        _ => return Err(bad(either)),
    };
    let Some(forgotten) = context.stills.forget(&tag).await else {
        return Err(Problem::new(ErrorCode::NotFound, "There is no cache of results: cache.enabled is false."));
    };
    let removed = forgotten.removed.into_iter().map(|(tier, removed)| (tier.to_owned(), removed)).collect();
    Ok(Json(CacheForgotten { removed, failed: forgotten.failed.into_iter().map(str::to_owned).collect() }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_of_what_a_request_asks_for_counts() {
        let asked = |fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            fields.iter().for_each(|field| {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_static(field));
            });
            reuse(&headers)
        };
        let younger = |seconds| Reuse::Younger(Duration::from_secs(seconds));
        for (fields, expected) in [
            (&[][..], Reuse::Any),
            (&["private, x=1"], Reuse::Any),
            (&["max-age=9"], younger(9)),
            (&["max-age=9, Max-Age=\"5\""], younger(5)),
            (&["max-age=0"], Reuse::Renew),
            (&["max-age=soon"], Reuse::Renew),
            (&["NO-CACHE", "max-age=9"], Reuse::Renew),
            (&["max-age=9", "no-cache, no-store"], Reuse::Nothing),
        ] {
            assert_eq!(asked(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn tags_are_words_and_few() {
        let mut found = Vec::new();
        tags("a, b,a", &mut found).unwrap();
        assert_eq!(found, ["a", "b"].map(|word| Tag::chosen(word).unwrap()));
        assert!(tags("a b", &mut Vec::new()).unwrap_err().contains("cache_tag"));
        assert!(tags("", &mut Vec::new()).is_err());
        assert!(tags("1,2,3,4,5,6,7,8,9", &mut Vec::new()).is_err());
    }
}
