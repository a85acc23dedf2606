//! A constant that is never known.
#![allow(long_running_const_eval)]
pub const NEVER: u64 = {
    let mut n = 0u64;
    loop {
        n = n.wrapping_add(1);
    }
};
