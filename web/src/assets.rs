//! The files of the page, which are part of the program.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::refusal::refuse;

/// A file, by its name in `web/page`.
macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../page/", $name)).as_slice())
    };
}

/// The page, and what is served without a session.
const INDEX: &[u8] = include_bytes!("../page/index.html");
/// What is served instead of the page without a session.
const LOGIN: &str = include_str!("../page/login.html");
/// What both load.
const FILES: &[(&str, &[u8])] = &[
    file!("api.js"),
    file!("board.js"),
    file!("capture.js"),
    file!("chart.js"),
    file!("dom.js"),
    file!("drops.js"),
    file!("early.js"),
    file!("edge.js"),
    file!("explain.js"),
    file!("fit.js"),
    file!("flows.js"),
    file!("forwards.js"),
    file!("head.js"),
    file!("keys.js"),
    file!("layout.js"),
    file!("list.js"),
    file!("listrow.js"),
    file!("main.js"),
    file!("model.js"),
    file!("netpanel.js"),
    file!("network.js"),
    file!("overview.js"),
    file!("panel.css"),
    file!("panel.js"),
    file!("panelparts.js"),
    file!("picture.css"),
    file!("picture.js"),
    file!("portchanges.js"),
    file!("portpanel.js"),
    file!("ports.js"),
    file!("proposal.js"),
    file!("search.js"),
    file!("stream.js"),
    file!("strip.js"),
    file!("style.css"),
    file!("theme.js"),
    file!("tip.js"),
    file!("trend.js"),
    file!("uplot.css"),
    file!("uplot.js"),
    file!("words.js"),
    file!("workerpanel.js"),
];

/// The files, with what identifies their contents.
pub(crate) struct Assets {
    index: Asset,
    files: Vec<(&'static str, Asset)>,
}

struct Asset {
    kind: &'static str,
    etag: String,
    bytes: Bytes,
}

/// Why someone is asked to open a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// There is none, or it has ended.
    Needed,
    /// The code is not one, or was used before.
    Used,
}

impl Assets {
    /// Returns all files.
    pub(crate) fn new() -> Assets {
        let files = FILES.iter().map(|(name, bytes)| (*name, Asset::new(name, bytes)));
        Assets { index: Asset::new("index.html", INDEX), files: files.collect() }
    }

    /// Returns the page.
    pub(crate) fn page(&self) -> Response {
        self.index.answer(StatusCode::OK)
    }

    /// Returns a file, unless the browser has it.
    pub(crate) fn file(&self, name: &str, asked: &HeaderMap) -> Response {
        let Some((_, asset)) = self.files.iter().find(|(it, _)| *it == name) else {
            return refuse(StatusCode::NOT_FOUND, "there is no such file; load the page again");
        };
        let known = asked.get(header::IF_NONE_MATCH).and_then(|it| it.to_str().ok());
        let is_known = known.is_some_and(|known| known.split(',').any(|it| asset.is(it)));
        let mut answer = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            asset.answer(StatusCode::OK)
        };
        // Asked for again each time, so that the files are those of the process that answers.
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(etag) = HeaderValue::from_str(&asset.etag) {
            headers.insert(header::ETAG, etag);
        }
        answer
    }
}

impl Login {
    /// Returns the page that says how to open a session.
    pub(crate) fn page(self) -> Response {
        let (status, text) = match self {
            Login::Needed => (StatusCode::UNAUTHORIZED, LOGIN.to_owned()),
            Login::Used => {
                let page = LOGIN.replacen("<body", "<body data-reason=\"used\"", 1);
                (StatusCode::FORBIDDEN, page)
            }
        };
        (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
    }
}

impl Asset {
    fn new(name: &str, bytes: &'static [u8]) -> Asset {
        let digest = Sha256::digest(bytes);
        let etag: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Asset { kind: kind(name), etag: format!("\"{etag}\""), bytes: Bytes::from_static(bytes) }
    }

    fn answer(&self, status: StatusCode) -> Response {
        (status, [(header::CONTENT_TYPE, self.kind)], self.bytes.clone()).into_response()
    }

    fn is(&self, etag: &str) -> bool {
        let etag = etag.trim();
        etag.strip_prefix("W/").unwrap_or(etag) == self.etag
    }
}

/// The media type of a file, by the end of its name.
fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "text/plain; charset=utf-8",
    }
}
