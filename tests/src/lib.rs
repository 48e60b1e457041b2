//! Network namespaces as workloads.
