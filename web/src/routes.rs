//! What can be asked for: a table, from which the router is made.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use crate::answers;
use crate::app::App;
use crate::guard::guard;

/// A request that is answered.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method; `GET` answers `HEAD`, too.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// What the answer is.
    pub answer: &'static str,
    /// Whether it takes a session.
    pub session: bool,
    name: Name,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Page,
    Asset,
    State,
    Events,
    History,
    Flows,
    Capture,
    Explain,
    Transaction,
}

const fn open(path: &'static str, answer: &'static str, name: Name) -> Route {
    Route { method: "GET", path, answer, session: false, name }
}

const fn with_session(
    method: &'static str,
    path: &'static str,
    answer: &'static str,
    name: Name,
) -> Route {
    Route { method, path, answer, session: true, name }
}

/// All requests that are answered.
pub const ROUTES: &[Route] = &[
    open("/", "the page; without a session how to open one; with ?code= a session", Name::Page),
    open("/assets/{file}", "a file of the page", Name::Asset),
    with_session("GET", "/v1/state", "the view as JSON", Name::State),
    with_session(
        "GET",
        "/v1/events",
        "the view and its changes as server-sent events",
        Name::Events,
    ),
    with_session("GET", "/v1/history", "ten minutes of a port or worker", Name::History),
    with_session("GET", "/v1/flows", "the flows through the NAT of a network", Name::Flows),
    with_session("GET", "/v1/capture", "frames of a port as a pcapng file", Name::Capture),
    with_session("POST", "/v1/explain", "what the switch would do with a frame", Name::Explain),
    with_session(
        "POST",
        "/v1/transaction",
        "what commands have changed; only with web-write",
        Name::Transaction,
    ),
];

/// Returns what answers all requests.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let mut answer = method(route.name);
        if route.session {
            let session = from_fn_with_state(Arc::clone(&app), answers::needs_session);
            answer = answer.layer(session);
        }
        router = router.route(route.path, answer);
    }
    router
        .fallback(answers::nothing)
        .method_not_allowed_fallback(answers::nothing)
        .layer(from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

fn method(name: Name) -> MethodRouter<Arc<App>> {
    match name {
        Name::Page => get(answers::page),
        Name::Asset => get(answers::asset),
        Name::State => get(answers::state),
        Name::Events => get(answers::events),
        Name::History => get(answers::history),
        Name::Flows => get(answers::flows),
        Name::Capture => get(answers::start_capture),
        Name::Explain => post(answers::explain),
        Name::Transaction => post(answers::transaction),
    }
}
