//! Touches nothing else, fails well, lets nobody in.
