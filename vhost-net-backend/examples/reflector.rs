//! A network card that sends each frame back to its sender, with the two addresses swapped: a
//! vhost-user device on the rings of `trama-virtqueue`, without a switch.
//!
//! ```sh
//! cargo run -p trama-vhost-net-backend --example reflector -- /run/reflector.sock
//! ```
//!
//! The session's thread sets the rings up, and the main thread moves frames. They share the rings
//! by a lock, so that each request has taken effect when its call returns. The main thread looks at
//! the rings at intervals; a device that must not wait would watch its kick descriptor.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use trama_vhost_net_backend::{
    RingFds, Rings, RingsError, Role, Session, SessionOptions, features,
};
use trama_virtqueue::{GuestMemory, MAX_BURST, RingSetup, RxQueue, TxBurst, TxQueue};

/// Time between two looks at the rings.
const INTERVAL: Duration = Duration::from_millis(1);
/// Two MAC addresses.
const ADDRESSES: usize = 12;

/// What the driver may use. Without offloads every header is plain and needs no interpretation.
const FEATURES: u64 = features::VERSION_1
    | features::VHOST_USER_PROTOCOL_FEATURES
    | features::NET_F_MRG_RXBUF
    | features::RING_INDIRECT_DESC
    | features::RING_EVENT_IDX;

/// A ring, and the descriptor by which its driver is called.
struct Ring<Q> {
    queue: Q,
    call: Option<OwnedFd>,
}

impl<Q> Ring<Q> {
    fn call(&self) {
        if let Some(call) = &self.call {
            // A full counter means that a call is pending already.
            let _ = rustix::io::write(call, &1u64.to_ne_bytes());
        }
    }
}

/// The rings of the card, named from the driver's side.
#[derive(Default)]
struct Card {
    receive: Option<Ring<RxQueue>>,
    transmit: Option<Ring<TxQueue>>,
    burst: TxBurst,
}

impl Card {
    /// Sends back the frames that wait. One that finds no buffer is lost, as on a wire.
    fn reflect(&mut self) {
        let Card { receive: Some(receive), transmit: Some(transmit), burst } = self else { return };
        while let Ok(1..) = transmit.queue.fetch(burst, MAX_BURST) {
            for i in 0..burst.len() {
                let mut head = burst.head(i).to_vec();
                if burst.error(i).is_some() || head.len() < ADDRESSES {
                    continue;
                }
                head[..ADDRESSES].rotate_left(ADDRESSES / 2);
                let _ = receive.queue.push(burst.header(i), &head[..], burst.body(i));
            }
            transmit.queue.complete(burst);
        }
        if transmit.queue.publish() {
            transmit.call();
        }
        if receive.queue.publish() {
            receive.call();
        }
    }
}

/// The session's access to the card.
struct CardRings(Arc<Mutex<Card>>);

impl CardRings {
    fn with<R>(&self, change: impl FnOnce(&mut Card) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rings for CardRings {
    fn set_features(&mut self, _features: u64) -> Result<(), RingsError> {
        Ok(())
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingsError> {
        self.with(|card| {
            card.burst.clear();
            if let Some(ring) = &mut card.receive {
                ring.queue.set_memory(memory.clone())?;
            }
            if let Some(ring) = &mut card.transmit {
                ring.queue.set_memory(memory)?;
            }
            Ok(())
        })
        .map_err(|error: trama_virtqueue::RingError| RingsError::new(error))
    }

    fn start(&mut self, index: usize, setup: RingSetup, fds: RingFds) -> Result<(), RingsError> {
        let call = fds.call;
        self.with(|card| {
            if index == 0 {
                card.receive = Some(Ring { queue: RxQueue::new(setup)?, call });
            } else {
                let mut queue = TxQueue::new(setup)?;
                queue.disarm();
                card.transmit = Some(Ring { queue, call });
            }
            Ok(())
        })
        .map_err(|error: trama_virtqueue::RingError| RingsError::new(error))
    }

    fn stop(&mut self, index: usize) -> Result<u16, RingsError> {
        let next = self.with(|card| {
            card.burst.clear();
            match index {
                0 => card.receive.take().map(|ring| ring.queue.next()),
                _ => card.transmit.take().map(|ring| ring.queue.next()),
            }
        });
        next.ok_or_else(|| RingsError::new(format!("ring {index} is not started")))
    }

    fn set_call(&mut self, index: usize, call: Option<OwnedFd>) -> Result<(), RingsError> {
        self.with(|card| match (index, &mut card.receive, &mut card.transmit) {
            (0, Some(ring), _) => {
                ring.call = call;
                ring.call();
            }
            (1, _, Some(ring)) => {
                ring.call = call;
                ring.call();
            }
            _ => {}
        });
        Ok(())
    }

    /// Not needed: the card does not wait for kicks.
    fn set_kick(&mut self, _index: usize, _kick: Option<OwnedFd>) -> Result<(), RingsError> {
        Ok(())
    }

    fn disconnected(&mut self) {
        self.with(|card| *card = Card::default());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: reflector SOCKET")?;
    let card = Arc::new(Mutex::new(Card::default()));
    let rings = CardRings(Arc::clone(&card));
    let options = SessionOptions { features: FEATURES, ..SessionOptions::new(path, Role::Server) };
    let session = Session::spawn(options, rings)?;
    println!("listening on {}", session.path().display());
    loop {
        card.lock().unwrap_or_else(PoisonError::into_inner).reflect();
        thread::sleep(INTERVAL);
    }
}
