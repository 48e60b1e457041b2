//! End-to-end stories: the real agent, real traffic, network namespaces as pods. Each file is one subject; each test
//! makes a world of its own. They need root.

mod harness;
