//! What the process that serves browsers may ask for: less than a client of the control socket.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response as HttpResponse};
use axum::routing::{get, post};
use trama_api::state::Code;
use trama_api::transaction::Refusal;

use super::{
    Api, MAX_BODY, answer, end_capture, explain_frame, flows, no_such_path, read_body,
    read_request, refuse, start_capture, state, stream_events,
};
use crate::ctl::Failure;
use crate::events::By;

pub(super) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/web", get(settings))
        .route("/v1/web/code", post(code))
        .route("/v1/state", get(state))
        .route("/v1/flows", get(flows))
        .route("/v1/events", get(stream_events))
        .route("/v1/explain", post(explain_frame))
        .route("/v1/capture", post(start_capture))
        .route("/v1/capture/end", post(end_capture))
        .route("/v1/transaction", post(transaction))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

async fn settings(State(api): State<Arc<Api>>) -> HttpResponse {
    answer(move || Ok::<_, Failure>(api.daemon.web.settings())).await
}

async fn code(State(api): State<Arc<Api>>, body: Result<Bytes, BytesRejection>) -> HttpResponse {
    let read = |body: &[u8]| {
        serde_json::from_slice::<Code>(body)
            .map_err(|error| format!("the request is not understood: {error}"))
    };
    match read_body(body, read) {
        Err((status, message)) => refuse(status, message),
        Ok(Code { code }) if api.daemon.web.redeem(&code) => {
            Json(serde_json::json!({})).into_response()
        }
        Ok(_) => {
            let error = "this code is not known, or was used, or is older than two minutes; run \
                         tramactl web for another one";
            let refusal = Refusal { error: error.to_owned(), exit: 1 };
            (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response()
        }
    }
}

/// Whether a page may use a command: those that it shows, and in the form in which it does.
fn is_for_pages(command: &[String]) -> bool {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words[..] {
        ["link", _, "up" | "down"]
        | ["forward", "add", _, _]
        | ["forward", "del", _, _]
        | ["clear", "Port", _, "network" | "tag"] => true,
        ["set", "Port", _, setting] => {
            matches!(setting.split_once('='), Some(("network" | "tag", _)))
        }
        _ => false,
    }
}

async fn transaction(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> HttpResponse {
    if !api.daemon.web.may_write() {
        let error = format!(
            "the page may change nothing; write web-write = true into [daemon] of {}, then run \
             tramactl reload",
            api.daemon.file().display()
        );
        return refuse(StatusCode::FORBIDDEN, error);
    }
    match read_body(body, read_request) {
        Ok(request) if !request.commands.iter().all(|command| is_for_pages(command)) => {
            let error = "the page may pull cables, change forwards, and set or clear the network \
                         and the tag of ports; use tramactl for anything else";
            refuse(StatusCode::FORBIDDEN, error.to_owned())
        }
        Ok(request) => answer(move || api.carry_out(&request, By::Browser)).await,
        Err((status, message)) => refuse(status, message),
    }
}
