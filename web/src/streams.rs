//! `GET /v1/events`: the view, then its changes, for as long as the page is open.
//!
//! A task for each reader fills a short channel. A reader that is slow misses changes and is sent
//! the whole view again; one that does not read at all is ended.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{sleep, timeout};
use trama_serve::{Chunks, Stay};

use crate::app::{App, READERS};
use crate::hub::Hub;
use crate::refusal::refuse;

/// How long a piece may wait for a reader.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Pieces that wait.
pub(crate) const PIECES: usize = 2;

/// How a stream has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All was sent.
    Complete,
    /// The reader has gone, and its connection with it.
    Gone,
    /// The reader does not read.
    Stalled,
    /// There is more, and it does not come.
    Broken,
}

/// Streams the view to a reader, for as long as its session goes on.
pub(crate) fn stream(app: &App, stay: Stay, session: Duration) -> Response {
    let Ok(place) = app.readers.clone().try_acquire_owned() else {
        let error = format!("{READERS} pages are open already; close one of them");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, error);
    };
    // Readers have a limit of their own.
    stay.stay();
    let (sender, receiver) = channel(PIECES);
    let hub = Arc::clone(&app.hub);
    tokio::spawn(async move {
        // The reader asks again, and is told how to open another session.
        let ended = timeout(session, feed(&hub, &sender, PATIENCE)).await;
        let ended = ended.unwrap_or(Ended::Complete);
        drop((place, sender));
        close(ended, &stay).await;
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Chunks(receiver).into_body()).into_response()
}

/// Sends the view and its changes until the reader goes.
async fn feed(hub: &Hub, reader: &Sender<Bytes>, patience: Duration) -> Ended {
    let (mut piece, mut changes) = hub.read();
    loop {
        if let Err(ended) = send(reader, piece, patience).await {
            return ended;
        }
        piece = tokio::select! {
            change = changes.recv() => match change {
                Ok(change) => change,
                Err(RecvError::Lagged(_)) => {
                    let (state, next) = hub.read();
                    changes = next;
                    state
                }
                Err(RecvError::Closed) => return Ended::Complete,
            },
            () = reader.closed() => return Ended::Gone,
        };
    }
}

/// Ends the connection of a stream, whose limit it no longer counts against. The rest that waits
/// for the reader has its time, too.
pub(crate) async fn close(ended: Ended, stay: &Stay) {
    if ended == Ended::Complete {
        sleep(PATIENCE).await;
    }
    stay.hang_up();
}

/// Sends a piece to a reader.
pub(crate) async fn send(
    reader: &Sender<Bytes>,
    piece: Bytes,
    patience: Duration,
) -> Result<(), Ended> {
    match timeout(patience, reader.send(piece)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Ended::Gone),
        Err(_) => Err(Ended::Stalled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(piece: Option<Bytes>) -> String {
        String::from_utf8(piece.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_has_the_view_then_changes_and_the_view_again_if_it_missed_some() {
        let hub = Arc::new(Hub::new(false));
        let (sender, mut pieces) = channel(PIECES);
        let feeder = Arc::clone(&hub);
        tokio::spawn(async move { feed(&feeder, &sender, PATIENCE).await });
        assert!(text(pieces.recv().await).starts_with("event: state\nid: 0\ndata: {"));
        hub.lost_contact("why");
        let change = text(pieces.recv().await);
        assert!(change.starts_with("event: change\nid: 1\n"), "{change}");
        assert!(change.contains(r#""lost_contact":"why""#), "{change}");
        for _ in 0..100 {
            hub.lost_contact("why");
            tokio::task::yield_now().await;
        }
        let mut last = String::new();
        while !last.starts_with("event: state") {
            last = text(pieces.recv().await);
        }
        assert!(last.starts_with("event: state\nid: 101\n"), "{last}");
        hub.end("done");
        assert_eq!(text(pieces.recv().await), "event: end\ndata: {\"reason\":\"done\"}\n\n");
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_is_ended() {
        let hub = Hub::new(false);
        let (sender, _pieces) = channel(PIECES);
        let changes = async {
            loop {
                hub.lost_contact("why");
                sleep(Duration::from_millis(1)).await;
            }
        };
        let patience = Duration::from_millis(50);
        tokio::select! {
            ended = feed(&hub, &sender, patience) => assert_eq!(ended, Ended::Stalled),
            () = changes => {}
        }
    }

    #[tokio::test]
    async fn a_reader_that_goes_ends_its_stream() {
        let hub = Hub::new(false);
        let (sender, pieces) = channel(PIECES);
        drop(pieces);
        assert_eq!(feed(&hub, &sender, PATIENCE).await, Ended::Gone);
    }
}
