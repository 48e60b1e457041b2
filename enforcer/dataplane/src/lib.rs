//! The only crate that knows aya and netlink.
