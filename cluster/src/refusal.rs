//! Why a row of the store has no effect: one enum that is also the label of their metric.

trama_frame::drop_reasons! {
    "Why a row of the store has no effect."
    Key "key"
        "The key does not have the form of its family: find out what else writes below this prefix."
    TooLong "too_long"
        "The value is longer than 1 KiB: the host that wrote it is at fault."
    Value "value"
        "The value is not what its key promises: the host that wrote it is at fault."
    NotAMember "not_a_member"
        "The row names a host without membership in the network: drain the host if it is gone."
}

pub use DropReason as Refusal;
