//! What mirrors and ports tell each other.

/// Mirrors of one network, as bits: one for each place in [`Mirrors`].
pub(crate) type MirrorSet = u16;

/// How mirrors take part in a port's frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Mirrored {
    /// Those that copy what it sends.
    pub received: MirrorSet,
    /// Those that copy what it receives.
    pub sent: MirrorSet,
    /// Whether it is the output of one.
    pub is_output: bool,
}
