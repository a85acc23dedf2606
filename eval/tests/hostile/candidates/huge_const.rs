//! A constant larger than the machine.
pub static HUGE: [u64; 1 << 33] = [7; 1 << 33];
pub const COPY: [u64; 1 << 33] = HUGE;
