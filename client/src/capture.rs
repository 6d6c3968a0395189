//! Captures: one request whose answer goes on.

use std::ops::ControlFlow;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use trama_api::capture::{End, ID, Request};
use trama_api::transaction::VERSION;

use crate::exchange::{NoAnswer, connect, late, patiently, read, run};
use crate::{Daemon, Failed};

impl Daemon {
    /// Has frames captured. `take` gets the pcapng file, piece by piece, until it breaks off.
    /// SIGINT and SIGTERM ask the daemon for the end of the file; the second one does not wait for
    /// it.
    ///
    /// # Errors
    /// There is no daemon, it refuses, or it ends first.
    pub fn capture(
        &self,
        request: &Request,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        run(async {
            let mut stop = Stop::new()?;
            let start = timeout(self.timeout, self.start_capture(request));
            let mut answer = start.await.map_err(|_| late(self))?.map_err(NoAnswer::reported)?;
            let mut is_ending = false;
            loop {
                tokio::select! {
                    part = answer.frame() => match part {
                        None => return Ok(()),
                        Some(Err(error)) => {
                            return Err(format!("lost the connection to tramad: {error}; what \
                                                was captured until then is whole").into());
                        }
                        Some(Ok(part)) => {
                            let data = part.into_data().unwrap_or_default();
                            if take(&data).is_break() {
                                return Ok(());
                            }
                        }
                    },
                    () = stop.wait() => {
                        if is_ending || self.end_capture(&answer).await.is_err() {
                            return Ok(());
                        }
                        is_ending = true;
                    }
                }
            }
        })
    }

    async fn start_capture(&self, request: &Request) -> Result<Response<Incoming>, NoAnswer> {
        patiently(async || {
            let connection = connect(self).await?;
            let socket = connection.socket;
            let (answer, _) = connection.send("capture", request, None).await?;
            match answer.status() {
                StatusCode::OK => Ok(answer),
                _ => Err(read::<Value>(socket, answer).await.map_or_else(
                    |refusal| refusal,
                    |_| "the answer is not understood".to_owned().into(),
                )),
            }
        })
        .await
    }

    /// Asks for the end of a capture, on a connection of its own.
    async fn end_capture(&self, answer: &Response<Incoming>) -> Result<(), Failed> {
        let id = answer.headers().get(ID).and_then(|id| id.to_str().ok()?.parse().ok());
        let end = End { version: VERSION, id: id.ok_or("the capture has no number".to_owned())? };
        let ended =
            patiently(async || connect(self).await?.post::<Value>("capture/end", &end, None).await);
        let ended = timeout(self.timeout, ended).await.map_err(|_| late(self))?;
        ended.map(drop).map_err(NoAnswer::reported)
    }
}

/// The signals that end a capture.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Stop, String> {
        let on = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
        let interrupt = on(SignalKind::interrupt())?;
        Ok(Stop { interrupt, terminate: on(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
