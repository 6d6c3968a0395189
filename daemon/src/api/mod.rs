//! The control API: HTTP on a Unix socket, and the metrics on TCP for a Prometheus server.
//!
//! `POST /v1/transaction` ([`Request`]) runs the commands of [`crate::ctl`] as one transaction of
//! [`Daemon::transact`]; `POST /v1/attach` takes a device (`attach`); `POST /v1/explain` says what
//! would happen to a frame, `GET /v1/state` all that runs; `POST /v1/capture` streams frames
//! (`capture`), `GET /v1/events` events (`events`); `GET /metrics` renders the counters. A client
//! of the socket can do everything; the mode of its file controls access. Transactions wait for
//! workers, files and devices, so they run on threads for blocking work, one after another.
//! [`trama_serve`] limits what clients can occupy, `scrape` what they can have made. Browsers are
//! served by another process (`page`), which asks for what it shows (`web`).

mod attach;
mod capture;
mod events;
mod lease;
mod page;
mod passed;
mod scrape;
#[cfg(test)]
mod tests;
mod web;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response as HttpResponse};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, UnixListener};
use trama_api::commands::CommandId;
use trama_api::state::FlowsOf;
use trama_api::transaction::{
    NotRunning, Output, Refusal, Request, Response, STORED_NOT_RUNNING, VERSION,
};
use trama_gateway::report::FlowRow;
use trama_serve::{Limits, Stay};

use self::events::Readers;
use self::passed::{Clients, Passed};
use self::scrape::Scrapes;
use crate::config::derived::running::is_part_of;
use crate::config::model::Network;
use crate::ctl::{self, After, Call, Failure, HostInterfaces, Snapshot};
use crate::events::By;
use crate::explain::explain;
use crate::state::overview::Overview;
use crate::state::{Daemon, TransactError, TransactOptions};
use crate::{host, panics};
use crate::{metrics, status};

/// Largest request body. A transaction that adds 1000 ports has about 100 KiB.
const MAX_BODY: usize = 1 << 20;

/// Maximum number of commands in a transaction.
const MAX_COMMANDS: usize = 10_000;

struct Api {
    daemon: Arc<Daemon>,
    overview: Overview,
    scrapes: Scrapes,
    readers: Readers,
}

/// Serves the control API on `control`, and the metrics on `metrics`, until `shutdown` resolves.
pub async fn serve(
    daemon: Arc<Daemon>,
    control: UnixListener,
    metrics: Option<TcpListener>,
    shutdown: impl Future<Output = ()>,
) {
    serve_within(Limits::default(), daemon, control, metrics, shutdown).await;
}

async fn serve_within(
    limits: Limits,
    daemon: Arc<Daemon>,
    control: UnixListener,
    metrics: Option<TcpListener>,
    shutdown: impl Future<Output = ()>,
) {
    let (scrapes, readers) = (Scrapes::default(), Readers::default());
    let of_page = Arc::clone(&daemon);
    let api = Arc::new(Api { daemon, overview: Overview::default(), scrapes, readers });
    let page = page::serve(of_page, web::router(Arc::clone(&api)));
    let router = control_router(Arc::clone(&api));
    let control = trama_serve::serve(Clients(control), router, limits);
    let metrics = async {
        match metrics {
            Some(listener) => trama_serve::serve(listener, metrics_router(api), limits).await,
            None => std::future::pending().await,
        }
    };
    // Open connections end with the runtime: each request was answered or is not carried out.
    tokio::select! {
        () = control => {}
        () = metrics => {}
        () = page => {}
        () = shutdown => {}
    }
}

fn control_router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/transaction", post(transaction))
        .route("/v1/attach", post(attach_device))
        .route("/v1/explain", post(explain_frame))
        .route("/v1/top", post(top))
        .route("/v1/capture", post(start_capture))
        .route("/v1/capture/end", post(end_capture))
        .route("/v1/events", get(stream_events))
        .route("/v1/state", get(state))
        .route("/v1/flows", get(flows))
        .route("/v1/web", post(invite))
        .route("/metrics", get(scrape))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// Routes requests on the TCP port, which serves only the metrics.
fn metrics_router(api: Arc<Api>) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(api)
}

