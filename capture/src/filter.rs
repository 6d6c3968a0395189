//! The language of filters: the part of tcpdump's that a switch can answer from the first bytes of
//! a frame, and `drop`.
//!
//! ```text
//! expression := term (("and" | "or") term)*         of equal rank, from left to right, as tcpdump
//! term       := "not" term | "(" expression ")" | test
//! test       := protocol | [protocol] [direction] ("host" | "net") ADDRESS[/PREFIX]
//!             | [protocol] [direction] "port" PORT[-PORT] | [protocol] direction ADDRESS[/PREFIX]
//!             | "ether" ("host" | direction) MAC | "vlan" [ID] | "less" N | "greater" N
//!             | "drop" REASON
//! protocol   := "ip" | "ip6" | "arp" | "icmp" | "icmp6" | "tcp" | "udp"
//! direction  := "src" | "dst"
//! ```
//!
//! A bare address or number after `and` or `or` repeats the test before it: `port 80 or 443`.
//!
//! It differs from tcpdump's in what it sees: behind tags without `vlan` before, behind the
//! extension headers of IPv6, and a test of what the frame does not have is false, also below
//! `not`.

mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use trama_frame::MacAddr;
use trama_frame::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

use crate::head::{ETHERTYPE_ARP, Head, ICMP, ICMPV6, TCP, UDP};

/// Most tests and operators of one filter: it runs for each frame.
pub const MAX_NODES: usize = 64;

/// What a filter sees of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse<'a> {
    /// Its first bytes; 128 hold all headers of most frames.
    pub head: &'a [u8],
    /// Its length in bytes.
    pub len: usize,
    /// Why it was dropped, as an index of the reasons that [`Filter::parse`] was given; `None` if
    /// it was not.
    pub drop: Option<usize>,
}

/// A mistake in the text of a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter, column {column}: {message}")]
pub struct Mistake {
    /// Where it is, in characters from 1.
    pub column: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// The word that is not known; empty if that is not the mistake.
    pub word: String,
    /// The words that could stand there.
    pub known: Vec<&'static str>,
}

/// A filter, ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Node);

impl Filter {
    /// Reads a filter; `reasons` are the names of drop reasons.
    ///
    /// # Errors
    /// The text is not one.
    pub fn parse(text: &str, reasons: &[&'static str]) -> Result<Filter, Mistake> {
        parser::parse(text, reasons).map(Filter)
    }

    /// Returns whether a frame is wanted.
    pub fn matches(&self, frame: &Glimpse<'_>) -> bool {
        self.0.holds(frame, &Head::read(frame.head))
    }
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Test(Test),
}

impl Node {
    fn holds(&self, frame: &Glimpse<'_>, head: &Head) -> bool {
        match self {
            Node::And(left, right) => left.holds(frame, head) && right.holds(frame, head),
            Node::Or(left, right) => left.holds(frame, head) || right.holds(frame, head),
            Node::Not(node) => !node.holds(frame, head),
            Node::Test(test) => test.holds(frame, head),
        }
    }
}

/// Which end of a packet a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
    Either,
}

impl End {
    fn any<T>(self, [source, destination]: &[T; 2], is_wanted: impl Fn(&T) -> bool) -> bool {
        match self {
            End::Source => is_wanted(source),
            End::Destination => is_wanted(destination),
            End::Either => is_wanted(source) || is_wanted(destination),
        }
    }
}

/// A protocol that a test names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Ip,
    Ip6,
    Arp,
    Icmp,
    Icmp6,
    Tcp,
    Udp,
}

impl Protocol {
    fn is_of(self, head: &Head) -> bool {
        let is = |ethertype| head.ethertype == Some(ethertype);
        let carries = |protocol| head.protocol == Some(protocol);
        match self {
            Protocol::Ip => is(ETHERTYPE_IPV4),
            Protocol::Ip6 => is(ETHERTYPE_IPV6),
            Protocol::Arp => is(ETHERTYPE_ARP),
            Protocol::Icmp => is(ETHERTYPE_IPV4) && carries(ICMP),
            Protocol::Icmp6 => is(ETHERTYPE_IPV6) && carries(ICMPV6),
            Protocol::Tcp => carries(TCP),
            Protocol::Udp => carries(UDP),
        }
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Protocol(Protocol),
    Mac(End, MacAddr),
    Vlan(Option<u16>),
    Address(Option<Protocol>, End, IpNet),
    Port(Option<Protocol>, End, (u16, u16)),
    /// At most this many bytes.
    Less(usize),
    /// At least this many bytes.
    Greater(usize),
    Drop(usize),
}

impl Test {
    fn holds(&self, frame: &Glimpse<'_>, head: &Head) -> bool {
        let is_of = |protocol: &Option<Protocol>| protocol.is_none_or(|it| it.is_of(head));
        match self {
            Test::Protocol(protocol) => protocol.is_of(head),
            Test::Mac(end, mac) => head.macs.is_some_and(|macs| end.any(&macs, |it| it == mac)),
            Test::Vlan(None) => head.vlan.is_some(),
            Test::Vlan(vlan) => head.vlan == *vlan,
            Test::Address(protocol, end, net) => {
                let contains = |address: &IpAddr| net.contains(address);
                is_of(protocol) && head.addresses.is_some_and(|it| end.any(&it, contains))
            }
            Test::Port(protocol, end, (first, last)) => {
                let contains = |port: &u16| (first..=last).contains(&port);
                is_of(protocol) && head.ports.is_some_and(|it| end.any(&it, contains))
            }
            Test::Less(bytes) => frame.len <= *bytes,
            Test::Greater(bytes) => frame.len >= *bytes,
            Test::Drop(reason) => frame.drop == Some(*reason),
        }
    }
}
