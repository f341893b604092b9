//! Clears away after a build that was killed. A process that dies by SIGKILL can do nothing any more, so another one
//! waits beside it for its end: this program by another name, which the pipe on its standard input tells.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitCode, Stdio},
};

use camino::{Utf8Path, Utf8PathBuf};
use host::build::local::{self, Workshop};

/// The hidden first argument.
pub const NAME: &str = "build-warden";
/// Said by a build that left nothing.
const WELL: &[u8] = b"well";

/// The process that waits. Dropped without [`Warden::dismiss`], it clears away.
#[derive(Debug)]
pub struct Warden(Child);

impl Warden {
    /// For a build that works in `home`, an absolute path, before it makes anything.
    pub fn start(program: &Utf8Path, home: &Utf8Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(NAME).arg(home).current_dir("/");
        // Neither the terminal nor a signal to the build's whole group reaches it; nobody waits for its output.
        command.process_group(0).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// Nothing is left to clear away.
    pub fn dismiss(mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // One that is gone needs no word.
            let _ = pipe.write_all(WELL);
        }
        let _ = self.0.wait();
    }
}

/// The process: waits for the end of the pipe. It shares the mounts of the build, and so can end them.
pub fn main(home: Option<&String>) -> ExitCode {
    let mut word = Vec::new();
    let read = io::stdin().take(WELL.len() as u64 + 1).read_to_end(&mut word);
    let Some(home) = home.map(Utf8PathBuf::from) else {
        return ExitCode::from(2);
    };
    // Without its directory there is no build to clear away after, and none is to be made.
    if (read.is_ok() && word == WELL) || !home.join("lock").exists() {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let swept = runtime.map(|runtime| runtime.block_on(sweep(&home)));
    match swept {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// As the next build does before it begins. One that already works there has done it.
async fn sweep(home: &Utf8Path) -> Result<(), local::Error> {
    let program = Utf8PathBuf::from("/proc/self/exe");
    let shop = Workshop::open(home, program, 1, super::resources()).await?;
    shop.close().await
}
