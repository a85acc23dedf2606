//! Who they are, and what would stop each of them.

use nanochat_eval::sandbox::Layer;

/// How a candidate is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It harms while it is compiled.
    Compiled,
    /// It is compiled, and harms when its tests run.
    Run,
}

/// The outcome to expect, apart from what must never happen (a secret, a contact, a planted file, a dead victim, a
/// survivor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It does not compile.
    Fails,
    /// It ends, by itself or by the clock, without success.
    Ends,
    /// It ran to its end.
    Finishes,
    /// It ran to its end and did not print this word.
    FinishesWithout(&'static str),
    /// It ran to its end and counted at most so many of what it takes.
    Counts(u64),
    /// There were never more processes of it than this.
    Processes(usize),
}

/// One hostile candidate and how it is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    pub(crate) stage: Stage,
    /// Any of these layers stops it. Without a layer it is stopped by the copy, the environment, the clock or the
    /// compiler.
    pub(crate) stopped_by: &'static [Layer],
    pub(crate) sign: Sign,
    /// Without a sandbox it harms the fake world and nothing else, so that the harm can be shown.
    pub(crate) is_safe_to_release: bool,
}

macro_rules! candidates {
    (@) => { false };
    (@ release) => { true };
    ($($name:ident $stage:ident [$($layer:ident)*] $sign:expr $(, $release:ident)?;)*) => {
        &[$(Candidate {
            name: stringify!($name),
            source: include_str!(concat!("candidates/", stringify!($name), ".rs")),
            stage: Stage::$stage,
            stopped_by: &[$(Layer::$layer),*],
            sign: $sign,
            is_safe_to_release: candidates!(@ $($release)?),
        }),*]
    };
}

pub(crate) const ALL: &[Candidate] = candidates! {
    include_key Compiled [Files Root] Sign::Fails, release;
    include_absolute Compiled [Files Root] Sign::Fails, release;
    include_climbing Compiled [Files Root] Sign::Fails, release;
    environment Compiled [] Sign::Fails;
    endless_const Compiled [] Sign::Ends;
    giant_type Compiled [] Sign::Ends;
    macro_bomb Compiled [Limits] Sign::Ends;
    huge_const Compiled [Limits] Sign::Ends;
    read_key Run [Files Root] Sign::Finishes, release;
    symlink_escape Run [Files Root] Sign::Finishes, release;
    connect Run [Namespaces Calls] Sign::Finishes, release;
    datagram Run [Namespaces Calls] Sign::Finishes, release;
    unix_socket Run [Calls] Sign::Finishes, release;
    fork_bomb Run [Processes] Sign::Processes(520);
    thread_bomb Run [Processes] Sign::Counts(512);
    fill_disk Run [Root] Sign::Counts(520);
    fill_unlinked Run [Root] Sign::Counts(520);
    recursion Run [] Sign::Ends;
    survivor Run [] Sign::Finishes, release;
    write_outside Run [Files Root] Sign::Finishes, release;
    write_toolchain Run [Files Root] Sign::Finishes, release;
    kill_others Run [Namespaces] Sign::Finishes, release;
    trace_others Run [Namespaces Calls] Sign::FinishesWithout("attached");
    read_processes Run [Namespaces Root] Sign::Finishes, release;
    open_files Run [Limits] Sign::Counts(1024);
    memory Run [Limits] Sign::Counts(8);
    regain Run [Calls] Sign::FinishesWithout("regained");
    flood Run [] Sign::Ends;
};
