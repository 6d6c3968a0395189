//! The answers of the requests that are answered at once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Redirect, Response};
use axum::{Extension, middleware::Next};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trama_api::state::{Code, FlowsOf};
use trama_api::transaction::VERSION;
use trama_serve::Stay;

use crate::app::App;
use crate::assets::Login;
use crate::captures::capture;
use crate::follow::unix;
use crate::refusal::{LOST, refuse, refuse_page};
use crate::streams::stream;
use crate::upstream::{LONG_PATIENCE, NoAnswer, PATIENCE};

/// Largest body of a request, as the daemon has it.
const LARGEST: usize = 1 << 20;
/// Longest code that the daemon is asked about.
const LONGEST_CODE: usize = 128;

/// The session of a request.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    /// How long it goes on.
    left: Duration,
}

/// Lets requests of a session pass.
pub(crate) async fn needs_session(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(session) = session(&app, &request) {
        request.extensions_mut().insert(session);
        return next.run(request).await;
    }
    let error = "the session has ended; for another one run: tramactl web";
    refuse(StatusCode::UNAUTHORIZED, error)
}

fn session(app: &App, request: &Request) -> Option<Session> {
    let cookies = request.headers().get_all(header::COOKIE);
    let mut cookies = cookies.iter().filter_map(|it| it.to_str().ok());
    let left = cookies.find_map(|cookies| app.key.session(cookies, unix()))?;
    Some(Session { left: Duration::from_secs(left) })
}

/// `GET /`: the page, or with a code a session.
pub(crate) async fn page(State(app): State<Arc<App>>, request: Request) -> Response {
    #[derive(Deserialize)]
    struct Asked {
        code: Option<String>,
    }
    let has_session = session(&app, &request).is_some();
    let asked = serde_urlencoded::from_str::<Asked>(request.uri().query().unwrap_or_default());
    let code = match asked {
        Ok(Asked { code }) => code,
        Err(_) => return Login::Used.page(),
    };
    match code {
        Some(code) => match redeem(&app, code).await {
            Some(answer) => answer,
            // Such as of a link that was opened twice: the session is there.
            None if has_session => Redirect::to("/").into_response(),
            None => Login::Used.page(),
        },
        None if has_session => app.assets.page(),
        None => Login::Needed.page(),
    }
}

/// Opens a session if the daemon has given this code; returns `None` if it has not.
async fn redeem(app: &App, code: String) -> Option<Response> {
    if code.is_empty() || code.len() > LONGEST_CODE {
        return None;
    }
    match app.upstream.post("/v1/web/code", &Code { code }, PATIENCE).await {
        Ok(_) => {}
        Err(NoAnswer::Refused(status, _)) if status.is_client_error() => return None,
        Err(_) => return Some(refuse_page(StatusCode::SERVICE_UNAVAILABLE, LOST)),
    }
    let mut nonce = [0; 16];
    // The kernel fills so few bytes at once or fails, and then the session is no less secret.
    let _ = getrandom(&mut nonce, GetRandomFlags::empty());
    let mut answer = Redirect::to("/").into_response();
    if let Ok(cookie) = HeaderValue::from_str(&app.key.cookie(unix(), nonce)) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Some(answer)
}

/// `GET /assets/FILE`.
pub(crate) async fn asset(State(app): State<Arc<App>>, request: Request) -> Response {
    let name = request.uri().path().trim_start_matches("/assets/");
    app.assets.file(name, request.headers())
}

/// `GET /v1/state`.
pub(crate) async fn state(State(app): State<Arc<App>>) -> Response {
    json(app.hub.json())
}

/// `GET /v1/events`.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Extension(stay): Extension<Stay>,
    Extension(session): Extension<Session>,
) -> Response {
    stream(&app, stay, session.left)
}

/// `GET /v1/history`.
pub(crate) async fn history(State(app): State<Arc<App>>, request: Request) -> Response {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        port: Option<String>,
        worker: Option<usize>,
    }
    let chart = match query(&request) {
        Ok(Asked { port: Some(port), worker: None }) => app.hub.port_chart(&port),
        Ok(Asked { port: None, worker: Some(worker) }) => app.hub.worker_chart(worker),
        Ok(_) => {
            return refuse(StatusCode::BAD_REQUEST, "state one of port=NAME and worker=NUMBER");
        }
        Err(refused) => return *refused,
    };
    match chart {
        Some(chart) => Json(chart).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "there is no such port or worker; see tramactl show"),
    }
}

/// `GET /v1/flows`.
pub(crate) async fn flows(State(app): State<Arc<App>>, request: Request) -> Response {
    let asked: FlowsOf = match query(&request) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let query = serde_urlencoded::to_string(&asked).unwrap_or_default();
    let answer = app.upstream.get_text(&format!("/v1/flows?{query}")).await;
    answer.map_or_else(IntoResponse::into_response, json)
}

/// `GET /v1/capture`.
pub(crate) async fn start_capture(
    State(app): State<Arc<App>>,
    Extension(stay): Extension<Stay>,
    request: Request,
) -> Response {
    match query(&request) {
        Ok(wanted) => capture(&app, wanted, stay).await,
        Err(refused) => *refused,
    }
}

/// `POST /v1/explain`.
pub(crate) async fn explain(State(app): State<Arc<App>>, request: Request) -> Response {
    post(&app, "/v1/explain", request, PATIENCE).await
}

/// `POST /v1/transaction`.
pub(crate) async fn transaction(State(app): State<Arc<App>>, request: Request) -> Response {
    if !app.hub.write() {
        let error = "the page may change nothing; set web-write = true in [daemon] of trama.toml";
        return refuse(StatusCode::FORBIDDEN, error);
    }
    post(&app, "/v1/transaction", request, LONG_PATIENCE).await
}

/// Passes a request on to the daemon, which checks it, with the version of the API that this
/// process speaks.
async fn post(app: &App, path: &str, request: Request, patience: Duration) -> Response {
    let Ok(body) = to_bytes(request.into_body(), LARGEST).await else {
        let error = format!("the request is larger than {LARGEST} bytes; split it");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, error);
    };
    let mut asked = match serde_json::from_slice(&body) {
        Ok(Value::Object(asked)) => asked,
        Ok(_) => return refuse(StatusCode::BAD_REQUEST, "the body must be a JSON object"),
        Err(error) => {
            let error = format!("the request is not understood: {error}");
            return refuse(StatusCode::BAD_REQUEST, error);
        }
    };
    asked.insert("version".to_owned(), VERSION.into());
    let answer = app.upstream.post(path, &asked, patience).await;
    answer.map_or_else(IntoResponse::into_response, json)
}

/// What is not in the table.
pub(crate) async fn nothing() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is no such path; load the page again")
}

fn query<R: DeserializeOwned>(request: &Request) -> Result<R, Box<Response>> {
    serde_urlencoded::from_str(request.uri().query().unwrap_or_default()).map_err(|error| {
        let error = format!("the query is not understood: {error}");
        Box::new(refuse(StatusCode::BAD_REQUEST, error))
    })
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
