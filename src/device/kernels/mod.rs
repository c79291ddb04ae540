//! What is computed on the device, each kernel with a twin in Rust that gives the same bits.
