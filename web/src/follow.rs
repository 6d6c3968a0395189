//! Follows the daemon: asks for its state each second, and reads its events as they come.
//!
//! Each second there is a change for readers, even if the daemon does not answer: then it says so.

use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use trama_api::event::Event;
use trama_api::state::State;

use crate::compose::Now;
use crate::hub::Hub;
use crate::sse::{Parser, Read};
use crate::upstream::{NoAnswer, Upstream};
use crate::view::EVENTS;

/// Time between two questions.
const EACH: Duration = Duration::from_secs(1);
/// After this time without an answer, readers are told.
const LATE: Duration = Duration::from_millis(1900);
/// Pauses between attempts to read events: the first and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// The daemon gives a sign of life each 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);

/// Follows the daemon's state. Does not return.
pub(crate) async fn states(upstream: &Upstream, hub: &Hub) {
    let begin = Instant::now();
    let mut answered = begin;
    let mut tick = interval(EACH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    type Asked<'a> = Pin<Box<dyn Future<Output = Result<State, NoAnswer>> + Send + 'a>>;
    let mut asked: Option<Asked<'_>> = None;
    loop {
        let answer = async {
            match &mut asked {
                Some(asked) => asked.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = answer => {
                asked = None;
                match answer {
                    Ok(state) => {
                        answered = Instant::now();
                        hub.renew(state, Now { monotonic: begin.elapsed(), unix: unix() });
                    }
                    Err(NoAnswer::Refused(_, error) | NoAnswer::Lost(error)) => {
                        hub.lost_contact(&error);
                    }
                }
            }
            _ = tick.tick() => match asked {
                None => asked = Some(Box::pin(upstream.get("/v1/state"))),
                Some(_) if answered.elapsed() >= LATE => {
                    let silent = answered.elapsed().as_secs();
                    hub.lost_contact(&format!("tramad has not answered for {silent} s"));
                }
                Some(_) => {}
            },
        }
    }
}

/// Follows the daemon's events. Does not return.
pub(crate) async fn events(upstream: &Upstream, hub: &Hub) {
    let [first, longest] = PAUSES;
    let (mut after, mut pause) = (None, first);
    loop {
        let path = match after {
            None => format!("/v1/events?last={EVENTS}"),
            Some(_) => "/v1/events".to_owned(),
        };
        match upstream.follow(&path, after).await {
            Ok(mut stream) => {
                pause = first;
                let mut parser = Parser::default();
                while let Ok(Ok(Some(piece))) = timeout(SILENCE, stream.next()).await {
                    parser.take(&piece, |read| take(read, &mut after, hub));
                }
            }
            // Such as: no events are kept.
            Err(NoAnswer::Refused(..)) => pause = longest,
            Err(NoAnswer::Lost(_)) => pause = (pause * 2).min(longest),
        }
        sleep(pause).await;
    }
}

fn take(read: Read, after: &mut Option<u64>, hub: &Hub) {
    *after = read.id.or(*after);
    if read.data.is_empty() {
        return;
    }
    match serde_json::from_str::<Event>(&read.data) {
        Ok(event) => hub.event(event.into()),
        Err(error) => tracing::debug!("an event of tramad is not understood: {error}"),
    }
}

/// Seconds since 1970, for people.
pub(crate) fn unix() -> u64 {
    // A clock before 1970 is wrong either way.
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
