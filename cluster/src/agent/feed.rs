//! Reads a range of the store and watches it from then on.
//!
//! ```text
//!   Idle ──start──▶ Reading ──last page──▶ Watching ──▶ Changed …
//!     │               ▲  ▲──── Compacted ──────┘
//!     └──start, if the range is known up to a revision──▶ Watching
//! ```
//!
//! A lost connection makes every feed idle; what it knows stays.

use std::sync::Arc;

use super::Agent;
use super::io::Outcome;
use crate::Time;
use crate::key::Scope;
use crate::store::{Entry, Page, Request, Revision};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Reading,
    Watching,
}

#[derive(Debug)]
pub(super) struct Feed {
    /// The changes up to this revision are known; `None` before the range was read as a whole.
    pub(super) known: Option<Revision>,
    /// Whether the range has to be read as a whole, although it is known up to a revision.
    is_behind: bool,
    state: State,
    /// Whether a range of one key has a row, as far as it was read.
    has_row: bool,
}

impl Feed {
    pub(super) fn new(known: Option<Revision>) -> Feed {
        Feed { known, is_behind: false, state: State::Idle, has_row: false }
    }

    /// Whether the range was read since it had to be.
    pub(super) fn is_read(&self) -> bool {
        self.known.is_some() && !self.is_behind
    }

    fn fall_behind(&mut self) {
        self.is_behind = true;
        self.state = State::Idle;
    }

    pub(super) fn stop(&mut self) {
        self.state = State::Idle;
    }
}

impl Agent {
    /// Reads the range, or resumes its watch.
    pub(super) fn start(&mut self, scope: &Scope, out: &mut Outcome) {
        let Some(feed) = self.feeds.get_mut(scope).filter(|feed| feed.state == State::Idle) else {
            return;
        };
        let scope = scope.clone();
        if let Some(known) = feed.known.filter(|_| !feed.is_behind) {
            feed.state = State::Watching;
            out.requests.push(Request::Watch { scope, from: known.next() });
            return;
        }
        feed.state = State::Reading;
        feed.has_row = false;
        self.mark(&scope);
        out.requests.push(Request::Range { scope, at: None, after: None });
    }

    /// Reads the range as a whole, whatever is known of it.
    pub(super) fn read_again(&mut self, scope: &Scope, out: &mut Outcome) {
        let Some(feed) = self.feeds.get_mut(scope) else { return };
        match feed.state {
            // The answer that is under way will do.
            State::Reading => return,
            State::Watching => out.requests.push(Request::Unwatch(scope.clone())),
            State::Idle => {}
        }
        feed.fall_behind();
        self.start(scope, out);
    }

    /// Starts a feed, unless there is one.
    pub(super) fn follow(&mut self, now: Time, scope: Scope, out: &mut Outcome) {
        if self.feeds.contains_key(&scope) {
            return;
        }
        let cached = self.cached.remove(&scope);
        let known = cached.as_ref().map(|cached| cached.revision);
        self.feeds.insert(scope.clone(), Feed::new(known));
        for row in cached.map(|cached| cached.rows).unwrap_or_default() {
            self.take(now, &scope, &row, out);
        }
        if self.session.is_open() {
            self.start(&scope, out);
        }
    }

    /// Ends a feed.
    pub(super) fn unfollow(&mut self, scope: Scope, out: &mut Outcome) {
        let feed = self.feeds.remove(&scope);
        if feed.is_some_and(|feed| feed.state == State::Watching) {
            out.requests.push(Request::Unwatch(scope));
        }
    }

    pub(super) fn page(&mut self, now: Time, scope: Scope, page: &Page, out: &mut Outcome) {
        let is_read = |feed: &&mut Feed| feed.state == State::Reading;
        let Some(feed) = self.feeds.get_mut(&scope).filter(is_read) else { return };
        feed.has_row |= !page.rows.is_empty();
        let (more, revision) = (page.more, page.revision);
        for row in &page.rows {
            self.take(now, &scope, row, out);
        }
        if more {
            let after = page.rows.last().map(|row| Arc::clone(&row.key));
            out.requests.push(Request::Range { scope, at: Some(revision), after });
            return;
        }
        // What was read may have ended the feed.
        let Some(feed) = self.feeds.get_mut(&scope) else { return };
        feed.known = Some(revision);
        feed.is_behind = false;
        feed.state = State::Watching;
        let has_row = feed.has_row;
        out.requests.push(Request::Watch { scope: scope.clone(), from: revision.next() });
        if !matches!(scope, Scope::Network(_)) && !has_row {
            let none = Entry { key: scope.to_string().into(), value: None, revision };
            self.take(now, &scope, &none, out);
        }
        self.has_read(now, &scope, out);
    }

    pub(super) fn changed(
        &mut self,
        now: Time,
        scope: &Scope,
        rows: &[Entry],
        up_to: Revision,
        out: &mut Outcome,
    ) {
        let is_watched = |feed: &&mut Feed| feed.state == State::Watching;
        let Some(feed) = self.feeds.get_mut(scope).filter(is_watched) else { return };
        let before = feed.known.unwrap_or_default();
        feed.known = Some(before.max(up_to));
        for row in rows.iter().filter(|row| row.revision > before) {
            self.take(now, scope, row, out);
        }
    }

    pub(super) fn compacted(&mut self, scope: &Scope, out: &mut Outcome) {
        let Some(feed) = self.feeds.get_mut(scope) else { return };
        feed.fall_behind();
        self.start(scope, out);
    }
}
