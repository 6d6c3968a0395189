//! Why a row of the store has no effect: one enum that is also the label of their metric.

trama_frame::drop_reasons! {
    "Why a row of the store has no effect."
    TooLong "too_long"
        "The value is longer than 1 KiB: the host that wrote it is at fault."
    Value "value"
        "The value is not what its key promises: the host that wrote it is at fault."
}

pub use DropReason as Refusal;
