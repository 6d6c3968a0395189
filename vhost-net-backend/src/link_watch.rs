//! Who wants to know of a session's connections as they come and go.

use std::fmt::Debug;

use crate::peer::Peer;

/// Is told of connections, by the session's thread, which it must not keep waiting.
pub trait LinkWatch: Debug + Send + Sync {
    /// A frontend has connected, or the connection of an earlier process goes on.
    fn connected(&self, peer: Option<&Peer>);

    /// The guest's driver has started its first rings, or stopped its last ones.
    fn active(&self, is_active: bool);

    /// The connection has ended; by this failure, if there was one.
    fn disconnected(&self, failure: Option<&str>);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};

    use rustix::event::{EventfdFlags, eventfd};
    use trama_virtqueue::{MemoryAccount, MemoryLimits};

    use super::*;
    use crate::access::Access;
    use crate::device::DeviceSettings;
    use crate::options::Role;
    use crate::status::Control;

    #[derive(Default, Debug)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn take(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }
    }

    impl LinkWatch for Told {
        fn connected(&self, peer: Option<&Peer>) {
            self.take(format!("connected {}", peer.is_some()));
        }

        fn active(&self, is_active: bool) {
            self.take(format!("active {is_active}"));
        }

        fn disconnected(&self, failure: Option<&str>) {
            self.take(format!("disconnected {failure:?}"));
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let told = Arc::new(Told::default());
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let account = MemoryAccount::new(MemoryLimits::default(), None);
        let device = DeviceSettings { mtu: 1500, mac: None };
        let watch: Option<Arc<dyn LinkWatch>> = Some(told.clone());
        let links = (account, watch);
        let control = Control::new(wake, (Role::Server, true), device, Access::default(), links);
        let (stream, _peer) = UnixStream::pair().unwrap();
        assert!(control.connected(&stream, None).unwrap());
        // Requests that change no rings follow each other.
        for pairs in [0, 0, 1, 2, 2, 0, 1] {
            control.progress(None, pairs);
        }
        control.disconnected(Some("bad".to_owned()));
        let wanted = ["connected false", "active true", "active false", "active true"];
        let wanted = wanted.iter().chain(&["disconnected Some(\"bad\")"]);
        assert_eq!(*told.0.lock().unwrap(), wanted.copied().collect::<Vec<_>>());
        control.stop();
        assert!(!control.connected(&stream, None).unwrap());
        assert_eq!(told.0.lock().unwrap().len(), 5);
    }
}
