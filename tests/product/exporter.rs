//! The real binary under test, and a scraper for it.

#![expect(
    clippy::disallowed_methods,
    reason = "a test starts programs and waits for the world to reach a state"
)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that will change.
const PAUSE: Duration = Duration::from_millis(20);

/// The variable that tells `confined::launcher` what to start, a line for each argument.
pub(crate) const CONFINED: &str = "CONFINED_COMMAND";

/// A running exporter; killed when dropped.
pub(crate) struct Exporter {
    server: Client,
    log: tempfile::NamedTempFile,
}

/// A program that serves HTTP, and a client for it; killed when dropped.
pub(crate) struct Client {
    child: Child,
    address: String,
}

/// An HTTP response.
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Exporter {
    /// Starts it on a free port and waits until it listens.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(&[], args)
    }

    /// Starts it with this in its environment.
    pub(crate) fn start_with(environment: &[(&str, &str)], args: &[&str]) -> Self {
        // A file, not a pipe: what was written before a page was published is there to be read.
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let mut command = command(&[&["--address", "127.0.0.1:0"], args].concat());
        command.envs(environment.iter().copied());
        Self::run(command, log)
    }

    /// Starts it as systemd does, with a socket that listens already.
    pub(crate) fn activated(listener: TcpListener, args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        // The socket is the third file, and the process is told that it is the one that it is for.
        let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
        let mut command = Command::new("sh");
        command.env_clear().env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_nvml-exporter")]).args(args);
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::piped());
        Self::run(command, log)
    }

    /// Starts it where a process may have no more than so many files open.
    pub(crate) fn with_files(limit: u32, args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let mut command = Command::new("sh");
        command.env_clear().env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_nvml-exporter")).args(["--address", "127.0.0.1:0"]);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        Self::run(command, log)
    }

    /// Starts it as the manifests do: a root file system that is read-only, no capability, no new
    /// privileges, and the filter of system calls of `daemonset/seccomp`, see `confined::launcher`.
    pub(crate) fn confined(args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let mut command = confined(&[&["--address", "127.0.0.1:0"], args].concat());
        command.stdout(Stdio::null());
        Self::run(command, log)
    }

    fn run(mut command: Command, log: tempfile::NamedTempFile) -> Self {
        let child =
            command.stderr(log.reopen().expect("the log")).spawn().expect("the exporter starts");
        let mut exporter = Self { server: Client { child, address: String::new() }, log };
        exporter.server.address = exporter.where_it_serves();
        exporter
    }

    fn where_it_serves(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.server.child.try_wait().unwrap();
            let log = self.log();
            let (told, _) = log.rsplit_once('\n').unwrap_or_default();
            if let Some(address) =
                told.lines().find_map(|line| line.split("serving address=").nth(1))
            {
                return address.to_owned();
            }
            assert!(ended.is_none(), "{ended:?} before it served:\n{log}");
            assert!(Instant::now() < deadline, "it does not say where it serves:\n{log}");
            thread::sleep(PAUSE);
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.server.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).expect("the log")
    }

    /// Waits until it has logged this.
    pub(crate) fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in the log:\n{}", self.log());
            thread::sleep(PAUSE);
        }
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.server.get(path).expect("it listens")
    }

    pub(crate) fn request(&self, text: &str) -> Response {
        self.server.request(text).expect("it listens")
    }

    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics").text()
    }

    /// Scrapes until the page satisfies `wanted`, and returns it.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_at("/metrics", what, wanted)
    }

    /// Asks for `path` until the answer satisfies `wanted`, and returns it.
    pub(crate) fn wait_for_at(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        self.server
            .poll(path, wanted)
            .unwrap_or_else(|page| panic!("no {what} in {PATIENCE:?}:\n{page}\n{}", self.log()))
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.kill("-HUP");
    }

    /// Sends a signal, such as `-USR1`.
    pub(crate) fn kill(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        self.kill("-TERM");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.server.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "SIGTERM did not end it");
            thread::sleep(PAUSE);
        }
    }
}

