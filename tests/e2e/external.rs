//! Servers that already run: configured, never started or stopped.
