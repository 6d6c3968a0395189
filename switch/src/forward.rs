//! The second pass of a burst: what becomes of each frame.
