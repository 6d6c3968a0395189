//! The page: what the configuration says of it, and the codes that open sessions.
//!
//! The switch has guests' memory, so it talks to no browser. A process of its own does
//! ([`trama_web`]), which `api/page.rs` starts; it reaches the daemon over a link, on which it is
//! served less than a client of the control socket is (`api/web.rs`). The listening socket and the
//! secret of sessions are the next switch's, too.

mod codes;

use std::sync::{Mutex, PoisonError};

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::watch;
use trama_api::state::{Invitation, WebSettings};
use trama_helper::Rights;

use crate::config::model::{DaemonConfig, WebAddress};

use codes::Codes;

/// The page of a daemon.
pub(crate) struct Web {
    wanted: watch::Sender<Wanted>,
    codes: Codes,
    /// What sessions are signed with.
    secret: Mutex<[u8; 32]>,
    rights: Rights,
}

/// What the configuration says of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) address: Option<WebAddress>,
    write: bool,
    hosts: Vec<String>,
}

impl Wanted {
    fn of(daemon: &DaemonConfig) -> Wanted {
        let DaemonConfig { web, web_write, web_hosts, .. } = daemon;
        Wanted { address: web.clone(), write: *web_write, hosts: web_hosts.clone() }
    }
}

impl Web {
    pub(crate) fn new(daemon: &DaemonConfig, rights: &Rights) -> Web {
        let secret = rights.kept_secret().unwrap_or_else(random);
        rights.keep_secret(&secret);
        let wanted = watch::Sender::new(Wanted::of(daemon));
        let (secret, rights) = (Mutex::new(secret), rights.clone());
        Web { wanted, codes: Codes::default(), secret, rights }
    }

    /// Takes what the configuration says now. A page that is turned off ends all sessions.
    pub(crate) fn configure(&self, daemon: &DaemonConfig) {
        let wanted = Wanted::of(daemon);
        if wanted.address.is_none() && self.wanted.borrow().address.is_some() {
            let secret = random();
            self.rights.keep_secret(&secret);
            *self.secret.lock().unwrap_or_else(PoisonError::into_inner) = secret;
        }
        self.wanted.send_if_modified(|last| {
            let changes = *last != wanted;
            *last = wanted;
            changes
        });
    }

    /// Returns what the configuration says, from now on.
    pub(crate) fn follow(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    /// Returns whether the page may change something.
    pub(crate) fn may_write(&self) -> bool {
        self.wanted.borrow().write
    }

    /// Returns what the process must know.
    pub(crate) fn settings(&self) -> WebSettings {
        let Wanted { write, hosts, .. } = self.wanted.borrow().clone();
        let key = *self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        WebSettings { write, hosts, key }
    }

    /// Makes a code that opens one session.
    ///
    /// # Errors
    /// There is no page.
    pub(crate) fn invite(&self, file: &str) -> Result<Invitation, String> {
        let Wanted { address, hosts, .. } = self.wanted.borrow().clone();
        let address = address.ok_or_else(|| {
            format!(
                "the page is off; write web = \"127.0.0.1:9478\" into [daemon] of {file}, then run \
                 tramactl reload"
            )
        })?;
        Ok(Invitation { address: address.to_string(), code: self.codes.make(), hosts })
    }

    /// Takes a code; returns whether it was one.
    pub(crate) fn redeem(&self, code: &str) -> bool {
        self.codes.take(code)
    }
}

fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut filled = 0;
    while filled < LENGTH {
        // It fails for no other reason than a signal.
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).unwrap_or_default();
    }
    bytes
}
