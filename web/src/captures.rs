//! `GET /v1/capture`: the frames of a port for some seconds, as a file.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::sleep;
use trama_api::capture::{End, ID, Request};
use trama_api::transaction::VERSION;
use trama_serve::{Chunks, Stay};

use crate::app::{App, CAPTURES};
use crate::refusal::refuse;
use crate::streams::{Ended, PATIENCE, PIECES, close, send};
use crate::upstream::{self, Growing, Upstream};

/// Most seconds of a capture.
const LONGEST: u64 = 600;
/// How long the rest of a capture may take once it was asked to end.
const REST: Duration = Duration::from_secs(10);

/// What is captured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    port: String,
    #[serde(default = "half_a_minute")]
    seconds: u64,
}

fn half_a_minute() -> u64 {
    30
}

/// Streams a capture.
pub(crate) async fn capture(app: &App, wanted: Wanted, stay: Stay) -> Response {
    if !(1..=LONGEST).contains(&wanted.seconds) {
        let error = format!("seconds must be 1 to {LONGEST}");
        return refuse(StatusCode::BAD_REQUEST, error);
    }
    // The daemon would take a name that no port has for another word.
    if !app.hub.has_port(&wanted.port) {
        return refuse(StatusCode::NOT_FOUND, "there is no such port; see tramactl show");
    }
    let Ok(place) = app.captures.clone().try_acquire_owned() else {
        let error = format!("{CAPTURES} captures run already; wait for the end of one");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, error);
    };
    let request = Request {
        version: VERSION,
        words: vec![wanted.port.clone()],
        direction: None,
        frames: true,
        drops: None,
        snaplen: 0,
        count: None,
        last: None,
    };
    let frames = match app.upstream.start("/v1/capture", &request).await {
        Ok(frames) => frames,
        Err(no_answer) => return no_answer.into_response(),
    };
    // Captures have a limit of their own.
    stay.stay();
    let (sender, receiver) = channel(PIECES);
    let upstream = Arc::clone(&app.upstream);
    tokio::spawn(async move {
        let time = Duration::from_secs(wanted.seconds);
        let ended = feed(&upstream, frames, &sender, time).await;
        if ended == Ended::Broken {
            // Before the body ends, so that the browser does not take the file for complete.
            stay.hang_up();
        }
        drop((place, sender));
        close(ended, &stay).await;
    });
    let name = format!("attachment; filename=\"{}.pcapng\"", file_name(&wanted.port));
    let headers =
        [(header::CONTENT_TYPE, "application/x-pcapng"), (header::CONTENT_DISPOSITION, &name)];
    (headers, Chunks(receiver).into_body()).into_response()
}

/// Sends what is captured in some seconds. Its end is that of the daemon's answer, so that the last
/// frames come, too.
async fn feed(
    upstream: &Upstream,
    mut frames: Growing,
    reader: &Sender<Bytes>,
    time: Duration,
) -> Ended {
    let id = number(&frames.headers);
    let mut end = pin!(sleep(time));
    let mut has_ended = false;
    loop {
        tokio::select! {
            piece = frames.next() => {
                let piece = match piece {
                    Ok(Some(piece)) => piece,
                    Ok(None) => return Ended::Complete,
                    Err(_) => return Ended::Broken,
                };
                if let Err(ended) = send(reader, piece, PATIENCE).await {
                    return ended;
                }
            }
            () = &mut end => {
                let Some(id) = id.filter(|_| !has_ended) else { return Ended::Broken };
                has_ended = true;
                let asked = End { version: VERSION, id };
                if upstream.post("/v1/capture/end", &asked, upstream::PATIENCE).await.is_err() {
                    return Ended::Broken;
                }
                end.set(sleep(REST));
            }
            () = reader.closed() => return Ended::Gone,
        }
    }
}

fn number(headers: &HeaderMap) -> Option<u64> {
    headers.get(ID)?.to_str().ok()?.parse().ok()
}

/// The name of a port, as far as it can be a file's.
fn file_name(port: &str) -> String {
    let plain =
        |char: char| if char.is_ascii_alphanumeric() || "-_".contains(char) { char } else { '_' };
    port.chars().take(64).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(file_name("vm-1_a"), "vm-1_a");
        assert_eq!(file_name("../a\"\r\nb;ä"), "___a___b__");
        assert_eq!(file_name(&"x".repeat(100)).len(), 64);
    }
}
