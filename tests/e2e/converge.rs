//! Whatever state things are in, `status` names the difference and `up` ends as a first one.
