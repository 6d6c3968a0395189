//! Handlers of the vhost-user requests that the `vhost` crate dispatches.
//!
//! The crate has checked sizes, flags and the number of descriptors, and that the protocol
//! feature of a request was acknowledged; values are checked here. On an error it sends a
//! negative answer where the frontend asked for one, and the connection then ends.

use std::fs::File;

use trama_virtqueue::DirtyLog;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures as Protocol,
    VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags,
    VhostUserVringState,
};
use vhost::vhost_user::{GpuBackend, Result, VhostUserBackendReqHandlerMut};

use crate::descriptors;
use crate::features;
use crate::handler::{Handler, refuse, refuse_ring};
use crate::memory_table::{self, MAX_REGIONS};
use crate::rings::Rings;
use crate::vring::{self, Addresses};

/// For requests that [`crate::connection`] has already answered or refused.
fn not_offered<T>(request: &str) -> Result<T> {
    refuse(format_args!("{request} is not offered"))
}

impl<R: Rings> VhostUserBackendReqHandlerMut for Handler<R> {
    fn set_owner(&mut self) -> Result<()> {
        self.owned = true;
        Ok(())
    }

    /// Disables all rings and keeps the rest, as the protocol recommends: frontends disagree on the
    /// meaning of this request.
    fn reset_owner(&mut self) -> Result<()> {
        for index in 0..self.vrings.len() {
            self.halt(index)?;
            self.vrings[index].enabled = false;
        }
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset_owner()
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, acknowledged: u64) -> Result<()> {
        let accepted = features::acknowledge(self.offered(), acknowledged).or_else(|unknown| {
            refuse(format_args!("the features {unknown:#x} were acknowledged but never offered"))
        })?;
        if self.acknowledged == Some(accepted) {
            return Ok(());
        }
        for index in 0..self.vrings.len() {
            self.pause(index)?;
        }
        self.rings.set_features(accepted).or_else(refuse)?;
        self.acknowledged = Some(accepted);
        if accepted & features::LOG_ALL == 0 {
            // The frontend gives up the log that it no longer needs.
            self.log = None;
        }
        (0..self.vrings.len()).try_for_each(|index| self.try_start(index))
    }

    fn get_protocol_features(&mut self) -> Result<Protocol> {
        Ok(self.offer_protocol())
    }

    fn set_protocol_features(&mut self, acknowledged: u64) -> Result<()> {
        // The crate itself adds REPLY_ACK to the offer.
        let offered = self.protocol_features() | Protocol::REPLY_ACK;
        match acknowledged & !offered.bits() {
            0 => self.protocol = Protocol::from_bits_truncate(acknowledged),
            unknown => {
                return refuse(format_args!(
                    "the protocol features {unknown:#x} were acknowledged but never offered"
                ));
            }
        }
        if self.resumed {
            // An earlier process was asked, and CONFIG is what it withholds.
            self.asked_unowned.get_or_insert(!self.protocol.contains(Protocol::CONFIG));
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queue_num())
    }

