//! The third pass of a burst: frames to the ports they leave by.
