//! Interfaces above another one: the bridge or bond that it is a port of, VLANs and the like that
//! are made on it. Their traffic passes it.

use std::collections::BTreeSet;
use std::io;

use super::{Message, attribute, dump, number};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const BODY: usize = 16;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
/// The first part of `IFLA_LINKINFO`.
const IFLA_INFO_KIND: u16 = 1;

/// Returns the names of the interfaces above one of the host.
///
/// # Errors
/// The kernel does not answer the request.
pub(crate) fn above(ifname: &str) -> io::Result<BTreeSet<String>> {
    let mut links = Vec::new();
    dump(RTM_GETLINK, BODY, |_, message| links.extend(Link::read(message)))?;
    Ok(among(&links, ifname))
}

/// Goes up from one to all that are above it.
fn among(links: &[Link], ifname: &str) -> BTreeSet<String> {
    let mut found: Vec<&Link> = links.iter().filter(|link| link.name == ifname).collect();
    let mut at = 0;
    while let Some(below) = found.get(at).copied() {
        let is_above =
            |link: &&Link| below.master == Some(link.index) || link.made_on == Some(below.index);
        for link in links.iter().filter(is_above) {
            if !found.iter().any(|known| known.index == link.index) {
                found.push(link);
            }
        }
        at += 1;
    }
    found.into_iter().map(|link| link.name.clone()).filter(|name| name != ifname).collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
    /// The bridge, bond or VRF that it is a port of.
    master: Option<u32>,
    /// The interface of the same namespace that it is made on.
    made_on: Option<u32>,
}

impl Link {
    fn read(message: &Message<'_>) -> Option<Link> {
        if message.kind != RTM_NEWLINK {
            return None;
        }
        let mut link = Link { index: number(message.body.get(4..8)?), ..Link::default() };
        let (mut is_elsewhere, mut is_pair) = (false, false);
        let mut rest = message.body.get(BODY..)?;
        while let Some((kind, value, next)) = attribute(rest) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_MASTER => link.master = value.get(..4).map(number),
                IFLA_LINK => link.made_on = value.get(..4).map(number),
                IFLA_LINK_NETNSID => is_elsewhere = true,
                IFLA_LINKINFO => {
                    let first = attribute(value).filter(|(kind, ..)| *kind == IFLA_INFO_KIND);
                    // Its link is the other end.
                    is_pair = first.is_some_and(|(_, name, _)| text(name) == "veth");
                }
                _ => {}
            }
            rest = next;
        }
        if is_elsewhere || is_pair {
            link.made_on = None;
        }
        Some(link)
    }
}

/// A text that ends with a zero byte.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, master: u32, made_on: u32) -> Link {
        let number = |number| (number > 0).then_some(number);
        let (master, made_on) = (number(master), number(made_on));
        Link { index, name: format!("if{index}"), master, made_on }
    }

    #[test]
    fn what_is_above_is_found_through_any_number_of_levels() {
        // A VLAN 4 on bond 3 of ports 1 and 2, in bridge 5; 6 is another one.
        let links = [
            link(1, 3, 0),
            link(2, 3, 0),
            link(3, 0, 0),
            link(4, 5, 3),
            link(5, 0, 0),
            link(6, 0, 0),
        ];
        let names = |of: &str| among(&links, of).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(names("if1"), "if3 if4 if5");
        assert_eq!(names("if4"), "if5");
        assert_eq!(names("if5"), "");
        assert_eq!(names("none"), "");
        assert_eq!(among(&[link(1, 2, 2), link(2, 1, 1)], "if1").len(), 1, "a loop ends");
    }

    #[test]
    fn a_message_is_read_and_a_pair_is_not_made_on_its_other_end() {
        let attribute = |kind: u16, value: &[u8]| {
            let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let read = |kind: &[u8]| {
            let body = [
                [0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec(),
                attribute(IFLA_IFNAME, b"eth0.5\0"),
                attribute(IFLA_MASTER, &9u32.to_ne_bytes()),
                attribute(IFLA_LINK, &2u32.to_ne_bytes()),
                attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind)),
            ];
            let body = body.concat();
            Link::read(&Message { kind: RTM_NEWLINK, body: &body }).unwrap()
        };
        let vlan = Link { index: 7, name: "eth0.5".into(), master: Some(9), made_on: Some(2) };
        assert_eq!(read(b"vlan\0"), vlan);
        assert_eq!(read(b"veth\0").made_on, None);
        assert_eq!(Link::read(&Message { kind: RTM_NEWLINK, body: &[0; 7] }), None);
    }
}
