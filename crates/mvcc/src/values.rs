//! Values in memory.
