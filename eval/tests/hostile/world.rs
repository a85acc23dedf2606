//! The fake world that candidates attack: a home, files outside, services, a victim process.

use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Of the user that root becomes for the second round.
pub(crate) const ANOTHER: u32 = 64_999;

/// Files that hold it are not to be read, wherever they are.
pub(crate) struct World {
    pub(crate) root: PathBuf,
    /// In every secret.
    pub(crate) token: String,
    /// In the names of what candidates are and plant.
    pub(crate) marker: String,
    pub(crate) tcp: TcpListener,
    pub(crate) udp: UdpSocket,
    pub(crate) path_socket: UnixListener,
    pub(crate) abstract_socket: UnixListener,
    pub(crate) victim: Child,
}

/// Makes a world and plays all candidates in a process that lives in it, as this user or as `user`. Whether all were
/// contained.
pub(crate) fn play(test: &str, user: Option<u32>) -> bool {
    let folder = tempfile::Builder::new().prefix("hostile-").tempdir().expect("a temporary folder");
    let root = folder.path().canonicalize().expect("it exists");
    lay_out(&root).expect("files of a world");
    let sysroot = sysroot();
    let toolchain = root.join("rustup/toolchains/shown");
    let path = std::env::join_paths([toolchain.join("bin"), "/usr/bin".into(), "/bin".into()]).expect("no colon");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .env_clear()
        .env("HOSTILE_PLAY", &root)
        .env("HOSTILE_SECRET", token(&root))
        .env("PATH", path)
        .env("HOME", root.join("home"))
        .env("CARGO_HOME", root.join("cargo"))
        .env("RUSTUP_HOME", root.join("rustup"))
        .env("TMPDIR", root.join("tmp"))
        .current_dir(&root);
    let status = match user {
        None => {
            std::os::unix::fs::symlink(&sysroot, &toolchain).expect("a link");
            command.status()
        }
        Some(user) => {
            fs::create_dir(&toolchain).expect("a folder to mount on");
            give(&root, user).expect("root gives files away");
            // Both may be in folders that only root can read: the toolchain is mounted, the program copied.
            let program = root.join("play");
            fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy of it");
            let mut as_user = Command::new(&program);
            as_user.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            as_user.current_dir(&root).uid(user).gid(user);
            // A thread has a mount namespace of its own, and what it starts inherits it.
            std::thread::scope(|scope| {
                let mounted = || -> io::Result<_> {
                    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
                    let private =
                        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
                    rustix::mount::mount_change("/", private)?;
                    rustix::mount::mount_bind(&sysroot, &toolchain)?;
                    as_user.status()
                };
                scope.spawn(mounted).join().expect("no panic")
            })
        }
    };
    match status {
        Ok(status) => {
            println!("test {test} ... {}", if status.success() { "ok" } else { "FAILED" });
            status.success()
        }
        Err(error) if user.is_some() && error.kind() == io::ErrorKind::PermissionDenied => {
            println!("test {test} ... skipped: root cannot mount or change its user here ({error})");
            true
        }
        Err(error) => panic!("cannot start the round: {error}"),
    }
}

/// The compiler's folder; the rustup that this was started through may be in a home outside of this world.
fn sysroot() -> PathBuf {
    let output = Command::new("rustc").args(["--print", "sysroot"]).stderr(Stdio::inherit()).output();
    let output = output.expect("rustc starts");
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

/// Known to both processes: the folder's name is random.
fn token(root: &Path) -> String {
    let name = root.file_name().expect("a folder's name").to_string_lossy();
    format!("canary-of-{name}-{}", name.len() * 7919)
}

fn lay_out(root: &Path) -> io::Result<()> {
    let token = token(root);
    for (name, text) in [
        ("home/.ssh/id_ed25519", token.as_str()),
        ("outside/secret.txt", &token),
        ("outside/writable/.keep", ""),
        ("cargo/credentials.toml", &token),
        ("cargo/registry/.keep", ""),
        ("cargo/bin/.keep", ""),
        ("rustup/toolchains/.keep", ""),
        ("tmp/.keep", ""),
        ("workspace/Cargo.toml", "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
        ("workspace/src/lib.rs", "pub fn f() {}\n"),
    ] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("in a folder"))?;
        fs::write(path, text)?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(root.join("outside/writable"), fs::Permissions::from_mode(0o777))
}

fn give(path: &Path, user: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(user), Some(user))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    Ok(())
}

