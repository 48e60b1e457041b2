//! Pure policy: no I/O, no clock, no kernel.
