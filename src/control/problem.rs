//! What is wrong, as clients are told it: `application/problem+json`, see RFC 9457.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::{Problem, ProblemKind};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem of this kind, told with this status of HTTP.
#[must_use]
pub fn of(kind: ProblemKind, status: u16, detail: impl Into<String>) -> Problem {
    Problem {
        kind,
        title: title(kind).to_owned(),
        status,
        detail: detail.into(),
        service: None,
        worker: None,
        output: Vec::new(),
        services: Vec::new(),
    }
}

/// The word for the kind, as it travels.
#[must_use]
pub fn name(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::BadRequest => "bad-request",
        ProblemKind::NotFound => "not-found",
        ProblemKind::InProgress => "in-progress",
        ProblemKind::Stopping => "stopping",
        ProblemKind::Configuration => "configuration",
        ProblemKind::Bind => "bind",
        ProblemKind::Aborted => "aborted",
        ProblemKind::NotPutBack => "not-put-back",
        ProblemKind::TooBusy => "too-busy",
        ProblemKind::Forbidden => "forbidden",
        ProblemKind::Failed => "failed",
    }
}

/// The kind in words.
#[must_use]
pub fn title(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::BadRequest => "the request makes no sense",
        ProblemKind::NotFound => "there is no such thing",
        ProblemKind::InProgress => "another operation is in progress",
        ProblemKind::Stopping => "it is being stopped or is stopped",
        ProblemKind::Configuration => "the configuration has a mistake",
        ProblemKind::Bind => "a socket cannot be bound",
        ProblemKind::Aborted => "the reload was aborted",
        ProblemKind::NotPutBack => "the reload was aborted, and not all could be put back",
        ProblemKind::TooBusy => "too much is asked for at a time",
        ProblemKind::Forbidden => "this user may not ask",
        ProblemKind::Failed => "it could not be done",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // It fails for no value of this type.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let media_type = HeaderValue::from_static(MEDIA_TYPE);
        (status, [(header::CONTENT_TYPE, media_type)], body).into_response()
    }
}
