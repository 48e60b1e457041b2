//! Conformance: every cell of the suites that others judge implementations by, answered by the compiled tables and
//! the reference evaluator (`compiler`), by the kernel programs (`kernel`) and by sockets (`live`). What the suites
//! are: `conformance/README.md`. The last two need root.

mod compiler;
mod judge;
mod kernel;
mod live;