impl World {
    /// What the process that plays finds, put right where the last candidate was not contained, and the services that
    /// it opens.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        lay_out(root)?;
        let token = token(root);
        let marker = format!("marked-{}", root.file_name().expect("a folder's name").to_string_lossy());
        let socket = root.join("outside/socket");
        let _ = fs::remove_file(&socket); // there is none the first time
        let path_socket = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
        let victim = Command::new("sleep").arg("600").process_group(0).spawn()?;
        let world = Self {
            root: root.to_owned(),
            tcp: TcpListener::bind("127.0.0.1:0")?,
            udp: UdpSocket::bind("127.0.0.1:0")?,
            path_socket,
            abstract_socket: UnixListener::bind_addr(&SocketAddr::from_abstract_name(&marker)?)?,
            victim,
            token,
            marker,
        };
        world.tcp.set_nonblocking(true)?;
        world.udp.set_nonblocking(true)?;
        world.path_socket.set_nonblocking(true)?;
        world.abstract_socket.set_nonblocking(true)?;
        Ok(world)
    }

    /// Processes of candidates that nobody contained.
    fn end_survivors(&self) {
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let program = line.split(|&byte| byte == 0).next().unwrap_or_default();
            let is_ours = program.windows(self.marker.len()).any(|window| window == self.marker.as_bytes());
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(pid)) = (is_ours, pid.and_then(rustix::process::Pid::from_raw)) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Describes the harm that was done to this world.
    pub(crate) fn harm(&mut self) -> Vec<String> {
        let mut harm = Vec::new();
        if self.tcp.accept().is_ok() {
            harm.push("a connection over TCP".to_owned());
        }
        if self.udp.recv(&mut [0; 16]).is_ok() {
            harm.push("a datagram".to_owned());
        }
        if self.path_socket.accept().is_ok() {
            harm.push("a connection by path".to_owned());
        }
        if self.abstract_socket.accept().is_ok() {
            harm.push("a connection by abstract name".to_owned());
        }
        if self.victim.try_wait().is_ok_and(|status| status.is_some()) {
            harm.push("the victim is dead".to_owned());
        }
        for name in ["home/.ssh/id_ed25519", "outside/secret.txt", "cargo/credentials.toml"] {
            if fs::read_to_string(self.root.join(name)).ok().as_ref() != Some(&self.token) {
                harm.push(format!("{name} is changed"));
            }
        }
        for folder in
            ["home", "outside/writable", "cargo", "cargo/bin", "cargo/registry", "rustup", "rustup/toolchains"]
        {
            for entry in fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let known = [".keep", ".ssh", "bin", "registry", "credentials.toml", "toolchains", "shown"];
                // cargo and rustup keep files of their own there.
                if name.contains("planted")
                    || name == self.marker
                    || name == "rustc"
                    || folder == "home" && !known.contains(&name.as_str())
                {
                    harm.push(format!("{folder}/{name} was planted"));
                }
            }
        }
        for folder in ["/tmp", "/var/tmp", "/dev/shm"] {
            if Path::new(folder).join(&self.marker).exists() {
                harm.push(format!("a file in {folder}"));
            }
        }
        harm
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for folder in ["/tmp", "/var/tmp", "/dev/shm"]
            .map(Path::new)
            .into_iter()
            .chain([self.root.join("home").as_path(), &self.root.join("outside/writable")])
        {
            let _ = fs::remove_file(folder.join(&self.marker)); // there is none where it was contained
        }
        for planted in [
            "outside/writable/planted",
            "cargo/bin/rustc",
            "cargo/registry/planted",
            "cargo/config.toml",
            "rustup/planted",
            "rustup/toolchains/planted",
        ] {
            let _ = fs::remove_file(self.root.join(planted));
        }
        self.end_survivors();
        // It may be dead already, which was reported.
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}
