//! Writes a changed configuration back into its text, which keeps its comments and order.