    fn set_mem_table(
        &mut self,
        messages: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let regions = messages.iter().zip(files);
        let regions = regions.map(|(message, file)| memory_table::region(message, file));
        let new = regions.collect::<std::result::Result<_, _>>().or_else(refuse)?;
        self.replace_memory(Vec::new(), new)?;
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    /// QEMU 7 with several queue pairs sends each region once for each pair.
    fn add_mem_region(
        &mut self,
        message: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<u64>> {
        let mut regions = self.regions();
        regions.retain(|region| !memory_table::is_same(region, message));
        if regions.len() >= MAX_REGIONS {
            return refuse(format_args!("more than {MAX_REGIONS} memory regions"));
        }
        let new = memory_table::region(message, file).or_else(refuse)?;
        self.replace_memory(regions, vec![new])?;
        Ok(None)
    }

    /// It removes them in the same way; only the first removal has an effect.
    fn remove_mem_region(&mut self, message: &VhostUserSingleMemoryRegion) -> Result<()> {
        let mut regions = self.regions();
        let before = regions.len();
        regions.retain(|region| !memory_table::is_same(region, message));
        if regions.len() == before { Ok(()) } else { self.replace_memory(regions, Vec::new()) }
    }

    /// A frontend that sets up a running ring again has abandoned it without GET_VRING_BASE.
    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let index = self.index(index)?;
        let Ok(size) = u16::try_from(num) else {
            return refuse_ring(index, format_args!("{num} entries exceed the maximum of 32768"));
        };
        self.halt(index)?;
        self.vrings[index].size = Some(size);
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        desc: u64,
        used: u64,
        avail: u64,
        log: u64,
    ) -> Result<()> {
        let index = self.index(index)?;
        let log = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG).then_some(log);
        let addresses = Some(Addresses { desc, avail, used, log });
        if self.vrings[index].addresses == addresses {
            return Ok(());
        }
        self.pause(index)?;
        self.vrings[index].addresses = addresses;
        self.try_start(index)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let index = self.index(index)?;
        let Ok(next) = u16::try_from(base) else {
            return refuse_ring(index, format_args!("base {base} does not fit in 16 bits"));
        };
        self.halt(index)?;
        self.vrings[index].next = next;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let ring = self.index(index)?;
        self.halt(ring)?;
        if self.vrings.iter().all(|vring| vring.kick.is_none()) {
            // QEMU frees the log of a device that it has stopped, and sends another if it starts
            // the device before the migration has ended.
            self.log = None;
        }
        Ok(VhostUserVringState::new(index, self.vrings[ring].next.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let index = self.index(index.into())?;
        let kick = file.map(vring::notifier).transpose().or_else(|e| refuse_ring(index, e))?;
        self.vrings[index].kick = Some(kick);
        if self.vrings[index].running {
            let own = self.vrings[index].fds().or_else(|e| refuse_ring(index, e))?.kick;
            return self.rings.set_kick(index, own).or_else(|e| refuse_ring(index, e));
        }
        self.try_start(index)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let index = self.index(index.into())?;
        let call = file.map(vring::notifier).transpose().or_else(|e| refuse_ring(index, e))?;
        self.vrings[index].call = call;
        if self.vrings[index].running {
            let own = self.vrings[index].own_call().or_else(|e| refuse_ring(index, e))?;
            self.rings.set_call(index, own).or_else(|e| refuse_ring(index, e))?;
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Result<()> {
        self.index(index.into()).map(drop)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let index = self.index(index)?;
        self.vrings[index].enabled = enable;
        if enable { self.try_start(index) } else { self.pause(index) }
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        not_offered("GET_CONFIG")
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        not_offered("SET_CONFIG")
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        not_offered("GPU_SET_SOCKET")
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        not_offered("GET_SHARED_OBJECT")
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        not_offered("GET_INFLIGHT_FD")
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        not_offered("SET_INFLIGHT_FD")
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        not_offered("SET_DEVICE_STATE_FD")
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered("CHECK_DEVICE_STATE")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered("GET_SHMEM_CONFIG")
    }

    /// The answer tells the frontend that the log it had shared before is no longer written.
    fn set_log_base(&mut self, message: &VhostUserLog, file: File) -> Result<()> {
        descriptors::check(&file).or_else(refuse)?;
        let VhostUserLog { mmap_size, mmap_offset } = *message;
        let log = DirtyLog::map(&self.account, file, mmap_offset, mmap_size).or_else(refuse)?;
        self.memory.as_ref().map_or(Ok(()), |memory| log.check(memory)).or_else(refuse)?;
        // Rings that do not log yet run on; QEMU acknowledges LOG_ALL after this.
        if self.logs() {
            (0..self.vrings.len()).try_for_each(|index| self.pause(index))?;
        }
        self.log = Some(log);
        (0..self.vrings.len()).try_for_each(|index| self.try_start(index))
    }
}
