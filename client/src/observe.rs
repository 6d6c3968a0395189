//! Events, as they happen.

use std::ops::ControlFlow;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use trama_api::event::{Event, Query};

use crate::exchange::{NoAnswer, connect, late, patiently, read, run};
use crate::{Daemon, Failed};

/// Pause before the daemon is tried again, at first and at most; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A daemon says something at least every 15 s.
const SILENCE: Duration = Duration::from_secs(60);
/// Most bytes of an event; more are no daemon's.
const LONGEST: usize = 1 << 20;

/// What an observer is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// An event.
    Event(Box<Event>),
    /// The daemon has gone, for this reason; it is tried again.
    Gone(String),
    /// The daemon is there again.
    Back,
}

/// How a stream has ended.
enum End {
    /// The observer has seen enough.
    Enough,
    /// The daemon has sent all.
    All,
    /// It has gone.
    Gone(String),
}

impl Daemon {
    /// Observes events until `take` breaks off or, if the query does not follow, all are told. With
    /// a query that follows, a daemon that has gone is waited for; what happened meanwhile is told
    /// as far as it is kept.
    ///
    /// # Errors
    /// There is no daemon at first, it refuses, or it goes away and the query does not follow.
    pub fn observe(
        &self,
        query: &Query,
        mut take: impl FnMut(Observed) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        let follows = query.follow.unwrap_or(true);
        run(async {
            let mut after = None;
            let mut answer = self.begin(query, None).await.map_err(NoAnswer::reported)?;
            loop {
                let reason = match follow(answer, &mut after, &mut take).await {
                    End::Enough => return Ok(()),
                    End::All if !follows => return Ok(()),
                    End::All => "it has ended".to_owned(),
                    End::Gone(reason) => reason,
                };
                if !follows {
                    return Err(format!("lost the connection to tramad: {reason}").into());
                }
                if take(Observed::Gone(reason)).is_break() {
                    return Ok(());
                }
                answer = self.come_back(query, after).await?;
                if take(Observed::Back).is_break() {
                    return Ok(());
                }
            }
        })
    }

    async fn begin(
        &self,
        query: &Query,
        after: Option<u64>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let words = serde_urlencoded::to_string(query).map_err(|error| error.to_string())?;
        let path = format!("events?{words}");
        let begun = patiently(async || {
            let connection = connect(self).await?;
            let socket = connection.socket;
            let answer = connection.get(&path, after).await?;
            match answer.status() {
                StatusCode::OK => Ok(answer),
                _ => Err(read::<Value>(socket, answer).await.map_or_else(
                    |refusal| refusal,
                    |_| "the answer is not understood".to_owned().into(),
                )),
            }
        });
        timeout(self.timeout, begun).await.map_err(|_| late(self))?
    }

    /// Tries until the daemon is there again.
    async fn come_back(
        &self,
        query: &Query,
        after: Option<u64>,
    ) -> Result<Response<Incoming>, Failed> {
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
            // What there was before the first event is not asked for again.
            let (since, last) =
                if after.is_some() { (None, None) } else { (query.since.clone(), query.last) };
            let query = Query { since, last, ..query.clone() };
            match self.begin(&query, after).await {
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::Failed(failed @ Failed::Refused { .. })) => return Err(failed),
                Err(_) => {}
            }
        }
    }
}

/// Takes events from an answer; `after` has the number of the last one.
async fn follow(
    mut answer: Response<Incoming>,
    after: &mut Option<u64>,
    take: &mut impl FnMut(Observed) -> ControlFlow<()>,
) -> End {
    let mut lines = Lines::default();
    loop {
        let part = match timeout(SILENCE, answer.frame()).await {
            Err(_) => return End::Gone(format!("nothing for {} s", SILENCE.as_secs())),
            Ok(None) => return End::All,
            Ok(Some(Err(error))) => return End::Gone(error.to_string()),
            Ok(Some(Ok(part))) => part.into_data().unwrap_or_default(),
        };
        lines.push(&part);
        if lines.bytes.len() > LONGEST {
            return End::Gone("what it sends are no events".to_owned());
        }
        while let Some(line) = lines.next() {
            if let Some(number) = line.strip_prefix("id: ").and_then(|number| number.parse().ok()) {
                *after = Some(number);
            }
            let Some(json) = line.strip_prefix("data: ") else { continue };
            match serde_json::from_str(json) {
                Ok(event) => {
                    if take(Observed::Event(event)).is_break() {
                        return End::Enough;
                    }
                }
                Err(error) => return End::Gone(format!("an event is not understood: {error}")),
            }
        }
    }
}

/// Lines of server-sent events, out of pieces that end anywhere.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next whole line.
    fn next(&mut self) -> Option<String> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_come_in_pieces_that_end_anywhere() {
        let text = "id: 7\ndata: {\"ä\":1}\n\n: still here\n";
        for size in 1..text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece);
                found.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(found, ["id: 7", "data: {\"ä\":1}", "", ": still here"], "{size}");
        }
    }
}
