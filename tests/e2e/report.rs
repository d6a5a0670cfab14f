//! Whether Clipper reports, the demo, and the dashboard's queries.
