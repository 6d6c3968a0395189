//! Events of the configuration, and of the daemon itself.

use std::fmt::{self, Display};

use trama_api::event::{Facts, Kind, bounded};

use super::Events;

/// Who has asked for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A client of the control socket, with its user's number if that is known.
    Client(Option<u32>),
    /// A browser that shows the page.
    Browser,
    /// SIGHUP.
    Signal,
    /// A daemon that takes over, and reads the file again.
    Start,
}

impl Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Client(Some(user)) => write!(f, "uid {user}"),
            By::Client(None) => f.write_str("an unknown user"),
            By::Browser => f.write_str("a browser"),
            By::Signal => f.write_str("SIGHUP"),
            By::Start => f.write_str("the start"),
        }
    }
}

impl Events {
    /// A change was carried out, with these steps.
    pub(crate) fn changed<S: Display>(&self, verdict: &str, by: By, steps: &[S]) {
        let steps: Vec<String> = steps.iter().map(S::to_string).collect();
        self.config(verdict, Some(by), &steps.join("; "));
    }

    /// Something has become of the configuration or the daemon; `detail` says more, if it is not
    /// empty.
    pub(crate) fn config(&self, verdict: &str, by: Option<By>, detail: &str) {
        let facts = Facts {
            src: by.map(|by| bounded(&by.to_string())),
            verdict: Some(bounded(verdict)),
            detail: (!detail.is_empty()).then(|| bounded(detail)),
            ..Facts::default()
        };
        self.add(Kind::Config, facts);
    }
}