async fn scrape(State(api): State<Arc<Api>>) -> HttpResponse {
    let daemon = Arc::clone(&api.daemon);
    let render = move || panics::tolerate(|| metrics::render(&daemon));
    match api.scrapes.answer(render).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn no_such_path(request: HttpRequest) -> HttpResponse {
    let asked = format!("{} {}", request.method(), request.uri().path());
    refuse(
        StatusCode::NOT_FOUND,
        format!(
            "there is no {asked}: this tramad {} speaks version {VERSION} of the API, POST \
             /v{VERSION}/transaction, POST /v{VERSION}/attach, POST /v{VERSION}/explain, POST \
             /v{VERSION}/top, POST /v{VERSION}/capture, POST /v{VERSION}/capture/end, GET \
             /v{VERSION}/events, GET /v{VERSION}/state, GET /v{VERSION}/flows, POST /v{VERSION}/web and \
             GET /metrics; use the tramactl that came with it",
            env!("CARGO_PKG_VERSION")
        ),
    )
}

async fn transaction(
    State(api): State<Arc<Api>>,
    Extension(stay): Extension<Stay>,
    body: Result<Bytes, BytesRejection>,
) -> HttpResponse {
    let request = match read_body(body, read_request) {
        Ok(request) => request,
        Err((status, message)) => return refuse(status, message),
    };
    let by = By::Client(stay.user);
    answer(move || api.carry_out(&request, by)).await
}

async fn attach_device(
    State(api): State<Arc<Api>>,
    Extension(stay): Extension<Stay>,
    Extension(passed): Extension<Passed>,
    body: Result<Bytes, BytesRejection>,
) -> HttpResponse {
    let request = match read_body(body, read_versioned) {
        Ok(request) => request,
        Err((status, message)) => return refuse(status, message),
    };
    let by = By::Client(stay.user);
    answer(move || api.attach(&request, &passed, by)).await
}

async fn explain_frame(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> HttpResponse {
    let request = match read_body(body, read_versioned::<trama_api::explain::Request>) {
        Ok(request) => request,
        Err((status, message)) => return refuse(status, message),
    };
    answer(move || explain(&api.daemon, &request).map_err(Failure::from)).await
}

async fn top(State(api): State<Arc<Api>>, body: Result<Bytes, BytesRejection>) -> HttpResponse {
    let request = match read_body(body, read_versioned::<trama_api::top::Request>) {
        Ok(request) => request,
        Err((status, message)) => return refuse(status, message),
    };
    answer(move || api.daemon.numbers(request.network.as_deref()).map_err(Failure::from)).await
}

async fn state(State(api): State<Arc<Api>>) -> HttpResponse {
    answer(move || Ok::<_, Failure>(api.overview.state(&api.daemon))).await
}

async fn flows(State(api): State<Arc<Api>>, request: HttpRequest) -> HttpResponse {
    let query = request.uri().query().unwrap_or_default();
    match serde_urlencoded::from_str::<FlowsOf>(query) {
        Ok(of) => answer(move || api.overview.flows(&api.daemon, &of).map_err(Failure::from)).await,

        Err(error) => {
            refuse(StatusCode::BAD_REQUEST, format!("the query is not understood: {error}"))
        }
    }
}

async fn invite(State(api): State<Arc<Api>>) -> HttpResponse {
    let file = api.daemon.file();
    answer(move || api.daemon.web.invite(&file.display().to_string()).map_err(Failure::from)).await
}

async fn start_capture(
    State(api): State<Arc<Api>>,
    Extension(stay): Extension<Stay>,
    body: Result<Bytes, BytesRejection>,
) -> HttpResponse {
    let request = match read_body(body, read_versioned::<trama_api::capture::Request>) {
        Ok(request) => request,
        Err((status, message)) => return refuse(status, message),
    };
    let user = stay.user;
    let started = carry_out(move || api.capture(&request, user)).await;
    started.map_or_else(
        |refusal| refusal,
        |started| {
            // Captures have a limit of their own.
            stay.stay();
            started.into_response()
        },
    )
}

async fn end_capture(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> HttpResponse {
    match read_body(body, read_versioned::<trama_api::capture::End>) {
        Ok(end) => answer(move || api.end_capture(&end)).await,
        Err((status, message)) => refuse(status, message),
    }
}

async fn stream_events(
    State(api): State<Arc<Api>>,
    Extension(stay): Extension<Stay>,
    request: HttpRequest,
) -> HttpResponse {
    let query = request.uri().query().unwrap_or_default();
    let after = request.headers().get("last-event-id");
    match api.events(query, after.and_then(|it| it.to_str().ok()), stay.user) {
        Ok(stream) => {
            // Readers have a limit of their own.
            stay.stay();
            stream.into_response()
        }
        Err(Failure { message, exit }) => {
            let refusal = Refusal { error: message, exit };
            (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response()
        }
    }
}

/// Reads the body of a request; else says why it is refused.
fn read_body<R>(
    body: Result<Bytes, BytesRejection>,
    read: impl FnOnce(&[u8]) -> Result<R, String>,
) -> Result<R, (StatusCode, String)> {
    match body {
        Ok(body) => read(&body).map_err(|message| (StatusCode::BAD_REQUEST, message)),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message =
                format!("the request is larger than {MAX_BODY} bytes; split the transaction");
            Err((StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Err(rejection) => Err((rejection.status(), rejection.body_text())),
    }
}

/// Carries out a request on a thread for blocking work; returns the answer.
async fn answer<R: Serialize + Send + 'static>(
    request: impl FnOnce() -> Result<R, Failure> + Send + 'static,
) -> HttpResponse {
    // An answer of a megabyte is not written on the thread that serves all others.
    let written = carry_out(|| {
        let text = serde_json::to_vec(&request()?);
        text.map_err(|error| Failure::from(format!("the answer cannot be written: {error}")))
    });
    match written.await {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(refusal) => refusal,
    }
}

/// The same, with the result before it is an answer; else the refusal.
async fn carry_out<R: Send + 'static>(
    request: impl FnOnce() -> Result<R, Failure> + Send + 'static,
) -> Result<R, HttpResponse> {
    match tokio::task::spawn_blocking(move || panics::tolerate(request)).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(Failure { message, exit })) => {
            let refusal = Refusal { error: message, exit };
            Err((StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response())
        }
        Err(_) => Err(refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "tramad failed at this request; its log says where".to_owned(),
        )),
    }
}

fn refuse(status: StatusCode, error: String) -> HttpResponse {
    (status, Json(Refusal { error, exit: 1 })).into_response()
}

/// Reads a request.
fn read_request(body: &[u8]) -> Result<Request, String> {
    let request: Request = read_versioned(body)?;
    if request.commands.len() > MAX_COMMANDS {
        return Err(format!("the transaction has more than {MAX_COMMANDS} commands; split it"));
    }
    Ok(request)
}

/// Reads the JSON of a request that states its version of the API.
fn read_versioned<R: DeserializeOwned>(body: &[u8]) -> Result<R, String> {
    // The version is checked first, because a request of another version may have another shape.
    #[derive(serde::Deserialize)]
    struct Version {
        #[serde(default)]
        version: Option<u32>,
    }
    let stated = serde_json::from_slice::<Version>(body).ok().and_then(|it| it.version);
    if let Some(version) = stated.filter(|version| *version != VERSION) {
        return Err(format!(
            "the request speaks version {version} of the API, this tramad {} version {VERSION}; \
             use the tramactl that came with it",
            env!("CARGO_PKG_VERSION")
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let request = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| format!("the request is not understood: {error}"))?;
    json.end().map_err(|error| format!("the request is not understood: {error}"))?;
    Ok(request)
}

impl Api {
    fn carry_out(&self, request: &Request, by: By) -> Result<Response, Failure> {
        let calls = ctl::parse(&request.commands)?;
        if let [call] = calls.as_slice()
            && call.command.id == CommandId::Reload
        {
            return self.reload(request, by);
        }
        if let [call] = calls.as_slice()
            && call.command.id == CommandId::Upgrade
        {
            return Err(self.upgrade(request, by));
        }
        let snapshot = self.snapshot(&calls)?;
        let options = TransactOptions { dry_run: request.dry_run, save: !request.no_save };
        let committed = self.daemon.transact(options, |config| {
            let outcome = ctl::run(&calls, std::mem::take(config), &snapshot)?;
            *config = outcome.config;
            Ok((outcome.results, outcome.after, outcome.warnings))
        });
        let committed = committed.map_err(|error: TransactError<Failure>| match error {
            TransactError::Edit(failure) => failure,
            other => other.to_string().into(),
        })?;
        let (results, after, warnings) = committed.result;
        if !request.dry_run {
            if !committed.steps.is_empty() {
                self.daemon.events.changed("changed", by, &committed.steps);
            }
            for After::FlushFdb(network) in after {
                self.daemon.fdb_flush(network.as_deref());
            }
        }
        let mut not_running = committed.not_running;
        not_running.extend(self.daemon.not_listening(&committed.forwards));
        Ok(Response { warnings, ..respond(results, &committed.steps, not_running) })
    }

    fn reload(&self, request: &Request, by: By) -> Result<Response, Failure> {
        if request.dry_run || request.no_save {
            return Err("reload takes neither --dry-run nor --no-save; to try a file, run \
                        tramad --check --config FILE"
                .to_owned()
                .into());
        }
        let committed = self.daemon.reload(by).map_err(|diagnostics| {
            let lines: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
            Failure::from(lines.join("\n"))
        })?;
        let lines = committed.steps.iter().map(ToString::to_string).collect();
        let mut not_running = committed.not_running;
        not_running.extend(self.daemon.not_listening(&committed.forwards));
        Ok(respond(vec![Output::Text { lines }], &committed.steps, not_running))
    }

    /// Has another `tramad` take over; returns why it does not. If it does, the caller's connection
    /// ends with this process.
    fn upgrade(&self, request: &Request, by: By) -> Failure {
        if request.dry_run || request.no_save {
            return "upgrade takes neither --dry-run nor --no-save".to_owned().into();
        }
        self.daemon.events.config("upgrades", Some(by), "");
        let fault = self.daemon.upgrade(None);
        tracing::error!("{fault}");
        self.daemon.events.config("goes on", None, &fault.to_string());
        fault.to_string().into()
    }

    fn snapshot(&self, calls: &[Call]) -> Result<Snapshot, Failure> {
        let status = self.daemon.status();
        let mut fdb = Vec::new();
        if calls.iter().any(|call| call.command.id == CommandId::FdbShow) {
            for network in &status.networks {
                fdb.extend(self.daemon.fdb(&network.name).unwrap_or_default());
            }
        }
        let (mut forwards, mut flows, mut leases) = (BTreeMap::new(), Vec::new(), Vec::new());
        let lists = |call: &Call| {
            call.command.id == CommandId::Forward && call.arg(0) == ctl::forward::LIST
        };
        if calls.iter().any(lists) {
            let answer = |name: String| (name.clone(), self.daemon.ask(&name));
            forwards = self.networks_with(Network::has_nat).map(answer).collect();
        }
        let wanted = |call: &Call, name: &str| {
            call.args.first().is_none_or(|wanted| is_part_of(name, wanted))
        };
        if let Some(call) = calls.iter().find(|call| call.command.id == CommandId::Flows) {
            for name in self.networks_with(Network::has_nat).filter(|name| wanted(call, name)) {
                let rows = self.daemon.ask::<FlowRow>(&name)?;
                flows.extend(rows.into_iter().map(|row| (name.clone(), row)));
            }
        }
        if let Some(call) = calls.iter().find(|call| call.command.id == CommandId::Leases) {
            let networks = self.networks_with(Network::has_dhcp);
            for name in networks.filter(|name| wanted(call, name)) {
                let row = |row| status::Lease { network: name.clone(), row };
                leases.extend(self.daemon.ask(&name)?.into_iter().map(row));
            }
        }
        let config = self.daemon.config();
        let numbers = self.daemon.number_ports(&config);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let salt = now.map_or(0, |time| time.as_nanos() as u64);
        let host = HostInterfaces(host::interfaces(&config.daemon.folders));
        Ok(Snapshot { status, fdb, leases, forwards, flows, numbers, host, salt })
    }

    /// Returns the names of running networks that satisfy `is_one`.
    fn networks_with(&self, is_one: impl Fn(&Network) -> bool) -> impl Iterator<Item = String> {
        let networks = self.daemon.config().expanded().networks.into_iter();
        networks.filter(move |network| is_one(network)).map(|network| network.name)
    }
}

fn respond<S: ToString>(
    results: Vec<Output>,
    steps: &[S],
    not_running: Vec<NotRunning>,
) -> Response {
    let exit = if not_running.is_empty() { 0 } else { STORED_NOT_RUNNING };
    let steps = steps.iter().map(ToString::to_string).collect();
    Response { results, exit, not_running, steps, warnings: Vec::new() }
}
