//! `cargo nanochat`: parse → run → exit code.

mod cli;
mod command;
mod context;
mod settings;
mod completion;
mod values;
mod position;
mod output;
mod progress;
mod interrupt;
mod exit;

use std::process::ExitCode;

// Training frees and allocates the same large buffers at every step; glibc returns them to the system each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Evaluation confines what it runs by a helper process, which is this program started again.
    nanochat_eval::sandbox::become_helper_if_asked();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let output = output::Output::new(&cli.global.output);
    output.log();
    let context = context::Context::new(cli.global.workspace, output);
    exit::finish(context.and_then(|context| cli.command.run(&context)), &output)
}
