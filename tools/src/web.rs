//! `web`: a link that opens the page in a browser.

use std::net::SocketAddr;

use trama_api::state::Invitation;
use trama_client::{Daemon, Failed};

/// The L4 port at which a browser finds a Unix socket that was forwarded to it.
const FORWARDED: u16 = 9478;

/// Asks for a link; returns what is printed, and tells on standard error how it is used.
///
/// # Errors
/// No daemon answers, or the page is off.
pub(crate) fn run(program: &str, daemon: &Daemon, words: &[String]) -> Result<Vec<u8>, Failed> {
    if !words.is_empty() {
        return Err("'web' takes no arguments".to_owned().into());
    }
    let (link, notes) = link(&daemon.invite()?);
    notes.iter().for_each(|note| tell!("{program}: {note}"));
    Ok(format!("{link}\n").into_bytes())
}

/// The link, and what is said of it.
fn link(Invitation { address, code, hosts }: &Invitation) -> (String, Vec<String>) {
    let mut notes = vec!["opens one session, within two minutes".to_owned()];
    let at = match (address.strip_prefix("unix:"), address.parse::<SocketAddr>()) {
        (Some(path), _) => {
            notes.push(format!(
                "if the browser is elsewhere, first there: ssh -N -L {FORWARDED}:{path} THIS-HOST"
            ));
            format!("http://localhost:{FORWARDED}")
        }
        (None, Ok(address)) if address.ip().is_loopback() => {
            let port = address.port();
            notes.push(format!(
                "if the browser is elsewhere, first there: ssh -N -L {port}:{address} THIS-HOST"
            ));
            format!("http://{address}")
        }
        _ => format!("https://{}", hosts.first().map_or(address.as_str(), String::as_str)),
    };
    if let Some(host) = hosts.first().filter(|_| !at.starts_with("https")) {
        notes.push(format!("through the proxy: https://{host}/?code={code}"));
    }
    (format!("{at}/?code={code}"), notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_where_the_browser_is() {
        let at = |address: &str| {
            let hosts = vec!["lab.example".to_owned()];
            link(&Invitation { address: address.to_owned(), code: "c0de".to_owned(), hosts })
        };
        let (plain, notes) = at("127.0.0.1:9000");
        assert_eq!(plain, "http://127.0.0.1:9000/?code=c0de");
        assert!(notes[1].ends_with("ssh -N -L 9000:127.0.0.1:9000 THIS-HOST"), "{notes:?}");
        assert_eq!(at("[::1]:9000").0, "http://[::1]:9000/?code=c0de");
        assert_eq!(notes[2], "through the proxy: https://lab.example/?code=c0de");
        let (socket, notes) = at("unix:/run/trama/web.sock");
        assert_eq!(socket, "http://localhost:9478/?code=c0de");
        assert!(notes[1].ends_with("-L 9478:/run/trama/web.sock THIS-HOST"), "{notes:?}");
        let (far, notes) = at("0.0.0.0:80");
        assert_eq!((far.as_str(), notes.len()), ("https://lab.example/?code=c0de", 1));
    }
}
