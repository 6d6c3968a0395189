//! The TCP flows of a gateway, in a file that outlives its process.
//!
//! A guest that only receives would not notice that the gateway died: it sends nothing that a new
//! gateway could reset. The new process therefore reads which flows have ended, and sends each
//! guest an empty segment outside its window. The guest answers with an ACK (RFC 9293, 3.10.7.4),
//! and that is answered with a reset that the guest accepts.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileExt;

use trama_frame::MacAddr;

use super::segment::Endpoints;

/// Bytes of a record: whether there is a flow, the guest's MAC address, both ends as IPv6 address
/// and port.
const RECORD: usize = 1 + 6 + 2 * END;
const END: usize = 16 + 2;
/// Bytes read from a file: a million records, more than there are descriptors.
const LONGEST: u64 = (RECORD as u64) << 20;

/// The journal file. Without one, nothing is recorded.
#[derive(Default)]
pub(super) struct FlowJournal(Option<File>);

impl FlowJournal {
    /// Takes over a file. Returns the flows of the previous process, and empties the file.
    pub(super) fn open(file: File) -> io::Result<(FlowJournal, Vec<Endpoints>)> {
        // A compromised process may have left anything in the file.
        let length = file.metadata()?.len().min(LONGEST);
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        file.set_len(0)?;
        let flows = bytes.chunks_exact(RECORD).filter_map(read).collect();
        Ok((FlowJournal(Some(file)), flows))
    }

    /// Records a flow.
    pub(super) fn record(&self, number: u32, ends: &Endpoints) {
        let mut record = [0; RECORD];
        record[0] = 1;
        record[1..7].copy_from_slice(&ends.mac.0);
        for (place, end) in record[7..].chunks_exact_mut(END).zip([ends.guest, ends.remote]) {
            let address = match end.ip() {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            place[..16].copy_from_slice(&address.octets());
            place[16..].copy_from_slice(&end.port().to_be_bytes());
        }
        self.write(number, &record);
    }

    /// Erases the record of a flow.
    pub(super) fn erase(&self, number: u32) {
        self.write(number, &[0]);
    }

    fn write(&self, number: u32, bytes: &[u8]) {
        if let Some(file) = &self.0 {
            // Without a record, the flow ends by the guest's own timeout at worst.
            let _ = file.write_all_at(bytes, u64::from(number) * RECORD as u64);
        }
    }
}

fn read(record: &[u8]) -> Option<Endpoints> {
    let (1, rest) = record.split_first()? else { return None };
    let (mac, ends) = rest.split_first_chunk()?;
    let mut ends = ends.chunks_exact(END).map(|end| {
        let (address, port) = end.split_first_chunk::<16>()?;
        let address = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
        Some(SocketAddr::new(address, u16::from_be_bytes(port.try_into().ok()?)))
    });
    Some(Endpoints { mac: MacAddr(*mac), guest: ends.next()??, remote: ends.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_knows_the_flows_that_had_not_ended() {
        let ends = |guest: &str, remote: &str| Endpoints {
            mac: MacAddr([2, 0, 0, 0, 0, 7]),
            guest: guest.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        let file = tempfile::tempfile().unwrap();
        let (journal, none) = FlowJournal::open(file.try_clone().unwrap()).unwrap();
        assert!(none.is_empty());
        journal.record(2, &ends("10.0.2.15:1", "192.0.2.1:80"));
        journal.record(0, &ends("10.0.2.15:2", "192.0.2.1:80"));
        journal.record(5, &ends("[fd00::1]:3", "[2001:db8::1]:443"));
        journal.erase(0);
        let (_, flows) = FlowJournal::open(file.try_clone().unwrap()).unwrap();
        let shown: Vec<String> = flows
            .iter()
            .map(|flow| format!("{} {} {}", flow.mac, flow.guest, flow.remote))
            .collect();
        let wanted = [
            "02:00:00:00:00:07 10.0.2.15:1 192.0.2.1:80",
            "02:00:00:00:00:07 [fd00::1]:3 [2001:db8::1]:443",
        ];
        assert_eq!(shown, wanted);
        assert!(FlowJournal::open(file).unwrap().1.is_empty(), "each is told once");
    }
    #[test]
    fn an_oversized_journal_does_not_stop_the_next_process() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 43).unwrap();
        assert!(FlowJournal::open(file.try_clone().unwrap()).unwrap().1.is_empty());
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
