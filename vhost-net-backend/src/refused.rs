//! Requests that this backend does not serve, and how each is answered: a frontend must neither
//! wait for an answer that never comes, nor lose its connection over a request that it can do
//! without.
//!
//! Frontends send most of them only if their feature was offered, which it was not.

use vhost::vhost_user::message::{FrontendReq, VhostUserShMemConfig};

/// The treatment of a request that is not served. In each case a frontend that asked for an
/// acknowledgement gets a negative one, and the connection goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Ignored; the frontend can do without it.
    Ignored,
    /// Answered with its own kind of answer, an empty one.
    Answered(Vec<u8>),
    /// Ends the connection, as ignoring it would harm the guest: the reason and the remedy.
    Fatal(&'static str),
}

const POSTCOPY: &str = "post-copy migration is not supported: leave postcopy-ram off";
const OTHER_DEVICE: &str =
    "the request is for another kind of device: this socket is a network device's, check its path";

/// How a request with a body of `size` bytes is refused; `None` if it is served.
pub(crate) fn refusal(request: Result<FrontendReq, u32>, size: usize) -> Option<Refusal> {
    use FrontendReq as Req;
    let word = |value: u64| Refusal::Answered(value.to_ne_bytes().to_vec());
    let Ok(request) = request else { return Some(Refusal::Ignored) };
    Some(match request {
        Req::SET_BACKEND_REQ_FD
        | Req::SET_INFLIGHT_FD
        // An eventfd by which the log could be said to have changed. Frontends harvest unasked.
        | Req::SET_LOG_FD
        | Req::VRING_KICK
        | Req::SET_STATUS => Refusal::Ignored,
        Req::GET_STATUS => word(0),
        // No memory for it: the frontend then tracks no requests in flight.
        Req::GET_INFLIGHT_FD => Refusal::Answered(vec![0; size]),
        Req::GET_SHARED_OBJECT => Refusal::Answered(Vec::new()),
        // An error, and no descriptor.
        Req::SET_DEVICE_STATE_FD => word(0x101),
        Req::CHECK_DEVICE_STATE => word(1),
        Req::GET_SHMEM_CONFIG => Refusal::Answered(vec![0; size_of::<VhostUserShMemConfig>()]),
        Req::POSTCOPY_ADVISE | Req::POSTCOPY_LISTEN | Req::POSTCOPY_END => {
            Refusal::Fatal(POSTCOPY)
        }
        Req::IOTLB_MSG => Refusal::Fatal(
            "a virtual IOMMU is not supported: start the device without one (QEMU: iommu_platform=off)",
        ),
        Req::SET_VRING_ENDIAN => {
            Refusal::Fatal("big-endian rings are not supported: use a driver of virtio 1.0")
        }
        Req::CREATE_CRYPTO_SESSION | Req::CLOSE_CRYPTO_SESSION | Req::GPU_SET_SOCKET => {
            Refusal::Fatal(OTHER_DEVICE)
        }
        _ => return None,
    })
}
