//! Answers that say what is wrong and what to do.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::upstream::NoAnswer;

/// Returns an error for a script.
pub(crate) fn refuse(status: StatusCode, error: impl AsRef<str>) -> Response {
    (status, Json(json!({ "error": error.as_ref() }))).into_response()
}

/// Returns an error for a person. The text has no markup, and nothing in it comes from outside.
pub(crate) fn refuse_page(status: StatusCode, error: &'static str) -> Response {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>trama</title>\n\
         <h1>trama</h1>\n<p>{error}\n</html>\n"
    );
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

/// What `GET /` says if the daemon does not answer.
pub(crate) const LOST: &str =
    "tramad does not answer. See its log (journalctl -u tramad), then open the address again.";

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        match self {
            NoAnswer::Refused(status, error) => refuse(status, error),
            NoAnswer::Lost(error) => refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{error}; see its log: journalctl -u tramad"),
            ),
        }
    }
}
