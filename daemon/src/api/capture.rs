//! `POST /v1/capture`: the answer is a pcapng file that grows until its client asks for the end
//! with `POST /v1/capture/end`, or goes away.

use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response as HttpResponse};
use tokio::sync::mpsc::Receiver;
use trama_api::capture::{End, ID, Request};
use trama_serve::Chunks;

use super::Api;
use crate::captures::{self, Wanted};
use crate::ctl::Failure;
use crate::panics;

/// A capture that has started.
pub(super) struct Started {
    id: u64,
    chunks: Receiver<Bytes>,
}

impl IntoResponse for Started {
    fn into_response(self) -> HttpResponse {
        let headers =
            [(header::CONTENT_TYPE.as_str(), "application/x-pcapng"), (ID, &self.id.to_string())];
        (headers, Chunks(self.chunks).into_body()).into_response()
    }
}

impl Api {
    /// Starts a capture for a client of this user.
    pub(super) fn capture(&self, request: &Request, user: Option<u32>) -> Result<Started, Failure> {
        let config = self.daemon.config();
        if !config.daemon.capture {
            let file = self.daemon.file();
            return Err(format!(
                "captures are forbidden: capture = false in [daemon] of {}",
                file.display()
            )
            .into());
        }
        if request.last.is_some() && config.daemon.capture_ring.is_none() {
            let file = self.daemon.file();
            return Err(format!(
                "no earlier frames are kept; set capture-ring = \"8Mi\" in [daemon] of {}, then \
                 tramactl reload",
                file.display()
            )
            .into());
        }
        let wanted = Wanted::read(request, &config)?;
        panics::commit();
        let (id, chunks) = captures::start(&self.daemon, wanted, user)?;
        Ok(Started { id, chunks })
    }

    /// Asks a capture to end.
    pub(super) fn end_capture(&self, end: &End) -> Result<(), Failure> {
        // One that has ended meanwhile is no fault.
        self.daemon.captures.end(end.id);
        Ok(())
    }
}
