//! The sandbox's helper as a program of its own: it confines itself and runs the command it is given.

fn main() {
    nanochat_eval::sandbox::become_helper_if_asked();
    // A person started it; it has no other use.
    std::process::exit(2);
}
