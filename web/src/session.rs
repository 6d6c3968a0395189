//! Sessions of browsers: cookies that the process can check and need not remember.
//!
//! A cookie is `trama-KEY=EXPIRY.NONCE.MAC`: the MAC (HMAC-SHA256) is over the second and third
//! with the key that the daemon passes on, so that a session goes on with the next daemon; KEY is
//! made of it, so that several daemons of a host do not take each other's place. The browser sends
//! it to this origin alone (`SameSite=Strict`), and scripts do not see it (`HttpOnly`). It is not
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
/// The key of all sessions.
#[derive(Clone)]
pub(crate) struct Key {
    mac: Hmac<Sha256>,
    /// The cookie's name.
    name: String,
}

impl Key {
    /// Sessions are signed with this secret.
    pub(crate) fn new(secret: &[u8; 32]) -> Key {
        // RFC 2104 appends zeros to a key up to the length of a block.
        let mut block = [0; 64];
        block[..secret.len()].copy_from_slice(secret);
        let mac: Hmac<Sha256> = Hmac::new(&block.into());
        let name = mac.clone().chain_update("name").finalize().into_bytes();
        Key { name: format!("trama-{}", hex(&name[..4])), mac }
    }

    /// Returns the value of the header `Set-Cookie` for a new session. `now` is in seconds since
    /// 1970.
    pub(crate) fn cookie(&self, now: u64, nonce: [u8; 16]) -> String {
        let signed = format!("{}.{}", now.saturating_add(LENGTH), hex(&nonce));
        let mac = hex(&self.mac(&signed).finalize().into_bytes());
        let name = &self.name;
        format!("{name}={signed}.{mac}; HttpOnly; SameSite=Strict; Path=/; Max-Age={LENGTH}")
    }

    /// Returns for how many seconds the session goes on that one of the cookies in the value of a
    /// header `Cookie` is of.
    pub(crate) fn session(&self, cookies: &str, now: u64) -> Option<u64> {
        let values = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
        let mut own = values.filter(|(name, _)| *name == self.name);
        // A page on another port of this host could have set more of this name.
        own.by_ref().take(4).find_map(|(_, value)| self.left(value, now))
    }

    fn left(&self, value: &str, now: u64) -> Option<u64> {
        let (signed, mac) = value.rsplit_once('.')?;
        // Compares in constant time.
        self.mac(signed).verify_slice(&unhex(mac)?).ok()?;
        let expiry: u64 = signed.split('.').next()?.parse().ok()?;
        expiry.checked_sub(now).filter(|left| (1..=LENGTH + STEP).contains(left))
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        self.mac.clone().chain_update(text)
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
        assert_eq!(key().session(&sent(), NOW), Some(LENGTH));
        assert_eq!(key().session(&format!("a=b; {}; c", sent()), NOW + LENGTH - 1), Some(1));
        assert_eq!(key().session(&sent(), NOW + LENGTH), None);
        let other = Key::new(&[8; 32]);
        assert_ne!(other.name, key().name);
        assert_eq!(other.session(&sent().replace(&key().name, &other.name), NOW), None);
    }

    #[test]
    fn a_clock_may_be_set_back_by_an_hour_but_not_by_years() {
        assert_eq!(key().session(&sent(), NOW - STEP), Some(LENGTH + STEP));
        assert_eq!(key().session(&sent(), NOW - STEP - 1), None);
        assert_eq!(key().session(&sent(), 0), None);
    }

    #[test]
    fn no_changed_cookie_is_one() {
        let sent = sent();
        for at in key().name.len() + 1..sent.len() {
            let mut changed = sent.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(key().session(&changed, NOW), None, "{changed}");
        }
        for text in ["", "trama", "trama=", "trama=.", "trama=..", "trama=1.2.3", ";;=;", "x=1"] {
            let text = text.replace("trama", &key().name);
            assert_eq!(key().session(&text, NOW), None, "{text}");
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
