//! `GET /v1/events`: the answer is a stream of server-sent events, which goes on until its client
//! goes away.
//!
//! A task for each reader looks at the ring and fills a short channel. If the client reads slowly,
//! the task waits, the ring goes on, and the client is told how many events it has missed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response as HttpResponse};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use trama_api::event::{Event, Moment, Query};
use trama_serve::Chunks;

use super::Api;
use crate::ctl::Failure;
use crate::events::{Reader, Step, Wanted};

/// Readers of one user, and in total.
const OF_USER: usize = 16;
const IN_TOTAL: usize = 64;
/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(15);
/// Bytes after which a piece of the answer is sent, and pieces that wait.
const PIECE: usize = 8 << 10;
const PIECES: usize = 2;

/// How many readers each user has.
#[derive(Default)]
pub(super) struct Readers(Arc<Mutex<HashMap<Option<u32>, usize>>>);

/// A reader's place, which is free again with it.
struct Place {
    readers: Arc<Mutex<HashMap<Option<u32>, usize>>>,
    user: Option<u32>,
}

impl Readers {
    /// Takes a place.
    ///
    /// # Errors
    /// The user has as many readers as one may have, or all users together.
    fn take(&self, user: Option<u32>) -> Result<Place, String> {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = readers.values().sum();
        let own = readers.get(&user).copied().unwrap_or_default();
        if own >= OF_USER {
            return Err(format!("this user reads events {OF_USER} times already; end one of them"));
        }
        if total >= IN_TOTAL {
            return Err(format!("{IN_TOTAL} clients read events already; end one of them"));
        }
        readers.insert(user, own + 1);
        Ok(Place { readers: self.0.clone(), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = readers.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                readers.remove(&self.user);
            }
        }
    }
}

/// A stream of events that has begun.
pub(super) struct Stream(Receiver<Bytes>);

impl IntoResponse for Stream {
    fn into_response(self) -> HttpResponse {
        let headers =
            [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
        (headers, Chunks(self.0).into_body()).into_response()
    }
}

impl Api {
    /// Begins to stream events to a client of this user; `after` is the last event that it has.
    /// Must be called within the runtime.
    pub(super) fn events(
        &self,
        query: &str,
        after: Option<&str>,
        user: Option<u32>,
    ) -> Result<Stream, Failure> {
        let query: Query = serde_urlencoded::from_str(query)
            .map_err(|error| format!("the query is not understood: {error}"))?;
        let config = self.daemon.config();
        if config.daemon.events == 0 {
            let file = self.daemon.file();
            let file = file.display();
            return Err(format!("no events are kept: events = 0 in [daemon] of {file}").into());
        }
        let wanted = Wanted::read(&query, &config, Moment::now())?;
        let after = after.map(|text| {
            let fault = |_| format!("Last-Event-ID: {text:?} is not the number of an event");
            text.parse().map_err(fault)
        });
        let place = self.readers.take(user)?;
        let reader = Reader::new(self.daemon.events.clone(), &wanted, after.transpose()?);
        let (sender, receiver) = channel(PIECES);
        tokio::spawn(async move {
            send(reader, wanted.follows, sender).await;
            drop(place);
        });
        Ok(Stream(receiver))
    }
}

/// Sends events until the client goes away or, if it does not follow, until it has all.
async fn send(mut reader: Reader, follows: bool, client: Sender<Bytes>) {
    // What a client goes on behind that has seen no event yet.
    if client.send(sign_of_life(&reader)).await.is_err() {
        return;
    }
    let mut beat = interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (piece, has_more) = next_piece(&mut reader);
        if !piece.is_empty() && client.send(piece.into()).await.is_err() {
            return;
        }
        if has_more {
            // A reader of a few events among many must not keep others waiting.
            tokio::task::yield_now().await;
            continue;
        }
        if !follows {
            return;
        }
        tokio::select! {
            is_alive = reader.wait() => if !is_alive { return },
            () = client.closed() => return,
            _ = beat.tick() => {
                if client.send(sign_of_life(&reader)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A comment, and the number of the last event that was looked at: without data it is no event.
fn sign_of_life(reader: &Reader) -> Bytes {
    format!(": still here\nid: {}\n\n", reader.seen()).into()
}

/// Returns the next events as they are sent, and whether there may be more already.
fn next_piece(reader: &mut Reader) -> (String, bool) {
    let mut piece = String::new();
    loop {
        let Step { events, has_more } = reader.step();
        events.iter().for_each(|event| write(&mut piece, event));
        if !has_more || piece.len() >= PIECE || events.is_empty() {
            return (piece, has_more);
        }
    }
}

fn write(piece: &mut String, event: &Event) {
    // There is nothing in it that JSON cannot say.
    let data = serde_json::to_string(event).unwrap_or_default();
    piece.push_str(&format!("id: {}\ndata: {data}\n\n", event.id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_leaves_room_for_others_and_gives_it_back() {
        let readers = Readers::default();
        let mut places: Vec<_> = (0..OF_USER).map(|_| readers.take(Some(7)).unwrap()).collect();
        let refusal = readers.take(Some(7)).err().unwrap();
        assert!(refusal.contains("16 times"), "{refusal}");
        for user in 0..(IN_TOTAL - OF_USER) as u32 {
            places.push(readers.take(Some(100 + user)).unwrap());
        }
        assert!(readers.take(Some(8)).err().unwrap().contains("64 clients"));
        places.clear();
        assert!(readers.take(Some(7)).is_ok());
        assert!(readers.0.lock().unwrap().is_empty());
    }
}
