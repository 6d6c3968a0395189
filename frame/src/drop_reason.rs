//! Declares drop reasons: an enum that is also the index of the counters and the `reason` label of
//! their metrics.

/// Declares an enum `DropReason`: its documentation, then each reason with its variant, its label
/// and a line for users on what happened and what to do.
///
/// ```
/// trama_frame::drop_reasons! {
///     "Why a letter was not delivered."
///     NoAddress "no_address" "The letter has no address: write one."
/// }
/// assert_eq!(DropReason::NoAddress.name(), "no_address");
/// ```
#[macro_export]
macro_rules! drop_reasons {
    ($about:literal $($variant:ident $name:literal $describe:literal)*) => {
        #[doc = $about]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $describe] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant),*];

            /// How many reasons there are.
            pub const COUNT: usize = DropReason::ALL.len();

            /// The metric label, in snake case.
            pub fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)*
                }
            }

            /// One line for people: what happened, and what to do about it.
            pub fn describe(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $describe,)*
                }
            }
        }
    };
}
