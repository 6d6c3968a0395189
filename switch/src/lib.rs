//! The data plane: a worker, its networks and ports, and the way of a frame through them.
