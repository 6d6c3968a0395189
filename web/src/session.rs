//! Sessions of browsers: cookies that the process can check and need not remember.
//!
//! A cookie is `trama=EXPIRY.NONCE.MAC`: the MAC (HMAC-SHA256) is over the first two with the key
//! that the daemon passes on, so that a session goes on with the next daemon. The browser sends it
//! to this origin alone (`SameSite=Strict`), and scripts do not see it (`HttpOnly`). It is not
//! `Secure`: the page is served by HTTP on loopback, and what terminates TLS before it can add
//! that.
//!
//! Browsers keep cookies by host and not by port: another server on a port of this host is sent it,
//! too. Do not open pages of servers on loopback that another user of the host may run, or serve
//! trama's page on a Unix socket.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Seconds that a session lasts.
const LENGTH: u64 = 12 * 3600;
/// Seconds by which the clock may have been set back since a cookie was made. One that expires
/// later was made with another clock.
const STEP: u64 = 3600;
/// The cookie's name.
const NAME: &str = "trama";

/// The key of all sessions.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

impl Key {
    /// Sessions are signed with this secret.
    pub(crate) fn new(secret: &[u8; 32]) -> Key {
        // RFC 2104 appends zeros to a key up to the length of a block.
        let mut block = [0; 64];
        block[..secret.len()].copy_from_slice(secret);
        Key(Hmac::new(&block.into()))
    }

    /// Returns the value of the header `Set-Cookie` for a new session. `now` is in seconds since
    /// 1970.
    pub(crate) fn cookie(&self, now: u64, nonce: [u8; 16]) -> String {
        let signed = format!("{}.{}", now.saturating_add(LENGTH), hex(&nonce));
        let mac = hex(&self.mac(&signed).finalize().into_bytes());
        format!("{NAME}={signed}.{mac}; HttpOnly; SameSite=Strict; Path=/; Max-Age={LENGTH}")
    }

    /// Returns whether one of the cookies in the value of a header `Cookie` is that of a session.
    pub(crate) fn is_session(&self, cookies: &str, now: u64) -> bool {
        let values = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
        // A page on another port of this host could have set more of this name.
        values.filter(|(name, _)| *name == NAME).take(4).any(|(_, value)| self.holds(value, now))
    }

    fn holds(&self, value: &str, now: u64) -> bool {
        let Some((signed, mac)) = value.rsplit_once('.') else { return false };
        let Some(mac) = unhex(mac) else { return false };
        // Compares in constant time.
        if self.mac(signed).verify_slice(&mac).is_err() {
            return false;
        }
        let expiry = signed.split('.').next().and_then(|expiry| expiry.parse::<u64>().ok());
        expiry.is_some_and(|expiry| expiry > now && expiry - now <= LENGTH + STEP)
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        self.0.clone().chain_update(text)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads 64 hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_764_000_000;

    fn key() -> Key {
        Key::new(&[7; 32])
    }

    /// What a browser sends.
    fn sent() -> String {
        key().cookie(NOW, [1; 16]).split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_session_lasts_twelve_hours_in_this_process_and_the_next() {
        assert!(key().is_session(&sent(), NOW));
        assert!(key().is_session(&format!("a=b; {}; c", sent()), NOW + LENGTH - 1));
        assert!(!key().is_session(&sent(), NOW + LENGTH));
        assert!(!Key::new(&[8; 32]).is_session(&sent(), NOW));
    }

    #[test]
    fn a_clock_may_be_set_back_by_an_hour_but_not_by_years() {
        assert!(key().is_session(&sent(), NOW - STEP));
        assert!(!key().is_session(&sent(), NOW - STEP - 1));
        assert!(!key().is_session(&sent(), 0));
    }

    #[test]
    fn no_changed_cookie_is_one() {
        let sent = sent();
        for at in "trama=".len()..sent.len() {
            let mut changed = sent.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(!key().is_session(&changed, NOW), "{changed}");
        }
        for text in ["", "trama", "trama=", "trama=.", "trama=..", "trama=1.2.3", ";;=;", "x=1"] {
            assert!(!key().is_session(text, NOW), "{text}");
        }
    }

    #[test]
    fn the_mac_is_that_of_rfc_2104() {
        // Computed with Python's hmac.
        let wanted = "0448da08beea77a98cce4c2858b82ccb78b2ede92dac257e3db68233342f6cc5";
        let mac = hex(&key().mac("1.2").finalize().into_bytes());
        assert_eq!(mac, wanted);
        assert_eq!(unhex(wanted).map(|bytes| hex(&bytes)), Some(mac));
    }
}
