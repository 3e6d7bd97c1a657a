//! Test harness: starts the exporter binary and scrapes it.

#![expect(
    clippy::disallowed_methods,
    reason = "a test starts programs and polls until a state is reached"
)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; only a hang exceeds it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time from SIGTERM to the end: five seconds, and what a loaded machine needs in addition.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Environment variable for `sandbox::launcher`: the command to start, one argument per line.
pub(crate) const SANDBOX_COMMAND: &str = "CONFINED_COMMAND";

/// Watches the node. Its labels are not read otherwise.
pub(crate) const WATCH_NODE: &str = "--release-label=nvidia.com/mig.config.state=pending";

/// A running exporter; killed when dropped.
pub(crate) struct Exporter {
    server: Client,
    log: tempfile::NamedTempFile,
    /// Its temporary directory, unless the test has one of its own: a killed exporter leaves files behind.
    _temporary: tempfile::TempDir,
}

/// A running HTTP server and a client for it; the server is killed when dropped.
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

    /// Starts it with these environment variables.
    pub(crate) fn start_with(environment: &[(&str, &str)], args: &[&str]) -> Self {
        // A file instead of a pipe: it can be read several times, from the start.
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let mut command = command(&[&["--address", "127.0.0.1:0"], args].concat());
        command.envs(environment.iter().copied());
        Self::run(command, log)
    }

    /// Starts it with two listening sockets, as systemd does (socket activation).
    pub(crate) fn socket_activated(listeners: [TcpListener; 2], args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        // The sockets are file descriptors 3 and 4, and LISTEN_PID names the process that they are for.
        let script =
            "exec 3<&0 0</dev/null 4<&1 1>/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\"";
        let mut command = Command::new("sh");
        command.env_clear().env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_nvml-exporter")]).args(args);
        let [first, second] = listeners.map(OwnedFd::from);
        command.stdin(first).stdout(second);
        Self::run(command, log)
    }

    /// Starts it with a limit on open file descriptors.
    pub(crate) fn with_file_limit(limit: u32, args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let mut command = Command::new("sh");
        command.env_clear().env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_nvml-exporter")).args(["--address", "127.0.0.1:0"]);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        Self::run(command, log)
    }

    /// Starts it as the manifests do: read-only root file system, no capabilities, no new privileges, and
    /// the seccomp profile of `daemonset/seccomp`, see `sandbox::launcher`.
    pub(crate) fn sandboxed(args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let mut command = sandboxed_command(&[&["--address", "127.0.0.1:0"], args].concat());
        command.stdout(Stdio::null());
        Self::run(command, log)
    }

    fn run(mut command: Command, log: tempfile::NamedTempFile) -> Self {
        let shared = env!("CARGO_TARGET_TMPDIR");
        let temporary = tempfile::tempdir_in(shared).expect("a temporary directory");
        if command.get_envs().any(|(key, value)| key == "TMPDIR" && value == Some(shared.as_ref()))
        {
            command.env("TMPDIR", temporary.path());
        }
        let child =
            command.stderr(log.reopen().expect("the log")).spawn().expect("the exporter starts");
        let server = Client { child, address: String::new() };
        let mut exporter = Self { server, log, _temporary: temporary };
        exporter.server.address = exporter.wait_for_address();
        exporter
    }

    /// Reads the address from the log line with `serving address=`.
    fn wait_for_address(&mut self) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let ended = self.server.child.try_wait().unwrap();
            let log = self.log();
            let (complete_lines, _) = log.rsplit_once('\n').unwrap_or_default();
            if let Some(address) =
                complete_lines.lines().find_map(|line| line.split("serving address=").nth(1))
            {
                return address.to_owned();
            }
            assert!(ended.is_none(), "{ended:?} before it served:\n{log}");
            assert!(Instant::now() < deadline, "no serving address in the log:\n{log}");
            thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.server.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.child.id()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).expect("the log")
    }

    /// Waits until the log contains `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in the log:\n{}", self.log());
            thread::sleep(POLL_INTERVAL);
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

    /// Scrapes until the exposition satisfies `wanted`, and returns it. `what` describes it in the panic message.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_at("/metrics", what, wanted)
    }

    /// Requests `path` until the body satisfies `wanted`, and returns it.
    pub(crate) fn wait_for_at(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        self.server
            .poll(path, wanted)
            .unwrap_or_else(|body| panic!("no {what} in {TIMEOUT:?}:\n{body}\n{}", self.log()))
    }

    /// Scrapes until the exposition satisfies `wanted`, which it does after `usually` on an idle machine.
    pub(crate) fn wait_for_longer(
        &self,
        what: &str,
        usually: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let found = self.server.poll_for("/metrics", usually + TIMEOUT, wanted);
        found.unwrap_or_else(|body| panic!("no {what}:\n{body}\n{}", self.log()))
    }

    /// Requests `path` until it has this status, which it has after `usually` on an idle machine, and returns the
    /// body.
    pub(crate) fn wait_for_status(&self, path: &str, status: u16, usually: Duration) -> String {
        let deadline = Instant::now() + usually + TIMEOUT;
        loop {
            let response = self.get(path);
            if response.status == status {
                return response.text();
            }
            assert!(Instant::now() < deadline, "no {status}: {}\n{}", response.text(), self.log());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Sends SIGHUP.
    pub(crate) fn send_sighup(&self) {
        self.send_signal("-HUP");
    }

    /// Sends a signal, such as `-USR1`.
    pub(crate) fn send_signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Sends SIGTERM and waits for the end, which does not wait for anything that hangs.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        self.send_signal("-TERM");
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        loop {
            if let Some(status) = self.server.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "SIGTERM did not end it:\n{}", self.log());
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Client {
    /// Starts a program installed by `tests/run` that will serve on `address`.
    pub(crate) fn start(program: &str, args: &[&str], address: SocketAddr) -> Self {
        let child = Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| missing(program, &e));
        Self { child, address: address.to_string() }
    }

    /// Requests `path` until the body satisfies `wanted`, and returns it.
    pub(crate) fn wait_for(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.poll(path, wanted).unwrap_or_else(|body| panic!("{path} in {TIMEOUT:?}: {body}"))
    }

    fn poll(&self, path: &str, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        self.poll_for(path, TIMEOUT, wanted)
    }

    fn poll_for(
        &self,
        path: &str,
        timeout: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, String> {
        let deadline = Instant::now() + timeout;
        loop {
            let body = self.get(path).map_or_else(|e| e.to_string(), |response| response.text());
            if wanted(&body) {
                return Ok(body);
            }
            if Instant::now() > deadline {
                return Err(body);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn get(&self, path: &str) -> io::Result<Response> {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    fn request(&self, text: &str) -> io::Result<Response> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(text.as_bytes())?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        Ok(Response::parse(&response))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Response {
    pub(crate) fn parse(response: &[u8]) -> Self {
        let end = response.windows(4).position(|w| w == b"\r\n\r\n").expect("a complete head");
        let head = String::from_utf8_lossy(&response[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let body = &response[end + 4..];
        let chunked = head.contains("transfer-encoding: chunked");
        Self { status, head, body: if chunked { decode_chunks(body) } else { body.to_vec() } }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Decodes a chunked body.
fn decode_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        decoded.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
        if size == 0 {
            break;
        }
    }
    decoded
}

/// Runs the exporter until it exits.
pub(crate) fn run(args: &[&str]) -> Output {
    run_with(&[], args)
}

/// Runs the exporter until it exits, with these environment variables.
pub(crate) fn run_with(environment: &[(&str, &str)], args: &[&str]) -> Output {
    command(args).envs(environment.iter().copied()).output().expect("the exporter runs")
}

/// The exposition that `--once` prints.
pub(crate) fn run_once(args: &[&str]) -> String {
    let output = run(&[&["--once"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The exporter as the manifests start it, see [`Exporter::confined`].
pub(crate) fn sandboxed_command(args: &[&str]) -> Command {
    let script = "mount --bind \"$TMPDIR\" \"$TMPDIR\" && mount -o remount,bind,ro / && exec \
                  setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all \
                  --no-new-privs \"$@\"";
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--", "sh", "-c", script, "sh"]);
    command.arg(std::env::current_exe().expect("the test itself"));
    command.args(["--exact", "sandbox::launcher"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    let exporter = [env!("CARGO_BIN_EXE_nvml-exporter")];
    command.env(SANDBOX_COMMAND, [&exporter, args].concat().join("\n"));
    command
}

/// Runs the exporter until it exits, as the manifests do.
pub(crate) fn run_sandboxed(args: &[&str]) -> Output {
    sandboxed_command(args).output().expect("the exporter runs")
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvml-exporter"));
    // The developer's environment must not set flags through their variables.
    // A killed exporter leaves the directory of its mock environment behind; keep it out of /tmp.
    command.env_clear().env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    command.args(args).stdout(Stdio::piped());
    command
}

/// Runs a program installed by `tests/run`. A missing program fails the test; it is never skipped.
pub(crate) fn run_tool(program: &str, args: &[&str], input: &str) -> Output {
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
    panic!("{program}: {error}; run the tests with tests/run, which installs it")
}

/// A scenario file in its own directory, which can be changed under a running exporter.
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

    /// The built-in scenario `name` with its clock fixed at `now` seconds.
    pub(crate) fn built_in_at(name: &str, now: u32) -> Self {
        Self::new(name, &format!("now = {now}\n{}", built_in_scenario(name)))
    }

    /// Replaces the file atomically, so that no reader sees a partial text.
    pub(crate) fn rewrite(&self, text: &str) {
        let temporary = self.directory.path().join("temporary");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path()).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    pub(crate) fn flag(&self) -> String {
        format!("--mock={}", self.path().display())
    }
}

pub(crate) fn built_in_scenario(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("mock-nvml/scenarios")
        .join(format!("{name}.toml"));
    fs::read_to_string(path).unwrap()
}

/// The sample lines of one family.
pub(crate) fn series<'a>(metrics: &'a str, family: &str) -> Vec<&'a str> {
    metrics
        .lines()
        .filter(|line| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .collect()
}

/// The value of the only sample of a family with labels that contain all of `labels`.
pub(crate) fn value(metrics: &str, family: &str, labels: &[&str]) -> Option<f64> {
    let mut found = series(metrics, family)
        .into_iter()
        .filter(|line| labels.iter().all(|label| line.contains(label)));
    let line = found.next()?;
    assert!(found.next().is_none(), "more than one {family} with {labels:?}");
    line.rsplit(' ').next()?.parse().ok()
}
