//! What a put and a get cost.
fn main() {}
