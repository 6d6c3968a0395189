//! Requests served without the `vhost` crate: those that it does not know, those that it serves
//! only after a feature was acknowledged although VMMs send them earlier, and refused ones.

use trama_frame::MacAddr;
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{Error, Result, VhostUserBackendReqHandlerMut};

use super::{Connection, Report, lock};
use crate::device::is_mac_write;
use crate::handler::refuse;
use crate::memory_table::MAX_REGIONS;
use crate::refused::{Refusal, refusal};
use crate::rings::Rings;
use crate::wire::{self, Header};

/// Bytes in front of the configuration in GET_CONFIG and SET_CONFIG: offset, size, flags.
const CONFIG_HEAD: usize = 12;

impl<R: Rings> Connection<'_, R> {
    /// Serves or refuses a request; returns `None` if the crate serves it.
    pub(super) fn serve_directly(&mut self, header: Header) -> Option<Result<()>> {
        if !header.is_well_formed() {
            return None;
        }
        match header.request() {
            Ok(FrontendReq::SET_VRING_ENABLE) => Some(self.enable(header)),
            Ok(FrontendReq::NET_SET_MTU) => Some(self.set_mtu(header)),
            Ok(FrontendReq::GET_QUEUE_NUM) => {
                let number = lock(self.handler).queue_num();
                Some(self.reply_number(header, number))
            }
            Ok(FrontendReq::GET_MAX_MEM_SLOTS) => {
                Some(self.reply_number(header, MAX_REGIONS as u64))
            }
            Ok(FrontendReq::GET_CONFIG) => Some(self.get_config(header)),
            Ok(FrontendReq::SET_CONFIG) => Some(self.set_config(header)),
            Ok(FrontendReq::SEND_RARP) => Some(self.announce(header)),
            Ok(FrontendReq::RESET_DEVICE) => Some(self.reset(header)),
            request => {
                let refusal = refusal(request, header.size())?;
                Some(self.refuse(header, refusal))
            }
        }
    }

    /// QEMU enables the rings of each pair before it acknowledges features.
    fn enable(&mut self, header: Header) -> Result<()> {
        let [index, enable] = self.take_words(header)?;
        let enable = match enable {
            0 => false,
            1 => true,
            _ => return Err(Error::InvalidParam),
        };
        let result = lock(self.handler).set_vring_enable(index, enable);
        self.acknowledge(header, result.is_ok())?;
        result
    }

    fn set_mtu(&mut self, header: Header) -> Result<()> {
        let [low, high] = self.take_words(header)?;
        let mtu = u64::from(low) | u64::from(high) << u32::BITS;
        let accepted = lock(self.handler).accept_mtu(mtu);
        self.acknowledge(header, accepted.is_ok())?;
        match accepted {
            Ok(()) => self.refused &= !bit(header),
            Err(warning) if self.is_first(header) => {
                self.reports.push(Report::Warning(warning));
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn get_config(&mut self, header: Header) -> Result<()> {
        let mut answer = self.take(header)?;
        let Some([offset, size, _]) = words(&answer) else { return Err(Error::InvalidMessage) };
        let handler = lock(self.handler);
        let found = handler.control.device().read(handler.queue_pairs, offset, size);
        answer.truncate(CONFIG_HEAD);
        match found {
            Some(bytes) => answer.extend(bytes),
            // An answer without bytes tells the frontend that it failed.
            None => answer[4..8].fill(0),
        }
        wire::reply(&self.stream, header, &answer).map_err(Error::SocketError)
    }

    fn set_config(&mut self, header: Header) -> Result<()> {
        let body = self.take(header)?;
        let Some([offset, size, _]) = words(&body) else { return Err(Error::InvalidMessage) };
        let accepted = is_mac_write(offset, size);
        if !accepted {
            self.note(header, "only the MAC address may be written, and writing it has no effect");
        }
        self.acknowledge(header, accepted)
    }

    /// The first six bytes are the address of a guest that has migrated to this frontend.
    fn announce(&mut self, header: Header) -> Result<()> {
        let body = self.take(header)?;
        let station =
            body.first_chunk().filter(|_| body.len() == 8).ok_or(Error::InvalidMessage)?;
        let result = lock(self.handler).rings.announce(MacAddr(*station));
        self.acknowledge(header, result.is_ok())?;
        result.or_else(refuse)
    }

    fn reset(&mut self, header: Header) -> Result<()> {
        self.take(header)?;
        let result = lock(self.handler).reset_device();
        self.acknowledge(header, result.is_ok())?;
        result
    }

    fn refuse(&mut self, header: Header, refusal: Refusal) -> Result<()> {
        self.take(header)?;
        if let Refusal::Answered(answer) = refusal {
            self.note(header, "it was not offered; answered as empty");
            return wire::reply(&self.stream, header, &answer).map_err(Error::SocketError);
        }
        match refusal {
            // A request is replayed without asking for an answer: the first time it was answered.
            Refusal::Fatal(why) if !self.is_answered(header) && self.to_replay == 0 => {
                return refuse(why);
            }
            Refusal::Fatal(why) => self.note(header, why),
            _ => self.note(header, "it was not offered; ignored"),
        }
        self.acknowledge(header, false)
    }

    /// Logs a request that is not served, once for each number.
    fn note(&mut self, header: Header, why: &str) {
        if self.is_first(header) {
            self.reports.push(Report::Note(format!("{}: {why}", header.describe())));
        }
    }

    /// Whether this request is refused for the first time: a frontend may repeat it at will.
    fn is_first(&mut self, header: Header) -> bool {
        let before = self.refused;
        self.refused |= bit(header);
        self.refused != before
    }

    fn reply_number(&mut self, header: Header, number: u64) -> Result<()> {
        self.take(header)?;
        wire::reply(&self.stream, header, &number.to_ne_bytes()).map_err(Error::SocketError)
    }

    fn is_answered(&self, header: Header) -> bool {
        header.needs_reply() && lock(self.handler).answers()
    }

    pub(super) fn acknowledge(&self, header: Header, ok: bool) -> Result<()> {
        if self.is_answered(header) {
            wire::acknowledge(&self.stream, header, ok).map_err(Error::SocketError)?;
        }
        Ok(())
    }

    fn take(&self, header: Header) -> Result<Vec<u8>> {
        wire::take(&self.stream, header).map_err(Error::SocketError)
    }

    /// Reads a message whose body is two words.
    fn take_words(&self, header: Header) -> Result<[u32; 2]> {
        let body = self.take(header)?;
        words(&body).filter(|_| body.len() == 8).ok_or(Error::InvalidMessage)
    }
}

/// A request's bit in [`Connection::refused`].
fn bit(header: Header) -> u64 {
    1 << header.number().min(63)
}

/// The first words of a body, if it is long enough.
fn words<const N: usize>(body: &[u8]) -> Option<[u32; N]> {
    let (words, _) = body.as_chunks::<4>();
    let words = words.get(..N)?;
    Some(std::array::from_fn(|i| u32::from_ne_bytes(words[i])))
}
