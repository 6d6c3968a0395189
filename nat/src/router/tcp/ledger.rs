//! Which TCP flows there are, in a file that outlives the process.
//!
//! A machine that only receives would wait for ever after the gateway has died: it sends nothing
//! that a new gateway could refuse. So the new one reads whose flows have ended, and sends each
//! machine an empty segment. That is out of its window, so the machine says where it is (RFC 9293,
//! 3.10.7.4), and that is answered by a reset that it believes.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileExt;

use trama_frame::MacAddr;

use super::segment::Route;

/// Bytes of a record: whether there is a flow, its station, and both ends as IPv6 address and port.
const RECORD: usize = 1 + 6 + 2 * END;
const END: usize = 16 + 2;
/// What is read of a file: a million records, more than there are descriptors for.
const LONGEST: u64 = (RECORD as u64) << 20;

/// The file. Without one, nothing is remembered.
#[derive(Default)]
pub(super) struct Ledger(Option<File>);

impl Ledger {
    /// Takes over a file and gives the flows of the process before.
    pub fn open(file: File) -> io::Result<(Ledger, Vec<Route>)> {
        // Whoever has taken over the process before may have left anything.
        let length = file.metadata()?.len().min(LONGEST);
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        file.set_len(0)?;
        let flows = bytes.chunks_exact(RECORD).filter_map(read).collect();
        Ok((Ledger(Some(file)), flows))
    }

    /// Notes that there is a flow with this number.
    pub fn enter(&self, number: u32, route: &Route) {
        let mut record = [0; RECORD];
        record[0] = 1;
        record[1..7].copy_from_slice(&route.mac.0);
        for (place, end) in record[7..].chunks_exact_mut(END).zip([route.guest, route.remote]) {
            let address = match end.ip() {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            place[..16].copy_from_slice(&address.octets());
            place[16..].copy_from_slice(&end.port().to_be_bytes());
        }
        self.write(number, &record);
    }

    /// Notes that there is none any more.
    pub fn strike(&self, number: u32) {
        self.write(number, &[0]);
    }

    fn write(&self, number: u32, bytes: &[u8]) {
        if let Some(file) = &self.0 {
            // A flow that could not be noted ends, at worst, by the machine's own patience.
            let _ = file.write_all_at(bytes, u64::from(number) * RECORD as u64);
        }
    }
}

fn read(record: &[u8]) -> Option<Route> {
    let (1, rest) = record.split_first()? else { return None };
    let (mac, ends) = rest.split_first_chunk()?;
    let mut ends = ends.chunks_exact(END).map(|end| {
        let (address, port) = end.split_first_chunk::<16>()?;
        let address = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
        Some(SocketAddr::new(address, u16::from_be_bytes(port.try_into().ok()?)))
    });
    Some(Route { mac: MacAddr(*mac), guest: ends.next()??, remote: ends.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_knows_the_flows_that_had_not_ended() {
        let route = |guest: &str, remote: &str| Route {
            mac: MacAddr([2, 0, 0, 0, 0, 7]),
            guest: guest.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        let file = tempfile::tempfile().unwrap();
        let (ledger, none) = Ledger::open(file.try_clone().unwrap()).unwrap();
        assert!(none.is_empty());
        ledger.enter(2, &route("10.0.2.15:1", "192.0.2.1:80"));
        ledger.enter(0, &route("10.0.2.15:2", "192.0.2.1:80"));
        ledger.enter(5, &route("[fd00::1]:3", "[2001:db8::1]:443"));
        ledger.strike(0);
        let (_, flows) = Ledger::open(file.try_clone().unwrap()).unwrap();
        let shown: Vec<String> = flows
            .iter()
            .map(|flow| format!("{} {} {}", flow.mac, flow.guest, flow.remote))
            .collect();
        let wanted = [
            "02:00:00:00:00:07 10.0.2.15:1 192.0.2.1:80",
            "02:00:00:00:00:07 [fd00::1]:3 [2001:db8::1]:443",
        ];
        assert_eq!(shown, wanted);
        assert!(Ledger::open(file).unwrap().1.is_empty(), "each is told once");
    }
    #[test]
    fn a_book_that_was_blown_up_does_not_stop_the_next_process() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 43).unwrap();
        assert!(Ledger::open(file.try_clone().unwrap()).unwrap().1.is_empty());
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
