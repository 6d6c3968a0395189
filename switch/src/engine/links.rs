//! Operations of stream and datagram ports.

use super::{Engine, EngineError, PortId};
use crate::ports::Device;
use crate::ports::dgram::DgramReport;
use crate::ports::stream::{Stream, StreamEnd, StreamLink};
use crate::sources::Sources;
use crate::time::Time;

impl Engine {
    /// Gives a stream port its connection; returns the one before for the caller to drop.
    ///
    /// # Errors
    /// The port does not exist, is no stream port, or the socket cannot be registered with epoll.
    pub fn connect_stream(
        &mut self,
        port: PortId,
        link: StreamLink,
    ) -> Result<Option<StreamLink>, EngineError> {
        let watcher = self.watcher(port);
        let before = self.stream_mut(port)?.connect(link, &watcher).map_err(EngineError::Watch)?;
        self.port_mut(port)?.clear_fault();
        self.activate(self.locate(port)?, Time::ZERO);
        Ok(before)
    }

    /// Takes a stream port's connection away, and forgets the port's addresses. Returns the
    /// connection for the caller to drop.
    ///
    /// # Errors
    /// The port does not exist or is no stream port.
    pub fn disconnect_stream(&mut self, port: PortId) -> Result<Option<StreamLink>, EngineError> {
        let link = self.stream_mut(port)?.disconnect();
        let state = self.port_mut(port)?;
        state.clear_fault();
        state.sources = Sources::default();
        self.flush_port(self.locate(port)?);
        Ok(link)
    }

    /// Returns why a stream port's connection has ended; `None` if it goes on, or there is none.
    pub fn stream_end(&self, port: PortId) -> Option<StreamEnd> {
        match &self.port(port)?.device {
            Device::Stream(stream) => stream.end(),
            _ => None,
        }
    }

    /// Returns what a datagram port has to report.
    pub fn dgram_report(&self, port: PortId) -> Option<DgramReport> {
        match &self.port(port)?.device {
            Device::Dgram(dgram) => Some(dgram.report()),
            _ => None,
        }
    }

    fn stream_mut(&mut self, port: PortId) -> Result<&mut Stream, EngineError> {
        match &mut self.port_mut(port)?.device {
            Device::Stream(stream) => Ok(stream),
            _ => Err(EngineError::NotStream),
        }
    }
}
