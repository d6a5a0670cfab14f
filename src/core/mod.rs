//! Decides. Knows what a stack is, what was seen, and what follows from the difference.
//!
//! Must not know how anything is reached or shown: it imports nothing but `std`, prints nothing,
//! reads no clock and no environment.

pub mod event;
pub mod observed;
pub mod plan;
pub mod reports;
pub mod stack;
pub mod status;
