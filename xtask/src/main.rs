//! Setup, build, demo, test, bench, lint.

fn main() {}
