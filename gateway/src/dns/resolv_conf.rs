//! Parses `resolv.conf` (resolv.conf(5)): servers and search list.
//!
//! The file is written by people and by many programs, in any encoding and with lines for other
//! readers. It is parsed as bytes, and an invalid word or line is ignored. Unlike in the C library,
//! a comment may follow on any line, and duplicate servers are used once.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use trama_dhcp::name::DomainName;

use super::PORT;

/// Most domains of a search list.
const MAX_DOMAINS: usize = 16;

/// The contents of a file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct ResolvConf {
    /// The servers in order, without duplicates.
    pub servers: Vec<SocketAddr>,
    /// The domains of the last `search` or `domain` line, at most [`MAX_DOMAINS`].
    pub search: Vec<DomainName>,
}

impl ResolvConf {
    /// Parses a file. `scope` returns the index of an interface; a link-local server whose
    /// interface does not exist is ignored.
    pub(super) fn parse(bytes: &[u8], scope: impl Fn(&str) -> Option<u32>) -> ResolvConf {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut file = ResolvConf::default();
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let mut words = words(line);
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| server(word, &scope));
                    let is_new = |server: &SocketAddr| !file.servers.contains(server);
                    file.servers.extend(server.filter(is_new));
                }
                Some("search") => file.search_in(words),
                Some("domain") => file.search_in(words.take(1)),
                _ => {}
            }
        }
        file
    }

    /// Takes the domains of a line. A line without any is ignored, as in the C library.
    fn search_in<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let mut words = words.peekable();
        if words.peek().is_some() {
            // Invalid names are ignored; a single dot means an empty list.
            self.search = words.filter_map(|word| word.parse().ok()).take(MAX_DOMAINS).collect();
        }
    }
}

/// The words of a line up to a comment. A word that is not UTF-8 is empty. A NUL, which a crash may
/// leave in a file, separates words.
fn words(line: &[u8]) -> impl Iterator<Item = &str> {
    let line = line.split(|byte| matches!(byte, b'#' | b';')).next().unwrap_or_default();
    line.split(|byte| byte.is_ascii_whitespace() || *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| std::str::from_utf8(word).unwrap_or_default())
}

/// A server's address. An IPv6 address may have a zone (RFC 4007, 11): an interface's name or
/// index.
fn server(word: &str, scope: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        let address = word.parse::<IpAddr>().ok()?.to_canonical();
        // A link-local address needs its link.
        let is_link_local =
            matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        return (!is_link_local).then_some(SocketAddr::new(address, PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    if !address.is_unicast_link_local() {
        // The zone of a global address is ignored.
        return Some(SocketAddr::new(IpAddr::V6(address).to_canonical(), PORT));
    }
    let index = scope(zone).or_else(|| zone.parse().ok()).filter(|index| *index != 0)?;
    Some(SocketAddrV6::new(address, PORT, 0, index).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: impl AsRef<[u8]>) -> ResolvConf {
        ResolvConf::parse(text.as_ref(), |name| (name == "eth0").then_some(7))
    }

    fn servers(text: impl AsRef<[u8]>) -> Vec<String> {
        let file = parse(text);
        assert!(file.servers.iter().all(|server| server.port() == PORT));
        let text = |server: &SocketAddr| match server {
            SocketAddr::V6(it) if it.scope_id() > 0 => format!("{}%{}", it.ip(), it.scope_id()),
            _ => server.ip().to_string(),
        };
        file.servers.iter().map(text).collect()
    }

    #[test]
    fn odd_text_costs_no_server() {
        let lines: [&[u8]; 18] = [
            b"nameserver 192.0.2.1",
            b"\t nameserver \t192.0.2.1\t \n",
            b"nameserver 192.0.2.1\r\noptions edns0\r\n",
            b"# old\rnameserver 192.0.2.1\r",
            b"nameserver 192.0.2.1 # by hand",
            b"nameserver 192.0.2.1;by hand",
            b"nameserver 192.0.2.1#by hand",
            b"nameserver 192.0.2.1 192.0.2.9 trailing",
            b"# M\xfcnchen\nnameserver 192.0.2.1",
            b"nameserver 192.0.2.1 \xff\n\xff\xfe\n",
            b"nameserver \xff\nnameserver 192.0.2.1",
            b"\xef\xbb\xbfnameserver 192.0.2.1",
            b"\0\0\0\nnameserver 192.0.2.1\0\0\0",
            b"nameserver\nnameserver x\nnameserver 192.0.2.1",
            b"options retrans:1 frobnicate:9\nfoo bar\nsortlist 1.2.3.4\nnameserver 192.0.2.1",
            b"nameserver ::ffff:192.0.2.1\nnameserver 192.0.2.1",
            b"nameserver 192.0.2.1\nnameserver 192.0.2.1",
            b"# nameserver 1.2.3.4\n;nameserver 1.2.3.4\nnameservers 1.2.3.4\nnameserver 192.0.2.1",
        ];
        for line in lines {
            assert_eq!(servers(line), ["192.0.2.1"], "{}", String::from_utf8_lossy(line));
        }
        let long =
            format!("#{}\nsearch {}\nnameserver 192.0.2.1", "x".repeat(9000), "a ".repeat(9000));
        assert_eq!(servers(long), ["192.0.2.1"]);
        let many = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.2\n";
        assert_eq!(servers(many), ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    }

    #[test]
    fn a_zone_names_the_link_of_a_server() {
        assert_eq!(servers("nameserver fe80::1%eth0"), ["fe80::1%7"]);
        assert_eq!(servers("nameserver fe80::1%3"), ["fe80::1%3"], "by its index");
        let gone = "nameserver fe80::1%wlan0\nnameserver fe80::1\nnameserver fe80::1%0\n\
                    nameserver fe80::1%\nnameserver 192.0.2.1%eth0\nnameserver 192.0.2.1";
        assert_eq!(servers(gone), ["192.0.2.1"], "no such link");
        assert_eq!(servers("nameserver 2001:db8::1%eth9"), ["2001:db8::1"], "of no link");
        let both = "nameserver fe80::1%eth0\nnameserver fe80::1%3\nnameserver fe80::1%7";
        assert_eq!(servers(both), ["fe80::1%7", "fe80::1%3"]);
    }

    #[test]
    fn the_last_search_or_domain_line_counts() {
        let search = |text: &str| -> Vec<String> {
            parse(text).search.iter().map(DomainName::to_string).collect()
        };
        assert_eq!(search("search Lab.Example. b.example\n"), ["lab.example", "b.example"]);
        assert_eq!(search("search a.b\ndomain c.d e.f # x"), ["c.d"]);
        assert_eq!(search("domain c.d\nsearch a.b # comment"), ["a.b"]);
        assert_eq!(search("search a.b\nsearch\nsearch # none"), ["a.b"]);
        assert_eq!(search("search Speedport_000 -x a..b \u{fc}.b a.b"), ["speedport_000", "a.b"]);
        assert_eq!(search("search a.b\nsearch ."), [""; 0]);
        let many: Vec<_> = (0..40).map(|number| format!("d{number}.example")).collect();
        assert_eq!(search(&format!("search {}", many.join(" "))), many[..MAX_DOMAINS]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0usize..40,
        ) {
            let mut text = b"nameserver 192.0.2.1 \nsearch a.b ".to_vec();
            text.splice(at.min(text.len())..at.min(text.len()), bytes);
            prop_assert!(parse(text).search.len() <= MAX_DOMAINS);
        }
    }
}
