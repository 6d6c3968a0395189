//! From the text of a filter to its tree.

use std::net::IpAddr;

use ipnet::IpNet;
use trama_frame::MacAddr;

use super::lexer::{Token, tokens};
use super::{End, MAX_NODES, Mistake, Node, Protocol, Test};

const PROTOCOLS: [(&str, Protocol); 7] = [
    ("ip", Protocol::Ip),
    ("ip6", Protocol::Ip6),
    ("arp", Protocol::Arp),
    ("icmp", Protocol::Icmp),
    ("icmp6", Protocol::Icmp6),
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
];

/// The words with which a test begins, other than protocols.
const TESTS: [&str; 10] =
    ["ether", "vlan", "host", "net", "src", "dst", "port", "less", "greater", "drop"];

/// The largest frame that a length can be compared with.
const MAX_LENGTH: u64 = 1 << 20;

/// What of a test is repeated by a bare address or number after it.
#[derive(Clone, Copy)]
enum Subject {
    Address(Option<Protocol>, End),
    Port(Option<Protocol>, End),
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    nodes: usize,
    reasons: &'a [&'static str],
    last: Option<Subject>,
}

pub(super) fn parse(text: &str, reasons: &[&'static str]) -> Result<Node, Mistake> {
    let mut parser = Parser { tokens: tokens(text), at: 0, nodes: 0, reasons, last: None };
    let node = parser.expression()?;
    match parser.peek() {
        Token { text: "", .. } => Ok(node),
        token @ Token { text: ")", .. } => Err(mistake(token, "there is no ( for this )")),
        token => {
            let message =
                format!("{:?} follows a whole test; write 'and' or 'or' before it", token.text);
            // Perhaps it was meant to narrow the test.
            Err(unknown(token, message, vec!["and", "or", "src", "dst", "host", "net", "port"]))
        }
    }
}

fn mistake(token: Token<'_>, message: impl Into<String>) -> Mistake {
    let (message, word, known) = (message.into(), String::new(), Vec::new());
    Mistake { column: token.column, message, word, known }
}

fn unknown(token: Token<'_>, message: String, known: Vec<&'static str>) -> Mistake {
    Mistake { column: token.column, message, word: token.text.to_owned(), known }
}

/// The token in a message.
fn shown(token: Token<'_>) -> String {
    if token.text.is_empty() { "the end".to_owned() } else { format!("{:?}", token.text) }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        // The last token is the end, which is never passed.
        self.tokens[self.at]
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn skip(&mut self, text: &str) -> bool {
        let is_it = self.peek().text == text;
        if is_it {
            self.next();
        }
        is_it
    }

    /// Counts what nests or is evaluated, so that neither this nor the tree is deeper.
    fn count(&mut self) -> Result<(), Mistake> {
        self.nodes += 1;
        match self.nodes <= MAX_NODES {
            true => Ok(()),
            false => Err(mistake(
                self.peek(),
                format!("there are more than {MAX_NODES} tests and operators; use net or a range"),
            )),
        }
    }

    fn expression(&mut self) -> Result<Node, Mistake> {
        let mut left = self.term()?;
        loop {
            let join = match self.peek().text {
                "and" => Node::And,
                "or" => Node::Or,
                _ => return Ok(left),
            };
            self.next();
            self.count()?;
            left = join(Box::new(left), Box::new(self.term()?));
        }
    }

    fn term(&mut self) -> Result<Node, Mistake> {
        self.count()?;
        if self.skip("not") {
            return Ok(Node::Not(Box::new(self.term()?)));
        }
        let open = self.peek();
        if !self.skip("(") {
            return self.test().map(Node::Test);
        }
        let node = self.expression()?;
        match self.peek() {
            Token { text: ")", .. } => self.next(),
            Token { text: "", .. } => return Err(mistake(open, "this ( is not closed; add )")),
            token => {
                let message = format!("{} stands where and, or or ) must", shown(token));
                return Err(unknown(token, message, vec!["and", "or"]));
            }
        };
        Ok(node)
    }

    fn test(&mut self) -> Result<Test, Mistake> {
        let token = self.peek();
        match token.text {
            "ether" => {
                self.next();
                self.ether()
            }
            "vlan" => {
                self.next();
                self.vlan()
            }
            "less" | "greater" => {
                self.next();
                let bytes = self.number("a length in bytes", MAX_LENGTH)? as usize;
                Ok(if token.text == "less" { Test::Less(bytes) } else { Test::Greater(bytes) })
            }
            "drop" => {
                self.next();
                self.drop_reason()
            }
            _ => self.of_ip(),
        }
    }

    fn ether(&mut self) -> Result<Test, Mistake> {
        let token = self.next();
        let end = match token.text {
            "host" => End::Either,
            "src" => End::Source,
            "dst" => End::Destination,
            _ => {
                let message = format!("{} after ether; write host, src or dst", shown(token));
                return Err(unknown(token, message, vec!["host", "src", "dst"]));
            }
        };
        let token = self.next();
        let mac: MacAddr = token.text.parse().map_err(|_| {
            let shown = shown(token);
            mistake(token, format!("{shown} is not a MAC address such as 52:54:00:00:00:01"))
        })?;
        Ok(Test::Mac(end, mac))
    }

    fn vlan(&mut self) -> Result<Test, Mistake> {
        if !self.peek().text.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(Test::Vlan(None));
        }
        Ok(Test::Vlan(Some(self.number("a VLAN", 4095)? as u16)))
    }

    fn drop_reason(&mut self) -> Result<Test, Mistake> {
        let token = self.next();
        let found = self.reasons.iter().position(|reason| *reason == token.text);
        found.map(Test::Drop).ok_or_else(|| {
            let message = format!("{} is not a drop reason", shown(token));
            unknown(token, message, self.reasons.to_vec())
        })
    }

    /// A test of protocols, addresses and L4 ports.
    fn of_ip(&mut self) -> Result<Test, Mistake> {
        let first = self.peek();
        let protocol = PROTOCOLS.iter().find(|(name, _)| *name == first.text).map(|(_, it)| *it);
        if protocol.is_some() {
            self.next();
        }
        let end = match self.peek().text {
            "src" => End::Source,
            "dst" => End::Destination,
            _ => End::Either,
        };
        if end != End::Either {
            self.next();
        }
        match (self.peek().text, protocol) {
            ("host" | "net", _) => {
                self.next();
                self.address(first, protocol, end)
            }
            ("port" | "portrange", _) => {
                self.next();
                self.port(first, protocol, end)
            }
            _ if end != End::Either => self.address(first, protocol, end),
            (_, Some(protocol)) => Ok(Test::Protocol(protocol)),
            _ => self.repeated(),
        }
    }

    /// A bare address or number, which repeats the test before it.
    fn repeated(&mut self) -> Result<Test, Mistake> {
        let token = self.peek();
        match self.last {
            Some(Subject::Port(protocol, end)) if range(token.text).is_some() => {
                self.port(token, protocol, end)
            }
            Some(Subject::Address(protocol, end)) if prefix(token.text).is_some() => {
                self.address(token, protocol, end)
            }
            _ => {
                let names = PROTOCOLS.iter().map(|(name, _)| *name);
                let known = names.chain(TESTS).chain(["not"]).collect();
                let message = match token.text {
                    "" => "a test is missing at the end".to_owned(),
                    _ => format!("{:?} begins no test", token.text),
                };
                Err(unknown(token, message, known))
            }
        }
    }

    fn address(
        &mut self,
        first: Token<'_>,
        protocol: Option<Protocol>,
        end: End,
    ) -> Result<Test, Mistake> {
        let is_of_addresses =
            matches!(protocol, None | Some(Protocol::Ip | Protocol::Ip6 | Protocol::Arp));
        if !is_of_addresses {
            let message = format!("{0} has no addresses; write {0} and host …", first.text);
            return Err(mistake(first, message));
        }
        let token = self.next();
        let net = prefix(token.text).ok_or_else(|| {
            let shown = shown(token);
            mistake(token, format!("{shown} is not an address such as 10.1.0.7 or 10.1.0.0/16"))
        })?;
        self.last = Some(Subject::Address(protocol, end));
        Ok(Test::Address(protocol, end, net))
    }

    fn port(
        &mut self,
        first: Token<'_>,
        protocol: Option<Protocol>,
        end: End,
    ) -> Result<Test, Mistake> {
        if !matches!(protocol, None | Some(Protocol::Tcp | Protocol::Udp)) {
            let message = format!("{} has no ports; write tcp or udp", first.text);
            return Err(mistake(first, message));
        }
        let token = self.next();
        let ports = range(token.text).ok_or_else(|| {
            let shown = shown(token);
            mistake(token, format!("{shown} is not a port; write a number or a range, 80-89"))
        })?;
        self.last = Some(Subject::Port(protocol, end));
        Ok(Test::Port(protocol, end, ports))
    }

    fn number(&mut self, what: &str, max: u64) -> Result<u64, Mistake> {
        let token = self.next();
        let number = token.text.parse().ok().filter(|number| *number <= max);
        number.ok_or_else(|| {
            mistake(token, format!("{} is not {what}; write 0 to {max}", shown(token)))
        })
    }
}

/// An address, or a prefix.
fn prefix(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(alone)
}

/// A port, or the first and the last of a range.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}