impl Client {
    /// Starts a program of the test environment that will serve on `address`.
    pub(crate) fn start(program: &str, args: &[&str], address: SocketAddr) -> Self {
        let child = Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| missing(program, &e));
        Self { child, address: address.to_string() }
    }

    /// Asks for `path` until the body satisfies `wanted`, and returns it.
    pub(crate) fn wait_for(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.poll(path, wanted).unwrap_or_else(|body| panic!("{path} in {PATIENCE:?}: {body}"))
    }

    fn poll(&self, path: &str, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let body = self.get(path).map_or_else(|e| e.to_string(), |answer| answer.text());
            if wanted(&body) {
                return Ok(body);
            }
            if Instant::now() > deadline {
                return Err(body);
            }
            thread::sleep(PAUSE);
        }
    }

    fn get(&self, path: &str) -> io::Result<Response> {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    fn request(&self, text: &str) -> io::Result<Response> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(Response::parse(&answer))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Response {
    pub(crate) fn parse(answer: &[u8]) -> Self {
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let body = &answer[end + 4..];
        let chunked = head.contains("transfer-encoding: chunked");
        Self { status, head, body: if chunked { joined(body) } else { body.to_vec() } }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The chunks of a body, put together.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
        if size == 0 {
            break;
        }
    }
    whole
}

/// Runs the exporter to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    run_with(&[], args)
}

/// Runs the exporter to its end in this environment.
pub(crate) fn run_with(environment: &[(&str, &str)], args: &[&str]) -> Output {
    command(args).envs(environment.iter().copied()).output().expect("the exporter runs")
}

/// The page that `--once` prints.
pub(crate) fn once(args: &[&str]) -> String {
    let output = run(&[&["--once"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The exporter as the manifests start it, see [`Exporter::confined`].
pub(crate) fn confined(args: &[&str]) -> Command {
    let script = "mount --bind \"$TMPDIR\" \"$TMPDIR\" && mount -o remount,bind,ro / && exec \
                  setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all \
                  --no-new-privs \"$@\"";
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--", "sh", "-c", script, "sh"]);
    command.arg(std::env::current_exe().expect("the test itself"));
    command.args(["--exact", "confined::launcher"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    let exporter = [env!("CARGO_BIN_EXE_nvml-exporter")];
    command.env(CONFINED, [&exporter, args].concat().join("\n"));
    command
}

/// Runs the exporter to its end, as the manifests do.
pub(crate) fn run_confined(args: &[&str]) -> Output {
    confined(args).output().expect("the exporter runs")
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvml-exporter"));
    // The developer's own environment must not reach the flags' twins.
    // A killed exporter leaves its stage behind, which is not to pile up in the system's folder.
    command.env_clear().env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    command.args(args).stdout(Stdio::piped());
    command
}

/// Runs a program of the test environment; a missing one is a failure, never a skipped test.
pub(crate) fn tool(program: &str, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| missing(program, &e));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn missing(program: &str, error: &io::Error) -> ! {
    panic!("{program}: {error}; run the tests with tests/run, which brings it")
}

/// A scenario file in a directory of its own, to be changed under a running exporter.
pub(crate) struct Scenario {
    directory: tempfile::TempDir,
    name: String,
}

impl Scenario {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scenario = Self { directory, name: format!("{name}.toml") };
        scenario.rewrite(text);
        scenario
    }

    /// The built-in scenario of this name with its clock held at `now` seconds.
    pub(crate) fn held(name: &str, now: u32) -> Self {
        Self::new(name, &format!("now = {now}\n{}", built_in(name)))
    }

    /// Replaces the text at once, so that nobody reads half of it.
    pub(crate) fn rewrite(&self, text: &str) {
        let draft = self.directory.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path()).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    pub(crate) fn flag(&self) -> String {
        format!("--mock={}", self.path().display())
    }
}

pub(crate) fn built_in(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("mock-nvml/scenarios")
        .join(format!("{name}.toml"));
    fs::read_to_string(path).unwrap()
}

/// The sample lines of one family.
pub(crate) fn series<'a>(page: &'a str, family: &str) -> Vec<&'a str> {
    page.lines()
        .filter(|line| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .collect()
}

/// The value of the only sample of a family whose labels contain all of `labels`.
pub(crate) fn value(page: &str, family: &str, labels: &[&str]) -> Option<f64> {
    let mut found = series(page, family)
        .into_iter()
        .filter(|line| labels.iter().all(|label| line.contains(label)));
    let line = found.next()?;
    assert!(found.next().is_none(), "more than one {family} with {labels:?}");
    line.rsplit(' ').next()?.parse().ok()
}
